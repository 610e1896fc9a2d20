"""What the demo model sees: colored regions of one image, and motion between frames."""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from demo_vlm.frames import TimedFrames

# Shades of the colors that have a name, in RGB.
SHADES = (
    *(("black", (0, 0, 0)), ("gray", (75, 75, 75)), ("gray", (150, 150, 150))),
    *(("white", (255, 255, 255)), ("brown", (110, 70, 35)), ("brown", (160, 110, 70))),
    *(("red", (110, 15, 15)), ("red", (160, 40, 40)), ("red", (230, 20, 20))),
    *(("orange", (255, 140, 0)), ("yellow", (160, 150, 20)), ("yellow", (240, 220, 20))),
    *(("green", (15, 60, 20)), ("green", (30, 150, 40)), ("green", (130, 210, 60))),
    *(("cyan", (20, 130, 140)), ("cyan", (0, 220, 220)), ("blue", (15, 25, 90))),
    *(("blue", (25, 50, 220)), ("blue", (90, 140, 240)), ("purple", (80, 10, 110))),
    *(("purple", (140, 40, 200)), ("pink", (255, 150, 190)), ("pink", (230, 60, 160))),
)
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
    salience: float

    @property
    def label(self) -> str:
        return f"{self.color} object"

    @property
    def center(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


def _to_lab(image: np.ndarray) -> np.ndarray:
    """Convert H x W x 3 RGB to float32 CIE Lab (L 0 to 100, a and b about -100 to 100)."""
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def color_names(lab: np.ndarray) -> np.ndarray:
    """Return the name of the nearest of SHADES for each pixel of an image in CIE Lab.

    Lightness counts half: it depends on the light more than on the object.
    """
    known = _to_lab(np.array([[rgb for _, rgb in SHADES]]))[0]
    difference = (lab[:, :, None] - known) * (0.5, 1, 1)
    return np.array([name for name, _ in SHADES])[
        np.linalg.norm(difference, axis=-1).argmin(axis=-1)
    ]


def find_regions(image: np.ndarray, preferred: str = "") -> list[Region]:
    """Return the regions that stand out by color, the most salient first.

    The whole image is the only region if none stands out; its salience is 0.

    Args:
        image: H x W x 3 uint8 RGB.
        preferred: text whose color words (such as a task's) put regions of that color first.
    """
    height, width = image.shape[:2]
    scale = min(1.0, SEARCH_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    lab = _to_lab(cv2.GaussianBlur(small, (0, 0), 0.8))
    median = np.median(lab, axis=(0, 1))
    distance = np.linalg.norm((lab - median)[..., 1:], axis=-1)
    names = np.where(distance > STANDS_OUT, color_names(lab), "")
    regions = []
    for color in np.unique(names[names != ""]):
        count, parts, stats, _ = cv2.connectedComponentsWithStats((names == color).astype(np.uint8))
        for part in range(1, count):
            left, top, wide, high, area = stats[part].tolist()
            if not MIN_AREA <= area / parts.size <= MAX_AREA:
                continue
            mask = parts == part
            x, y = _inner_point(mask, (left + wide / 2, top + high / 2))
            right, bottom = min((left + wide) / scale, width), min((top + high) / scale, height)
            box = (left / scale, top / scale, right, bottom)
            point = ((x + 0.5) / scale, (y + 0.5) / scale)
            salience = float(distance[mask].mean() * np.sqrt(area / parts.size))
            regions.append(Region(str(color), box, point, salience))
    if not regions:
        color = str(color_names(median[None, None])[0, 0])
        regions.append(Region(color, (0.0, 0.0, width, height), (width / 2, height / 2), 0.0))
    wanted = preferred.lower().split()
    return sorted(regions, key=lambda one: (one.color not in wanted, -one.salience, one.box))


def _inner_point(mask: np.ndarray, center: tuple[float, float]) -> tuple[int, int]:
    """Return a pixel far from the edge of a region and near `center`; also of a ring."""
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    rows, columns = np.nonzero(depth >= 0.9 * depth.max())
    nearest = np.hypot(columns - center[0], rows - center[1]).argmin()
    return int(columns[nearest]), int(rows[nearest])


def speeds(seen: TimedFrames) -> np.ndarray:
    """Return the mean absolute change of the pixels (0 to 255 per second) in each interval."""
    # A last frame right after the one before would make noise look like speed.
    spans = np.clip(np.diff(seen.times_s), 0.1, None)
    moved = [float(cv2.absdiff(before, after).mean()) for before, after in pairwise(seen.frames)]
    return np.array(moved) / spans


def boundaries(seen: TimedFrames, min_s: float) -> list[float]:
    """Return the times (s) of lulls between motion peaks, the most prominent first.

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
        if all(abs(time - other) >= min_s for other in (*ends, *chosen)):
            chosen.append(time)
    return chosen


def peaks(seen: TimedFrames, most: int) -> list[float]:
    """Return the times (s) of the `most` fastest intervals, in order."""
    speed = speeds(seen)
    moving = [index for index in np.argsort(-speed)[:most] if speed[index] > STILL]
    return sorted(float(seen.times_s[index + 1]) for index in moving)
