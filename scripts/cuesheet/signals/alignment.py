"""Aligns episodes of one task by dynamic time warping of their recorded trajectories.

A trajectory is a list of feature vectors with its times (s). The result is a map from frames of the
source to times of the target, and a confidence from 0 to 1.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A warping path leaves the diagonal by at most this share of the episode's length.
BAND = 0.25
# A time of the source is at an event that is at most this far away (s).
AT_EVENT_S = 0.3
# Maximum distance between an event of the target and the time that the path predicts for it (s).
EVENT_WITHIN_S = 1.0


@dataclass(frozen=True)
class Trajectory:
    """`values` [steps, features] at `times_s` [steps], increasing, from 0.

    `events`: moments that the same episode of another length has too, as (name, time in s).
    """

    times_s: np.ndarray
    values: np.ndarray
    events: Sequence[tuple[str, float]] = ()

    @property
    def is_usable(self) -> bool:
        return self.values.ndim == 2 and self.values.shape[1] > 0 and len(self.values) > 0


@dataclass(frozen=True)
class Alignment:
    """`path`: pairs of steps (source, target). `cost`: mean distance per step, not negative."""

    path: list[tuple[int, int]]
    cost: float


def align(source: Trajectory, target: Trajectory) -> Alignment:
    """Align the source with the target."""
    if os.environ.get("OMP_NUM_THREADS") == "0":  # of a job with 0 threads; OpenMP rejects it
        os.environ["OMP_NUM_THREADS"] = "1"
    from dtaidistance import dtw_ndim  # loaded only if corrections are propagated

    first, second = (np.ascontiguousarray(one.values, dtype=np.float64) for one in (source, target))
    if min(len(first), len(second)) == 1:
        path = (
            [(0, step) for step in range(len(second))]
            if len(first) == 1
            else [(step, 0) for step in range(len(first))]
        )
    else:
        longest = max(len(first), len(second))
        window = abs(len(first) - len(second)) + max(2, round(BAND * longest))
        path = [(int(a), int(b)) for a, b in dtw_ndim.warping_path(first, second, window=window)]
    return Alignment(path, _mean_distance(first, second, path))


def stretched_cost(source: Trajectory, target: Trajectory) -> float:
    """Return the cost of plain time stretching."""
    steps = np.linspace(0, len(source.values) - 1, len(target.values)).round().astype(int)
    path = list(zip(steps.tolist(), range(len(target.values)), strict=True))
    return _mean_distance(source.values, target.values, path)


def _mean_distance(first: np.ndarray, second: np.ndarray, path: Sequence[tuple[int, int]]) -> float:
    pairs = np.array(path)
    gaps = first[pairs[:, 0]] - second[pairs[:, 1]]
    return float(np.sqrt((gaps**2).mean(axis=1)).mean())


def shuffled(target: Trajectory, pieces: int = 4) -> Trajectory:
    """Return the episode with its pieces in a different, fixed order."""
    parts = np.array_split(target.values, min(pieces, len(target.values)))
    order = [*range(1, len(parts), 2), *range(0, len(parts), 2)]
    return Trajectory(target.times_s, np.concatenate([parts[number] for number in order]))


def confidence(cost: float, stretched: float, unrelated: Sequence[float]) -> float:
    """Return how much better an alignment is than alignments that must be wrong, 0 to 1.

    Args:
        cost: of the alignment, in scaled units per step.
        stretched: of plain time stretching; if that is good as well, the episodes are alike.
        unrelated: costs against episodes of other tasks, or against shuffled pieces of this one.
    """
    reference = max(min(unrelated), 1e-9)
    return float(np.clip(1 - (0.75 * cost + 0.25 * min(stretched, reference)) / reference, 0, 1))


def warp_times(
    alignment: Alignment, source: Trajectory, target: Trajectory, times_s: Sequence[float]
) -> list[float]:
    """Convert times of the source to times of the target along the path, in order."""
    pairs = np.array(alignment.path)
    steps = np.arange(len(source.times_s))
    # A source step may belong to several target steps; their mean is used.
    sums = np.bincount(pairs[:, 0], weights=target.times_s[pairs[:, 1]], minlength=len(steps))
    counts = np.maximum(np.bincount(pairs[:, 0], minlength=len(steps)), 1)
    mapped = np.maximum.accumulate(sums / counts)
    warped = np.interp(times_s, source.times_s, mapped).tolist()
    expected = np.interp([at_s for _, at_s in source.events], source.times_s, mapped)
    return _move_to_events(times_s, warped, source.events, expected.tolist(), target.events)


def _move_to_events(
    times_s: Sequence[float],
    warped: Sequence[float],
    source: Sequence[tuple[str, float]],
    expected: Sequence[float],
    target: Sequence[tuple[str, float]],
) -> list[float]:
    """Move times that are at an event of the source to the same event of the target.

    The path is only as exact as the band and the noise allow; events are exact. `warped` and
    `expected` are `times_s` and the events of the source in the target, by the path.
    """
    moved = list(warped)
    for number, at_s in enumerate(times_s):
        near = [
            (abs(event_s - at_s), name, event_s, path_s)
            for (name, event_s), path_s in zip(source, expected, strict=True)
            if abs(event_s - at_s) <= AT_EVENT_S
        ]
        if not near:
            continue
        _, name, event_s, path_s = min(near)
        same = [other_s for other, other_s in target if other == name]
        nearest = min(same, key=lambda other_s: abs(other_s - path_s), default=None)
        if nearest is None or abs(nearest - path_s) > EVENT_WITHIN_S:
            continue
        candidate = nearest + (at_s - event_s)
        after = warped[number + 1] if number + 1 < len(warped) else np.inf
        if (number == 0 or candidate > moved[number - 1]) and candidate < after:
            moved[number] = candidate
    return moved
