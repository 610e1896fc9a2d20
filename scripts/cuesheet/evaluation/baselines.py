"""Baseline segmentations that do not use the task, for comparison with those of a model."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from cuesheet.errors import CuesheetError
from cuesheet.evaluation.segments import Segment

BASELINES = ("uniform", "motion")
_SMOOTHING_S = 0.5  # width of the moving average over the motion
_MIN_DISTANCE_S = 0.5  # between boundaries of the motion split
_SIZE = (64, 64)


def uniform_split(predicted: Sequence[Segment]) -> list[Segment]:
    """Return as many segments as predicted, all equally long."""
    return _split(predicted, np.linspace(*_range(predicted), len(predicted) + 1)[1:-1].tolist())


def motion_split(predicted: Sequence[Segment], energy: np.ndarray, fps: float) -> list[Segment]:
    """Return at most as many segments as predicted, cut where the image moves least.

    Args:
        predicted: segments of the episode; only their number and their time range are used.
        energy: motion between frame t and t + 1, shape (frames - 1,).
        fps: frames per second.
    """
    start_s, _ = _range(predicted)
    width = max(1, round(_SMOOTHING_S * fps))
    if energy.size < 3 or len(predicted) < 2:
        return _split(predicted, [])
    padded = np.pad(energy, (width // 2, width - 1 - width // 2), mode="edge")
    smooth = np.convolve(padded, np.full(width, 1 / width), mode="valid")
    dips = sorted(_dips(smooth), key=lambda dip: -dip[1])
    chosen: list[float] = []
    for index, _ in dips:
        time_s = start_s + (index + 1) / fps  # the second of the two frames that differ least
        if all(abs(time_s - other) >= _MIN_DISTANCE_S for other in chosen):
            chosen.append(time_s)
        if len(chosen) == len(predicted) - 1:
            break
    return _split(predicted, sorted(chosen))


def clip_motion(clip: Path) -> tuple[np.ndarray, float]:
    """Return the mean absolute difference of consecutive frames (64 x 64, gray) and the fps.

    Raises:
        CuesheetError: the clip cannot be read.
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
            f"{clip} cannot be read ({error}), and the motion split needs it. Run the workflow "
            "again to re-create it, or remove `motion` from the baselines."
        ) from None
    if not fps:
        raise CuesheetError(f"{clip} has no frame rate. Delete it and run the workflow again.")
    return np.asarray(differences, np.float32), fps


def _dips(values: np.ndarray) -> list[tuple[int, float]]:
    """Return (index, depth) of local minima; depth is the rise to the lower of both next peaks."""
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
