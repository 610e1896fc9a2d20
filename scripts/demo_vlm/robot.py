"""Which regions of a picture seem to be parts of the robot, told by how they lie.

An arm or a finger comes into the picture from its border, and what is mounted at its end (a pad, a
marker, a joint) is a small region that touches it without lying on top of it. This holds for any
robot, and is only a guess: a thing that lies at the border, or that the gripper holds, looks the
same. So it sets back what it finds, and hides nothing.
"""

from dataclasses import dataclass

import cv2
import numpy as np

# Pixels on the border of the picture against the root of the area. A region with more runs along
# the border (a wall, the edge of a table) instead of reaching in; one with less only grazes it.
MIN_ALONG_BORDER, MAX_ALONG_BORDER = 0.33, 2.0
# Area against that of what it is mounted on.
MAX_MOUNTED = 0.25
# Share of the outline that touches what it is mounted on: less is chance, more lies on top of it.
MIN_TOUCH, MAX_TOUCH = 0.1, 0.6
# Links of one arm: area against that of the first, and the seam between them against the longer
# side of the picture. Colors are of one hue from this chroma (Lab) and cosine of their angle on.
MIN_LINK, SEAM = 0.25, 0.03
MIN_CHROMA, MIN_COSINE = 22.0, 0.97
# What reaches in may be a thing as well, so it is set back less than what sits at its end.
REACHING, MOUNTED = 0.4, 0.15


@dataclass(frozen=True)
class Outline:
    """What of a region is looked at here.

    `area` and `border` (how much of it lies on the border of the picture) in pixels, `color` its
    Lab, `around` how many pixels of a ring around it belong to each region (by number, 0: to
    none), `mask` H x W bool.
    """

    area: int
    border: int
    color: np.ndarray
    around: np.ndarray
    mask: np.ndarray

    def touch(self, numbers: set[int]) -> float:
        """Share of the pixels around it that belong to the regions of these numbers."""
        near = sum(int(self.around[number]) for number in numbers if number < len(self.around))
        return near / float(self.around.sum())


def weights(outlines: dict[int, Outline]) -> dict[int, float]:
    """Weights (0 to 1) of those regions that seem to be parts of the robot, by their number."""
    reaching = [
        number
        for number, outline in outlines.items()
        if MIN_ALONG_BORDER <= outline.border / np.sqrt(outline.area) <= MAX_ALONG_BORDER
    ]
    found = dict.fromkeys(reaching, REACHING)
    for start in reaching:
        links = _links(start, outlines)
        found.update(dict.fromkeys(links, REACHING))
        parts = {start, *links}
        area = sum(outlines[number].area for number in parts)
        for number, outline in outlines.items():
            if number not in found and _mounted(outline, parts, area):
                found[number] = MOUNTED
    return found


def _links(start: int, outlines: dict[int, Outline]) -> set[int]:
    """Regions of one hue with region `start` behind a narrow seam: the next links of an arm."""
    first = outlines[start]
    alike = {
        number
        for number, outline in outlines.items()
        if number != start
        and outline.area >= MIN_LINK * first.area
        and _one_hue(first.color, outline.color)
    }
    links: set[int] = set()
    mask = first.mask.astype(np.uint8)
    reach = 2 * max(2, round(SEAM * max(mask.shape))) + 1
    while alike:
        near = cv2.dilate(mask, np.ones((reach, reach), np.uint8)).astype(bool)
        added = {number for number in alike if (near & outlines[number].mask).any()}
        if not added:
            break
        links |= added
        alike -= added
        for number in added:
            mask |= outlines[number].mask
    return links


def _one_hue(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two Lab colors differ in little but lightness, and neither is gray."""
    chroma = np.hypot(*first[1:]), np.hypot(*second[1:])
    cosine_by_chroma = first[1:] @ second[1:]
    return bool(min(chroma) >= MIN_CHROMA and cosine_by_chroma >= MIN_COSINE * np.prod(chroma))


def _mounted(outline: Outline, parts: set[int], area: int) -> bool:
    """Whether a region is a small one that sits at the side or the end of the regions `parts`."""
    return outline.area <= MAX_MOUNTED * area and MIN_TOUCH <= outline.touch(parts) <= MAX_TOUCH
