"""Finds the dimensions of grippers, and when grippers close and open.

A gripper is found by its name if the dataset names its dimensions, otherwise by how it behaves: it
rests at two levels, switches between them rarely, and moves independently of the joints, which move
together. Nothing here depends on units, on the order of dimensions or on which end means open.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cuesheet.signals.series import (
    derivative,
    noise_of,
    robust_range,
    runs,
    smooth,
    step_of,
    turning_points,
)

# A dimension with a higher score is a gripper, one between the two is reported as doubtful.
ACCEPTED = 0.72
DOUBTFUL = 0.66
# Action and state of one gripper agree at least this well (|correlation|).
MIN_AGREEMENT = 0.6
# A stroke covers at least this share of the gripper's range.
MIN_STROKE = 0.2
# Noise that a series may have when strokes are looked for (standard deviation, share of the range).
MAX_NOISE = 0.02
# More strokes per minute than this are not a gripper's.
MAX_STROKES_PER_MINUTE = 60

_GRIPPER_WORDS = re.compile(r"gripper|finger|claw|jaw", re.IGNORECASE)
_HAND_WORDS = re.compile(
    r"hand(_?(open|close|closure|closed|grip|grasp|width)\w*|[._]pos)?$", re.IGNORECASE
)
# Other quantities of a gripper: position, orientation, speed.
_NOT_OPENING = re.compile(
    r"(?:^|[_.\s])(?:x|y|z|rx|ry|rz|roll|pitch|yaw|q[wxyz]|quat\w*|vel|velocity|effort|torque"
    r"|force|current)(?:$|[_.\s\d])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Sample:
    """The state or the action of the sampled episodes: one array per episode, gaps filled."""

    times_s: Sequence[np.ndarray]
    values: Sequence[np.ndarray]  # [frames, dimensions]
    names: Sequence[str]  # of the dimensions

    @property
    def width(self) -> int:
        return self.values[0].shape[1] if self.values else 0

    @property
    def minutes(self) -> float:
        return sum(max(times[-1] - times[0], 1e-3) for times in self.times_s) / 60

    def column(self, dimension: int) -> list[np.ndarray]:
        """Return one dimension of every episode."""
        return [values[:, dimension] for values in self.values]

    def count_strokes(self, series: Sequence[np.ndarray], low: float, high: float) -> int:
        return sum(
            len(find_strokes(times, values, low=low, high=high))
            for times, values in zip(self.times_s, series, strict=True)
        )


def named_grippers(names: Sequence[str]) -> list[int]:
    """Return the dimensions whose names say that they are the opening of a gripper."""
    usable = [index for index, name in enumerate(names) if not _NOT_OPENING.search(name)]
    found = [index for index in usable if _GRIPPER_WORDS.search(names[index])]
    return found or [index for index in usable if _HAND_WORDS.search(names[index])]


def side_of(name: str) -> str | None:
    """Return "left" or "right" if a name contains it."""
    words = re.split(r"[^a-z]+", name.lower())
    for side in ("left", "right"):
        if side in words or any(word.startswith(side) for word in words):
            return side
    if "l" in words:
        return "left"
    return "right" if "r" in words else None


def scaled(sample: Sample) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return the sample with every dimension's robust range scaled to 0 to 1, and the ranges."""
    pooled = np.concatenate(sample.values)
    low, high = robust_range(pooled)
    span = high - low
    tiny = span <= 1e-6 * np.maximum(np.abs(low), np.abs(high)) + 1e-12
    divisor = np.where(tiny, 1.0, span)
    units = [
        np.where(tiny, 0.0, np.clip((values - low) / divisor, -0.5, 1.5))
        for values in sample.values
    ]
    return units, low, np.where(tiny, low, high)


