"""Selects the frames of the grid that a request shows."""

from collections.abc import Sequence

from cuesheet.artifacts.episode import Keyframe
from cuesheet.artifacts.subtasks import Subtask


def sample_frames_in_subtask(
    grid: Sequence[Keyframe], subtask: Subtask, count: int
) -> list[Keyframe]:
    """Return up to `count` frames of the grid, evenly spaced over a subtask.

    If the subtask is shorter than the grid's step and contains none of its frames, the nearest
    frame is returned.
    """
    inside = [f for f in grid if subtask.start_frame <= f.frame_index < subtask.end_frame]
    if not inside:
        inside = [min(grid, key=lambda frame: abs(frame.frame_index - subtask.start_frame))]
    return sample_evenly(inside, count)


def sample_evenly(frames: Sequence[Keyframe], count: int) -> list[Keyframe]:
    """Return at most `count` of `frames`, evenly spaced, with the first and the last one."""
    if len(frames) <= count:
        return list(frames)
    if count == 1:
        return [frames[-1]]
    step = (len(frames) - 1) / (count - 1)
    return [frames[round(position * step)] for position in range(count)]


def frames_around(grid: Sequence[Keyframe], frame_index: int, count: int) -> list[Keyframe]:
    """Return the `count` frames nearest to a boundary, half of them before it, in order."""
    before = [frame for frame in grid if frame.frame_index < frame_index]
    after = [frame for frame in grid if frame.frame_index >= frame_index]
    take_after = min(len(after), count - min(len(before), count // 2))
    take_before = min(len(before), count - take_after)
    return [*before[len(before) - take_before :], *after[:take_after]]
