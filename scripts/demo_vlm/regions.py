"""Regions of a picture that stand out from what surrounds them.

Colors are grouped (k-means in Lab), connected pieces of one group are regions, neighbors of one hue
are sides of one thing and are joined. What stands out is told by the contrast to the ring of pixels
around it, by its color being far from gray, and by lying inside the picture; what seems to be part
of the robot comes later (`robot`). Nothing here knows which robot or which table it looks at.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from demo_vlm import colors, robot

# Longer side (px) at which regions are looked for; boxes are scaled back.
WORK_SIDE = 256
GROUPS = 12
# Lightness varies over one thing with the light, so it counts less than hue.
LIGHTNESS_WEIGHT = 0.55
MIN_SHARE, MAX_SHARE = 0.0006, 0.35
# Contrast (Lab) below which a region is part of what surrounds it.
MIN_CONTRAST = 12.0


@dataclass(frozen=True)
class Region:
    """A region in pixels of the picture as it was sent.

    `box` = (x_min, y_min, x_max, y_max), x_max and y_max exclusive; `mask` is H x W bool at the
    size that was looked at, `scale` turns its pixels into those of the picture. `saliency` is how
    much it stands out, `rank` the same less what seems to be part of the robot.
    """

    box: tuple[float, float, float, float]
    color: str
    shape: str
    share: float
    saliency: float
    rank: float
    mask: np.ndarray
    scale: tuple[float, float]

    @property
    def name(self) -> str:
        """What it can truly be called: its color and its outline."""
        return f"{self.color} {self.shape}"

    @cached_property
    def point(self) -> tuple[float, float]:
        """The pixel of the region that is deepest inside it: always on the region."""
        padded = cv2.copyMakeBorder(self.mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
        # Of equally deep pixels the one next to their middle: the center of a square.
        rows, columns = np.nonzero(depth >= depth.max() - 0.5)
        middle = np.hypot(rows - rows.mean(), columns - columns.mean()).argmin()
        return (
            (float(columns[middle]) + 0.5) * self.scale[0],
            (float(rows[middle]) + 0.5) * self.scale[1],
        )

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


def find(picture: np.ndarray) -> list[Region]:
    """Regions of `picture` (H x W x 3 uint8 RGB) that stand out, highest rank first."""
    height, width = picture.shape[:2]
    factor = min(1.0, WORK_SIDE / max(height, width))
    size = (max(4, round(width * factor)), max(4, round(height * factor)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if factor < 1 else picture
    smooth = cv2.medianBlur(small, 3)
    lab = colors.to_lab(smooth)
    pieces = _pieces(lab)
    return _describe(small, lab, pieces, (width / size[0], height / size[1]))


def _pieces(lab: np.ndarray) -> np.ndarray:
    """H x W int32: 0 for crumbs, else the number of the region a pixel belongs to."""
    weighted = lab * np.array([LIGHTNESS_WEIGHT, 1.0, 1.0], np.float32)
    groups = _group(weighted)
    pieces = np.zeros(groups.shape, np.int32)
    count = 0
    smallest = max(6, MIN_SHARE * groups.size / 3)
    for group in range(int(groups.max()) + 1):
        number, part, stats, _ = cv2.connectedComponentsWithStats(
            (groups == group).astype(np.uint8), connectivity=4
        )
        keep = np.zeros(number, np.int32)
        for index in range(1, number):
            if stats[index, cv2.CC_STAT_AREA] >= smallest:
                count += 1
                keep[index] = count
        pieces += keep[part]
    return _join(lab, pieces, count)


def _group(weighted: np.ndarray) -> np.ndarray:
    """H x W index of the color group, by k-means from starts that lie far apart (no chance)."""
    sample = weighted[::4, ::4].reshape(-1, 3)
    centers = [np.median(sample, axis=0)]
    distance = np.full(len(sample), np.inf, np.float32)
    for _ in range(GROUPS - 1):
        distance = np.minimum(distance, ((sample - centers[-1]) ** 2).sum(1))
        # Not the farthest pixel (a stray one) but one of the far ones.
        order = np.argsort(distance, kind="stable")
        if distance[order[-1]] < 16.0:
            break
        centers.append(sample[order[int(0.995 * (len(order) - 1))]])
    middle = np.array(centers, np.float32)
    for _ in range(5):
        nearest = _nearest(sample, middle)
        for index in range(len(middle)):
            members = sample[nearest == index]
            if len(members):
                middle[index] = members.mean(axis=0)
    return _nearest(weighted.reshape(-1, 3), middle).reshape(weighted.shape[:2])


def _nearest(points: np.ndarray, middle: np.ndarray) -> np.ndarray:
    # |p - m|^2 without the |p|^2 that all have in common.
    return (points @ (-2.0 * middle.T) + (middle**2).sum(1)).argmin(axis=1)


def _join(lab: np.ndarray, pieces: np.ndarray, count: int) -> np.ndarray:
    """Join neighbors whose colors differ in little but lightness."""
    area = np.bincount(pieces.ravel(), minlength=count + 1).astype(np.float64)
    mean = (
        np.stack(
            [
                np.bincount(pieces.ravel(), lab[..., channel].ravel(), minlength=count + 1)
                for channel in range(3)
            ],
            axis=1,
        )
        / np.maximum(area, 1)[:, None]
    )
    parent = np.arange(count + 1)

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    for first, second in _neighbors(pieces):
        if _one_thing(mean[first], mean[second]):
            a, b = root(first), root(second)
            parent[max(a, b)] = min(a, b)
    return np.array([root(index) for index in range(count + 1)], np.int32)[pieces]


def _neighbors(pieces: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of regions that touch, also across a seam of up to two unassigned pixels."""
    base = int(pieces.max()) + 1
    pairs = []
    for step in (1, 2, 3):
        for first, second in (
            (pieces[:, :-step], pieces[:, step:]),
            (pieces[:-step], pieces[step:]),
        ):
            touching = (first != second) & (first > 0) & (second > 0)
            a, b = first[touching], second[touching]
            pairs.append(np.minimum(a, b) * base + np.maximum(a, b))
    edges, counts = np.unique(np.concatenate(pairs), return_counts=True)
    return [divmod(int(edge), base) for edge in edges[counts >= 3]]


