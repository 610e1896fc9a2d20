"""What the demo model sees: colored regions of one image, and motion between frames."""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from demo_vlm import colors
from demo_vlm.frames import TimedFrames

# Distance (CIE Lab, a and b) from the image's median color from which a pixel stands out.
STANDS_OUT = 22.0
# Share of the image that a region covers at least and at most.
MIN_AREA, MAX_AREA = 0.0008, 0.4
# Longer side (px) at which regions are searched.
SEARCH_SIDE = 320
# Mean absolute change (0 to 255, per second) below which nothing moves.
STILL = 0.6
# A lull is a boundary if the motion on both sides exceeds it by this share of the maximum.
MIN_PROMINENCE = 0.05


@dataclass(frozen=True)
class Region:
    """A region of one color. Pixels of the image; the box's right and lower edge are exclusive."""

    color: str
    box: tuple[float, float, float, float]
    point: tuple[float, float]
    area: float  # share of the image
    salience: float

    @property
    def label(self) -> str:
        return f"{self.color} object"

    @property
    def center(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


def find_regions(image: np.ndarray, preferred: str = "") -> list[Region]:
    """Return the regions that stand out by color, the most salient first.

    Args:
        image: H x W x 3 uint8 RGB.
        preferred: text whose color words (such as a task's) put regions of that color first.
    """
    scale = min(1.0, SEARCH_SIDE / max(image.shape[:2]))
    size = (max(8, round(image.shape[1] * scale)), max(8, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    lab = colors.to_lab(cv2.GaussianBlur(small, (0, 0), 0.8))
    distance = np.hypot(*np.moveaxis(lab[..., 1:] - np.median(lab[..., 1:], axis=(0, 1)), -1, 0))
    hue = np.round(np.arctan2(lab[..., 2], lab[..., 1]) / (np.pi / 6)).astype(int) % 12
    stands_out = distance > STANDS_OUT
    found = []
    for sector in np.unique(hue[stands_out]):
        mask = (stands_out & np.isin(hue, (sector, (sector + 1) % 12))).astype(np.uint8)
        mask &= (~_covered(found, mask.shape)).astype(np.uint8)
        count, parts, stats, _ = cv2.connectedComponentsWithStats(mask)
        for part in range(1, count):
            area = stats[part, cv2.CC_STAT_AREA] / mask.size
            if MIN_AREA <= area <= MAX_AREA:
                found.append((parts == part, stats[part], area))
    regions = [
        _region(image, small, distance, mask, stat, area, scale) for mask, stat, area in found
    ]
    wanted = preferred.lower().split()
    return sorted(regions, key=lambda r: (r.color not in wanted, -r.salience, r.box))


def _covered(found: list, shape: tuple[int, int]) -> np.ndarray:
    covered = np.zeros(shape, bool)
    for mask, _, _ in found:
        covered |= mask
    return covered


def _region(
    image: np.ndarray,
    small: np.ndarray,
    distance: np.ndarray,
    mask: np.ndarray,
    stat: np.ndarray,
    area: float,
    scale: float,
) -> Region:
    left, top, width, height = (int(value) for value in stat[:4])
    # A pixel far from the region's edge is on the region, even if the region is a ring.
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    rows, columns = np.nonzero(depth >= 0.9 * depth.max())
    off_center = np.hypot(rows - top - height / 2, columns - left - width / 2)
    y, x = rows[off_center.argmin()], columns[off_center.argmin()]
    box = (left / scale, top / scale, (left + width) / scale, (top + height) / scale)
    return Region(
        color=colors.name_of(np.median(small[mask], axis=0)),
        box=(box[0], box[1], min(box[2], image.shape[1]), min(box[3], image.shape[0])),
        point=((x + 0.5) / scale, (y + 0.5) / scale),
        area=area,
        salience=float(distance[mask].mean() * np.sqrt(area)),
    )


def speeds(seen: TimedFrames) -> np.ndarray:
    """Return the mean absolute change of the pixels (0 to 255 per second) in each interval."""
    if len(seen) < 2:
        return np.zeros(0)
    # A last frame right after the one before would make noise look like speed.
    spans = np.clip(np.diff(seen.times_s), 0.1, None)
    moved = [float(cv2.absdiff(before, after).mean()) for before, after in pairwise(seen.frames)]
    return np.array(moved) / spans


def boundaries(seen: TimedFrames, min_s: float, most: int) -> list[float]:
    """Return the times (s) of at most `most` lulls between motion peaks, in order.

    They keep `min_s` from each other and from both ends.
    """
    speed = speeds(seen)
    if len(speed) < 3 or speed.max() <= STILL:
        return []
    smooth = np.convolve(np.pad(speed, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    middle = (seen.times_s[:-1] + seen.times_s[1:]) / 2
    lulls = []
    for index in range(1, len(smooth) - 1):
        if smooth[index] <= smooth[index - 1] and smooth[index] < smooth[index + 1]:
            prominence = min(smooth[:index].max(), smooth[index + 1 :].max()) - smooth[index]
            if prominence >= MIN_PROMINENCE * smooth.max():
                lulls.append((prominence, float(middle[index])))
    chosen: list[float] = []
    for _, time in sorted(lulls, reverse=True):
        ends = (float(seen.times_s[0]), float(seen.times_s[-1]))
        if len(chosen) < most and all(abs(time - other) >= min_s for other in (*ends, *chosen)):
            chosen.append(time)
    return sorted(chosen)


def peaks(seen: TimedFrames, most: int) -> list[float]:
    """Return the times (s) of the `most` fastest intervals, in order."""
    speed = speeds(seen)
    moving = [index for index in np.argsort(-speed)[:most] if speed[index] > STILL]
    return sorted(float(seen.times_s[index + 1]) for index in moving)
