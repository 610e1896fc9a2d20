"""Selects the frames of an episode that are decoded and that each stage shows to the model.

All functions take `timestamps_s`, one increasing time per frame (s, from the episode's start), and
return frame indices. The selection is made once, when keyframes are decoded, and stored in
keyframes.json: stages read it from there, because a second computation from rounded times can pick
other frames.
"""

import bisect
import struct
from collections.abc import Sequence
from dataclasses import dataclass


def nearest_index(timestamps_s: Sequence[float], time_s: float) -> int:
    """Return the index of the frame nearest to `time_s`; the earlier one in a tie."""
    after = bisect.bisect_left(timestamps_s, time_s)
    if after == 0:
        return 0
    if after == len(timestamps_s):
        return after - 1
    closer = timestamps_s[after] - time_s < time_s - timestamps_s[after - 1]
    return after if closer else after - 1


def _every(timestamps_s: Sequence[float], step_s: float) -> list[int]:
    first, last = timestamps_s[0], timestamps_s[-1]
    # Timestamps are float32: half a thousandth of a step includes a tick on the last frame.
    count = int((last - first) / step_s + 5e-4) + 1
    indices = (nearest_index(timestamps_s, first + tick * step_s) for tick in range(count))
    return sorted(set(indices))


def grid_indices(timestamps_s: Sequence[float], per_second: float) -> list[int]:
    """Return the frames of contact sheets: a regular grid, and the last frame."""
    return sorted({*_every(timestamps_s, 1 / per_second), len(timestamps_s) - 1})


def vqa_ticks(timestamps_s: Sequence[float], hz: float, frames: int) -> list[list[int]]:
    """Return one list per tick: the frame at every 1/`hz` s and the `frames` - 1 after it."""
    length = len(timestamps_s)
    return [
        list(range(start, min(start + frames, length))) for start in _every(timestamps_s, 1 / hz)
    ]


@dataclass(frozen=True)
class KeyframeSelection:
    """Sorted frame indices: `grid` for contact sheets and windows, `vqa` for visual questions.

    `fine` is a denser grid for the second look at segments; empty if there is none.
    """

    grid: Sequence[int]
    vqa: Sequence[int] = ()
    fine: Sequence[int] = ()

    @property
    def frame_indices(self) -> list[int]:
        """All frames that the stages need, sorted."""
        return sorted({*self.grid, *self.vqa, *self.fine})


def select_keyframes(
    timestamps_s: Sequence[float],
    per_second: float,
    vqa_hz: float | None,
    vqa_frames: int,
    fine_per_second: float | None = None,
) -> KeyframeSelection:
    """Return the frames to decode; the grids always include the first and the last frame.

    `vqa_hz` None: no VQA. `fine_per_second` None: no second look.
    """
    ticks = [] if vqa_hz is None else vqa_ticks(timestamps_s, vqa_hz, vqa_frames)
    return KeyframeSelection(
        grid=grid_indices(timestamps_s, per_second),
        vqa=sorted({index for tick in ticks for index in tick}),
        fine=grid_indices(timestamps_s, fine_per_second) if fine_per_second else (),
    )


def shortest_float32(value: float) -> float:
    """Return the shortest decimal with the same float32: 0.1 for 0.10000000149011612."""
    packed = struct.pack("f", value)
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if struct.pack("f", short) == packed:
            return short
    return value
