"""Segmentations that know nothing of the task, to see what a model's are worth."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from cuesheet.errors import CuesheetError
from cuesheet.evaluation.segments import Segment

BASELINES = ("uniform", "motion")
_SMOOTHED_S = 0.5  # width of the moving average over the motion
_APART_S = 0.5  # boundaries of the motion split are at least this far apart
_SIZE = (64, 64)


def uniform_split(predicted: Sequence[Segment]) -> list[Segment]:
    """As many segments as predicted, all equally long."""
    return _split(predicted, np.linspace(*_range(predicted), len(predicted) + 1)[1:-1].tolist())


def motion_split(predicted: Sequence[Segment], energy: np.ndarray, fps: float) -> list[Segment]:
    """At most as many segments as predicted, cut where the picture moves least.

    Args:
        predicted: segments of the episode; only their count and their range count.
        energy: motion between frame t and t + 1, shape (frames - 1,).
        fps: frames per second.
    """
    start_s, _ = _range(predicted)
    width = max(1, round(_SMOOTHED_S * fps))
    if energy.size < 3 or len(predicted) < 2:
        return _split(predicted, [])
    padded = np.pad(energy, (width // 2, width - 1 - width // 2), mode="edge")
    smooth = np.convolve(padded, np.full(width, 1 / width), mode="valid")
    dips = sorted(_dips(smooth), key=lambda dip: -dip[1])
    chosen: list[float] = []
    for index, _ in dips:
        time_s = start_s + (index + 1) / fps  # the second of the two frames that differ least
        if all(abs(time_s - other) >= _APART_S for other in chosen):
            chosen.append(time_s)
        if len(chosen) == len(predicted) - 1:
            break
    return _split(predicted, sorted(chosen))


def clip_motion(clip: Path) -> tuple[np.ndarray, float]:
    """Mean absolute difference of consecutive gray frames (64 x 64), and the clip's fps.

    Raises CuesheetError if the clip cannot be read.
    """
    differences, before = [], None
    try:
        with av.open(str(clip)) as container:
            stream = container.streams.video[0]
            fps = float(stream.average_rate or 0)
            for frame in container.decode(stream):
                gray = frame.reformat(*_SIZE, "gray").to_ndarray().astype(np.float32)
                if before is not None:
                    differences.append(float(np.abs(gray - before).mean()))
                before = gray
    except (OSError, av.FFmpegError) as error:
        raise CuesheetError(
            f"{clip} cannot be read ({error}); the motion split needs the clips of the run. Run "
            "the workflow again to make it, or leave the baseline out."
        ) from None
    if not fps:
        raise CuesheetError(f"{clip} names no frame rate; delete it and run the workflow again.")
    return np.asarray(differences, np.float32), fps


def _dips(values: np.ndarray) -> list[tuple[int, float]]:
    """(index, depth) of local minima; depth: the climb to the lower of the peaks around it."""
    found = []
    for index in range(1, len(values) - 1):
        if not (values[index] <= values[index - 1] and values[index] < values[index + 1]):
            continue
        walls = []
        for side in (values[:index][::-1], values[index + 1 :]):
            lower = np.flatnonzero(side < values[index])
            walls.append(side[: lower[0]].max() if lower.size else side.max())
        found.append((index, float(min(walls) - values[index])))
    return found


def _range(predicted: Sequence[Segment]) -> tuple[float, float]:
    return min(p.start_s for p in predicted), max(p.end_s for p in predicted)


def _split(predicted: Sequence[Segment], cuts: Sequence[float]) -> list[Segment]:
    start_s, end_s = _range(predicted)
    edges = [start_s, *(cut for cut in cuts if start_s < cut < end_s), end_s]
    return [Segment(a, b) for a, b in pairwise(edges)]