def _one_thing(first: np.ndarray, second: np.ndarray) -> bool:
    chroma_a, chroma_b = np.hypot(*first[1:]), np.hypot(*second[1:])
    if min(chroma_a, chroma_b) < 22:
        return False
    angle = np.arccos(np.clip(first[1:] @ second[1:] / (chroma_a * chroma_b), -1, 1))
    return bool(angle < 0.22)


def _describe(
    small: np.ndarray, lab: np.ndarray, pieces: np.ndarray, scale: tuple[float, float]
) -> list[Region]:
    found: dict[int, Region] = {}
    outlines: dict[int, robot.Outline] = {}
    counts = np.bincount(pieces.ravel())
    in_row = np.zeros((len(counts), pieces.shape[0]), bool)
    in_column = np.zeros((len(counts), pieces.shape[1]), bool)
    in_row[pieces, np.arange(pieces.shape[0])[:, None]] = True
    in_column[pieces, np.arange(pieces.shape[1])] = True
    for number, count in enumerate(counts.tolist()):
        share = count / pieces.size
        if number == 0 or not MIN_SHARE <= share <= MAX_SHARE:
            continue
        rows, columns = np.flatnonzero(in_row[number]), np.flatnonzero(in_column[number])
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        reach = 4
        window = np.s_[max(0, top - reach) : bottom + reach, max(0, left - reach) : right + reach]
        inside = (pieces[window] == number).astype(np.uint8)
        ring = cv2.dilate(inside, np.ones((2 * reach - 1, 2 * reach - 1), np.uint8)) - inside
        ring = ring.astype(bool)
        if not ring.any():
            continue
        inside = inside.astype(bool)
        own = np.median(lab[window][inside], axis=0)
        around = lab[window][ring]
        contrast = float(np.median(np.linalg.norm(around - own, axis=1)))
        if contrast < MIN_CONTRAST:
            continue
        mask = pieces == number
        solidity = count / ((bottom - top) * (right - left))
        edges = int(mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum())
        border = edges / max(1.0, 2.0 * np.sqrt(count))
        saliency = (
            contrast
            * (0.35 + min(1.0, float(np.hypot(own[1], own[2])) / 60.0))
            * min(1.0, (share / 0.01)) ** 0.5
            * (0.4 + 0.6 * min(1.0, solidity / 0.6))
            * max(0.1, 1.0 - float(border))
        )
        outlines[number] = robot.Outline(
            area=count,
            border=edges,
            color=own,
            around=np.bincount(pieces[window][ring]),
            mask=mask,
        )
        found[number] = Region(
            box=(
                float(left * scale[0]),
                float(top * scale[1]),
                float(right * scale[0]),
                float(bottom * scale[1]),
            ),
            color=colors.name_of(np.median(small[window][inside], axis=0)),
            shape=_outline(mask[top:bottom, left:right]),
            share=float(share),
            saliency=float(saliency),
            rank=float(saliency),
            mask=mask,
            scale=scale,
        )
    for number, weight in robot.weights(outlines).items():
        found[number] = replace(found[number], rank=found[number].saliency * weight)
    return sorted(found.values(), key=lambda region: (-region.rank, region.box))


def _outline(mask: np.ndarray) -> str:
    """`bar` for what is long and thin, `patch` for the rest: all that an outline can vouch for."""
    points = np.argwhere(mask)[:, ::-1].astype(np.int32)
    _, (first, second), _ = cv2.minAreaRect(points)
    longer, shorter = max(first, second) + 1, min(first, second) + 1
    return "bar" if longer > 2.8 * shorter else "object"