def scores(sample: Sample) -> list[float | None]:
    """Return how much every dimension is like a gripper, 0 to 1; None for one that hardly moves.

    The traits are 0 to 1 too: it is at one of two levels; it is at one end of its range, or far
    from it; it moves independently of the others; it rests most of the time.
    """
    units, low, high = scaled(sample)
    smoothed = [
        smooth(values, max(1, round(0.15 / step_of(times))))
        for times, values in zip(sample.times_s, units, strict=True)
    ]
    speed = np.concatenate(
        [
            np.abs(derivative(values, times))
            for times, values in zip(sample.times_s, smoothed, strict=True)
        ]
    )
    pooled, pooled_smoothed = np.concatenate(units), np.concatenate(smoothed)
    moving = high > low
    togetherness = _togetherness(speed, moving)
    result: list[float | None] = []
    for dimension in range(sample.width):
        if not moving[dimension]:
            result.append(None)
            continue
        series, smooth_series = pooled[:, dimension], pooled_smoothed[:, dimension]
        two_levels = float(np.clip((_separation(series) - 0.75) / 0.2, 0, 1))
        rests_at_end = max(rest_at_low_end(smooth_series), rest_at_low_end(1 - smooth_series))
        levels = min(two_levels + rests_at_end, 1.0)
        independence = float(np.clip((0.65 - togetherness[dimension]) / 0.5, 0, 1))
        strokes = sample.count_strokes([values[:, dimension] for values in units], 0.0, 1.0)
        is_gripper = min(2 * levels, independence) >= 0.6 and (
            0 < strokes / sample.minutes <= MAX_STROKES_PER_MINUTE
        )
        score = 0.5 * levels + 0.3 * independence**2 + 0.2 * _sparseness(speed[:, dimension])
        result.append(score if is_gripper else 0.0)
    return result


def _separation(series: np.ndarray) -> float:
    """Return Otsu's criterion: the share of variance that the best split in two levels explains."""
    counts, edges = np.histogram(series, bins=64)
    centers = (edges[:-1] + edges[1:]) / 2
    total = counts.sum()
    weight = np.cumsum(counts) / total
    mean = np.cumsum(counts * centers) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean[-1] * weight - mean) ** 2 / (weight * (1 - weight))
    variance = float((counts * (centers - mean[-1]) ** 2).sum() / total)
    usable = (weight > 0.03) & (weight < 0.97)
    if variance <= 0 or not usable.any():
        return 0.0
    return float(np.nan_to_num(between[usable]).max() / variance)


def rest_at_low_end(series: np.ndarray) -> float:
    """Return 1 if many frames are at the low end of the range and few just above it, else less.

    A gripper returns to the same open (or closed) position, however wide the objects are that it
    closes on. The limits separate grippers from joints of the public and simulated robots at hand.
    """
    counts, edges = np.histogram(series, bins=40, range=(-0.2, 0.2))
    fullest = int(np.convolve(counts, np.ones(3), "same").argmax())
    above = series - (edges[fullest] + edges[fullest + 1]) / 2
    near = float(np.mean(np.abs(above) < 0.05))
    just_above = float(np.mean((above >= 0.05) & (above < 0.25)))
    far = float(np.mean(above >= 0.25))
    if near < 0.2:
        return 0.0
    return float(
        np.clip((near - 0.2) / 0.2, 0, 1)
        * np.clip(1 - just_above / near / 0.6, 0, 1)
        * np.clip((far - 0.2) / 0.15, 0, 1)
    )


