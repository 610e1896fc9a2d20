"""Which regions of a picture seem to be parts of the robot, told by how they lie.

An arm or a finger comes into the picture from its border, and what is mounted at its end (a pad, a
marker, a joint) is a small region that touches it without lying on top of it. This holds for any
robot, and is only a guess: a thing that lies at the border, or that the gripper holds, looks the
same. So it sets back what it finds, and hides nothing.
"""

from dataclasses import dataclass

import cv2
import numpy as np

# A region that runs along the border for longer than this many times the root of its area is a
# strip at the border (a wall, the edge of a table) and does not reach into the picture.
MIN_ALONG_BORDER, MAX_ALONG_BORDER = 0.25, 2.0
# Area against that of what it is mounted on.
MAX_TIP = 0.25
# Share of the outline that touches what it is mounted on: less is chance, more lies on top of it.
MIN_TOUCH, MAX_TOUCH = 0.2, 0.75
HOPS = 1
MIN_LINK = 0.25
SEAM = 0.03
MIN_CHROMA, MIN_COSINE = 22.0, 0.97
REACHING, MOUNTED = 0.4, 0.15


@dataclass(frozen=True)
class Outline:
    """A region: `area` and `border` (pixels on the border of the picture), its `color` (Lab), and
    how many pixels around it belong to each region (by number, 0: to none)."""

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
    """Weights (0 to 1) of those regions that seem to be parts of the robot."""
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
        for _ in range(HOPS):
            area = sum(outlines[number].area for number in parts)
            added = {
                number
                for number, outline in outlines.items()
                if number not in found and _mounted(outline, parts, area)
            }
            parts |= added
            found.update(dict.fromkeys(added, MOUNTED))
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
    chroma = np.hypot(*first[1:]) * np.hypot(*second[1:])
    return bool(chroma >= MIN_CHROMA**2 and first[1:] @ second[1:] >= MIN_COSINE * chroma)


def _mounted(outline: Outline, parts: set[int], area: int) -> bool:
    return outline.area <= MAX_TIP * area and MIN_TOUCH <= outline.touch(parts) <= MAX_TOUCH
