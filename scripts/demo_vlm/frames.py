"""The frames that a request shows, with their times, at one small size.

Contact sheets are cut into their tiles and clips into frames; single images are taken as they are.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from demo_vlm.media import Media
from demo_vlm.question import Question, SheetLayout

# Width (px) at which motion is measured.
WORK_WIDTH = 96
# The time is burned into the lower left corner of each tile, as in "12.50s": these shares of a
# tile's height (the width per character) are ignored in every tile.
PLATE_HEIGHT = 0.18
PLATE_WIDTH_PER_CHARACTER = 0.096


@dataclass(frozen=True)
class TimedFrames:
    """`frames`: N x H x W x 3 uint8 RGB, all of one size; `times_s`: N, increasing."""

    frames: np.ndarray
    times_s: np.ndarray

    def __len__(self) -> int:
        return len(self.times_s)


def timed_frames(question: Question, media: Media) -> TimedFrames:
    """Return all frames of the request in order of time, at WORK_WIDTH. May be empty."""
    found: list[tuple[float, np.ndarray]] = []
    tiled = question.sheets is not None and bool(media.images)
    if tiled:
        found += _tiles(question.sheets, media.images)
    else:
        for number, image in enumerate(media.images, 1):
            found.append((question.image_times_s.get(number, float(number - 1)), image))
    for clip in media.clips:
        start, end = question.clip_s or (0.0, clip.duration_s)
        stretch = (end - start) / clip.duration_s if clip.duration_s > 0 else 1.0
        found += [
            (start + time * stretch, frame)
            for time, frame in zip(clip.times_s, clip.frames, strict=True)
        ]
    by_time: dict[float, np.ndarray] = {}
    for time, frame in found:
        by_time.setdefault(time, frame)
    times = sorted(by_time)
    if not times:
        return TimedFrames(np.zeros((0, 1, WORK_WIDTH, 3), np.uint8), np.zeros(0))
    height, width = by_time[times[0]].shape[:2]
    size = (WORK_WIDTH, max(8, min(2 * WORK_WIDTH, round(WORK_WIDTH * height / width))))
    frames = np.stack(
        [cv2.resize(by_time[time], size, interpolation=cv2.INTER_AREA) for time in times]
    )
    if tiled:
        characters = len(f"{times[-1]:.2f}s")
        top = math.floor((1 - PLATE_HEIGHT) * size[1])
        frames[:, top:, : math.ceil(PLATE_WIDTH_PER_CHARACTER * characters * size[1])] = 0
    return TimedFrames(frames, np.array(times))


def _tiles(layout: SheetLayout, images: list[np.ndarray]) -> list[tuple[float, np.ndarray]]:
    tiles = []
    for times, sheet in zip(layout.times_s, images, strict=False):
        columns = layout.columns
        rows = math.ceil(len(times) / columns)
        height, width = sheet.shape[0] // rows, sheet.shape[1] // columns
        if height < 4 or width < 4:
            continue
        for position, time in enumerate(times):
            row, column = divmod(position, columns)
            top, left = row * height, column * width
            tiles.append((time, sheet[top : top + height, left : left + width]))
    return tiles
