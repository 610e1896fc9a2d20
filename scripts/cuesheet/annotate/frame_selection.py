"""Which frames of the grid a call shows."""

from collections.abc import Sequence

from cuesheet.artifacts.episode import Keyframe
from cuesheet.artifacts.subtasks import Subtask


def sample_frames_in_subtask(grid: Sequence[Keyframe], part: Subtask, count: int) -> list[Keyframe]:
    """Up to `count` frames of the grid spread over a subtask; the nearest one where none is in it.

    A subtask shorter than the grid's step may hold no frame of the grid.
    """
    inside = [f for f in grid if part.start_frame <= f.frame_index < part.end_frame]
    if not inside:
        inside = [min(grid, key=lambda frame: abs(frame.frame_index - part.start_frame))]
    return sample_evenly(inside, count)


def sample_evenly(frames: Sequence[Keyframe], count: int) -> list[Keyframe]:
    """At most `count` of `frames`, evenly spread, first and last among them."""
    if len(frames) <= count:
        return list(frames)
    if count == 1:
        return [frames[-1]]
    step = (len(frames) - 1) / (count - 1)
    return [frames[round(position * step)] for position in range(count)]


def frames_around(grid: Sequence[Keyframe], frame_index: int, count: int) -> list[Keyframe]:
    """The `count` frames nearest to a boundary, half before it and half from it on, in order."""
    before = [frame for frame in grid if frame.frame_index < frame_index]
    after = [frame for frame in grid if frame.frame_index >= frame_index]
    take_after = min(len(after), count - min(len(before), count // 2))
    take_before = min(len(before), count - take_after)
    return [*before[len(before) - take_before :], *after[:take_after]]