def _togetherness(speed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Return the mean correlation of a dimension's speed with the three most similar ones."""
    count = speed.shape[1]
    result = np.zeros(count)
    active = np.flatnonzero(moving)
    if len(active) < 3 or len(speed) < 8:
        return result
    matrix = np.nan_to_num(np.corrcoef(speed[:, active].T))
    np.fill_diagonal(matrix, -np.inf)
    others = min(3, len(active) - 1)
    # The other arm's gripper may move at the same time: the most similar one does not count.
    ordered = np.sort(matrix, axis=1)[:, ::-1]
    first = 1 if len(active) > 4 else 0
    result[active] = ordered[:, first : first + others].mean(axis=1)
    return np.clip(result, 0, 1)


def _sparseness(speed: np.ndarray) -> float:
    """Return 1 if nearly all of the travel happens in a small share of the time, as in switches."""
    total = speed.sum()
    if total <= 0:
        return 0.0
    ordered = np.sort(speed)[::-1]
    needed = int(np.searchsorted(np.cumsum(ordered), 0.8 * total)) + 1
    return float(np.clip((0.5 - needed / len(speed)) / 0.4, 0, 1))


def find_strokes(
    times_s: np.ndarray, values: np.ndarray, *, low: float, high: float
) -> list[tuple[int, int, int]]:
    """Return strokes as (first frame, frame after the last, direction: 1 up, -1 down).

    A stroke leads from one turning point of the smoothed series to the next and covers at least
    MIN_STROKE of the range. It is trimmed to the frames in which the gripper moves; one that rests
    half-way for 0.5 s or more is two.
    """
    span = high - low
    if len(values) < 2 or span <= 0:
        return []
    step_s = step_of(times_s)
    units = (values - low) / span
    noise = noise_of(units)
    # As wide as the noise requires, but no wider than a quick stroke.
    frames = min(max(0.06 / step_s, (noise / MAX_NOISE) ** 2), 0.3 / step_s)
    width = max(1, round(frames))
    series = smooth(units, width)
    noise /= width**0.5
    points = turning_points(series, MIN_STROKE)
    found = []
    for first, last in pairwise(points):
        change = series[last] - series[first]
        if abs(change) >= MIN_STROKE:
            found += _trimmed(series, first, last, step_s, noise)
    return found


def _trimmed(
    series: np.ndarray, first: int, last: int, step_s: float, noise: float
) -> list[tuple[int, int, int]]:
    """Return the moving parts of a monotone leg between two turning points."""
    leg = series[first : last + 1]
    change = leg[-1] - leg[0]
    direction = 1 if change > 0 else -1
    # The running maximum: noise does not look like movement.
    rise = np.maximum.accumulate((leg - leg[0]) / change)
    # Speed over 0.1 s, against what a uniform stroke of 2 s would have: below it the gripper rests.
    width = max(1, round(0.1 / step_s))
    ahead = np.concatenate([rise[width:], np.full(min(width, len(rise)), rise[-1])])[: len(rise)]
    moves = (ahead - rise) / (width * step_s) > 0.08 / max(abs(change), 0.2)
    parts: list[list[int]] = []
    for begin, end in runs(moves):
        end = min(end + width - 1, len(rise) - 1)
        if parts and (begin - parts[-1][1]) * step_s < 0.5:
            parts[-1][1] = end
        else:
            parts.append([begin, end])
    strokes = []
    for begin, end in parts:
        amplitude = abs(leg[end] - leg[begin])
        if amplitude < 0.5 * MIN_STROKE:
            continue
        inner = np.abs(leg[begin : end + 1] - leg[begin]) / amplitude
        # From the middle outwards, to where only noise is left.
        margin = 3 * noise / amplitude
        middle = int(np.flatnonzero(inner >= 0.5)[0])
        before = np.flatnonzero(inner[:middle] <= max(0.02, margin))
        after = np.flatnonzero(inner[middle:] >= min(0.98, 1 - margin))
        start = begin + (int(before[-1]) + 1 if len(before) else 0)
        stop = begin + middle + (int(after[0]) if len(after) else 0)
        strokes.append((first + max(start - 1, begin), first + max(stop, start) + 1, direction))
    return strokes


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Pearson's correlation, 0 for a constant series."""
    if len(first) < 3 or first.std() <= 0 or second.std() <= 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def lagged_agreement(
    times_s: Sequence[np.ndarray], action: Sequence[np.ndarray], state: Sequence[np.ndarray]
) -> float:
    """Return the largest correlation (signed) of the state with the action up to 0.6 s earlier."""
    steps_s = [np.diff(t) for t in times_s if len(t) > 1] or [np.ones(1)]
    step_s = float(np.median(np.concatenate(steps_s)))
    best = 0.0
    for lag_s in (0.0, 0.1, 0.2, 0.3, 0.45, 0.6):
        lag = round(lag_s / max(step_s, 1e-6))
        pairs = [
            (a[: len(a) - lag], s[lag:])
            for a, s in zip(action, state, strict=True)
            if len(a) > lag + 2
        ]
        if not pairs:
            continue
        value = correlation(
            np.concatenate([a for a, _ in pairs]), np.concatenate([s for _, s in pairs])
        )
        if abs(value) > abs(best):
            best = value
    return best
