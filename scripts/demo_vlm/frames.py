"""The frames that a request shows, with their times, at one small size.

Contact sheets are cut into their tiles and clips into frames; single images are taken as they are.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from demo_vlm.media import Media
from demo_vlm.question import Question

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


def timed_frames(question: Question, media: Media) -> TimedFrames:
    """Return all frames of a request that has some, in order of time, at WORK_WIDTH."""
    by_time: dict[float, np.ndarray] = {}
    for time, frame in _frames(question, media):
        by_time.setdefault(time, frame)
    times = sorted(by_time)
    height, width = by_time[times[0]].shape[:2]
    size = (WORK_WIDTH, max(8, min(2 * WORK_WIDTH, round(WORK_WIDTH * height / width))))
    frames = np.stack(
        [cv2.resize(by_time[time], size, interpolation=cv2.INTER_AREA) for time in times]
    )
    if question.sheet_columns():
        characters = len(f"{times[-1]:.2f}s")
        top = math.floor((1 - PLATE_HEIGHT) * size[1])
        frames[:, top:, : math.ceil(PLATE_WIDTH_PER_CHARACTER * characters * size[1])] = 0
    return TimedFrames(frames, np.array(times))


def _frames(question: Question, media: Media) -> Iterator[tuple[float, np.ndarray]]:
    if columns := question.sheet_columns():
        for times, sheet in zip(question.sheet_times_s(), media.images, strict=False):
            yield from _tiles(sheet, times, columns)
    else:
        image_times_s = question.image_times_s()
        for number, image in enumerate(media.images, 1):
            yield image_times_s.get(number, float(number - 1)), image
    for clip in media.clips:
        start, end = question.span_s("Clip") or (0.0, clip.duration_s)
        stretch = (end - start) / clip.duration_s
        for time, frame in zip(clip.times_s, clip.frames, strict=True):
            yield start + time * stretch, frame


def _tiles(
    sheet: np.ndarray, times_s: list[float], columns: int
) -> Iterator[tuple[float, np.ndarray]]:
    rows = math.ceil(len(times_s) / columns)
    height, width = sheet.shape[0] // rows, sheet.shape[1] // columns
    for position, time in enumerate(times_s):
        top, left = position // columns * height, position % columns * width
        yield time, sheet[top : top + height, left : left + width]
