"""Words for what the pictures of a request show as a whole."""

import cv2
import numpy as np

from demo_vlm import colors
from demo_vlm.moments import Moments
from demo_vlm.motion import Motion
from demo_vlm.regions import Region, find
from demo_vlm.segmentation import segment

_EVENTS = {
    "act": "the scene begins to change{where}",
    "contact": "the motion slows down close to where the scene then changes",
    "leave": "the motion leaves the place that has changed",
    "approach": "the motion begins",
    "whole": "the motion begins",
}


def place(x: float, y: float, width: float, height: float) -> str:
    """Where a point lies, by thirds: `upper left`, `middle`, `lower right`, …"""
    rows = ("upper", "middle", "lower")
    columns = ("left", "middle", "right")
    row = rows[min(2, max(0, int(3 * y / height)))]
    column = columns[min(2, max(0, int(3 * x / width)))]
    if row == column == "middle":
        return "middle"
    if row == "middle":
        return f"middle {column}"
    return f"{row} middle" if column == "middle" else f"{row} {column}"


def describe(seen: Moments, motion: Motion, window_s: tuple[float, float]) -> dict:
    """A Description: colored things that stand out, and when motion and changes begin."""
    if not len(seen):
        return {"scene": "No picture was sent.", "events": []}
    frame = seen.frames[0]
    height, width = frame.shape[:2]
    things = [
        f"a {region.name} at the {place(*region.center, width, height)}"
        for region in find(frame)[:4]
    ]
    background = colors.name_of(np.median(frame[frame.any(axis=-1)].reshape(-1, 3), axis=0))
    scene = f"The picture is mostly {background}."
    if things:
        listed = ", ".join(things[:-1]) + (" and " if len(things) > 1 else "") + things[-1]
        scene += f" What stands out: {listed}."
    if not motion.moves:
        return {"scene": f"{scene} Nothing is seen to move.", "events": []}
    center = changed_center(motion)
    where = "" if center is None else f" at the {place(*center, width, height)}"
    events = [
        {"at_s": round(part.start_s, 2), "what": _EVENTS[part.role].format(where=where)}
        for part in segment(motion, *window_s, max_segments=12, min_s=0.4)
    ]
    return {"scene": f"{scene} Something moves in it.", "events": events}


def changed_center(motion: Motion) -> tuple[float, float] | None:
    """Center (x, y) of what changes for good, or None where nothing does."""
    rows, columns = np.nonzero(motion.changed)
    if not len(rows):
        return None
    return float(np.median(columns)), float(np.median(rows))


def moved_thing(seen: Moments, motion: Motion) -> Region | None:
    """The region of the first or last frame that lies most on what changes for good."""
    best: tuple[float, Region | None] = (0.3, None)
    if not motion.changed.any():
        return None
    for frame in (seen.frames[0], seen.frames[-1]):
        for region in find(frame):
            mask = region.mask
            if mask.shape != motion.changed.shape:
                size = motion.changed.shape[::-1]
                mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
            overlap = float(motion.changed[mask].mean()) if mask.any() else 0.0
            if overlap > best[0]:
                best = (overlap, region)
    return best[1]


def task_from_video(seen: Moments, motion: Motion) -> str:
    """An order for what is seen to happen, in colors and shapes."""
    if not motion.moves:
        return "Keep the robot still"
    thing = moved_thing(seen, motion)
    if thing is not None:
        return f"Move the {thing.name}"
    center = changed_center(motion)
    if center is None:
        return "Move the robot arm"
    height, width = seen.frames.shape[1:3]
    return f"Change what is at the {place(*center, width, height)} of the picture"
