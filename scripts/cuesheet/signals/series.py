"""Operations on one recorded series: gaps, robust ranges, smoothing, speed, runs."""

from collections.abc import Sequence

import numpy as np


def fill_gaps(values: np.ndarray) -> np.ndarray:
    """Interpolate NaN and infinity in `values` [frames, dimensions]; 0 if no value is left.

    Missing values at the ends become the nearest value.
    """
    finite = np.isfinite(values)
    if finite.all():
        return values
    filled = values.copy()
    frames = np.arange(len(values))
    for column in np.flatnonzero(~finite.all(axis=0)):
        known = finite[:, column]
        filled[:, column] = (
            np.interp(frames, frames[known], values[known, column]) if known.any() else 0.0
        )
    return filled


def step_of(times_s: np.ndarray) -> float:
    """Return the median time between two frames (s); 1 for a single frame."""
    return max(float(np.median(np.diff(times_s))), 1e-6) if len(times_s) > 1 else 1.0


def robust_range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 1st and 99th percentile of every dimension, which outliers do not change."""
    if not len(values):
        return np.zeros(values.shape[1]), np.zeros(values.shape[1])
    low, high = np.percentile(values, (1, 99), axis=0)
    # A switch that is rare can hide beyond the percentiles.
    narrow = high - low < 0.2 * (values.max(axis=0) - values.min(axis=0))
    share = np.mean(np.abs(values - (low + high) / 2) > (high - low), axis=0)
    rare = narrow & (share > 0.002)
    return np.where(rare, values.min(axis=0), low), np.where(rare, values.max(axis=0), high)


def smooth(values: np.ndarray, frames: int) -> np.ndarray:
    """Return the centered moving average over `frames` (made odd); the ends use fewer frames."""
    half = max(0, int(frames) // 2)
    if half == 0 or len(values) < 2:
        return values
    sums = np.cumsum(np.concatenate([np.zeros((1, *values.shape[1:])), values]), axis=0)
    index = np.arange(len(values))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    counts = (last - first).reshape(-1, *[1] * (values.ndim - 1))
    return (sums[last] - sums[first]) / counts


def noise_of(values: np.ndarray) -> float:
    """Return the standard deviation of the white noise of a series, by its second differences."""
    if len(values) < 8:
        return 0.0
    return float(1.4826 * np.median(np.abs(np.diff(values, 2))) / 6**0.5)


def derivative(values: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Return the change per second by central differences; 0 for a single frame."""
    if len(values) < 2:
        return np.zeros_like(values)
    steps = np.maximum(np.diff(times_s), 1e-6)
    slopes = np.diff(values, axis=0) / steps.reshape(-1, *[1] * (values.ndim - 1))
    return np.concatenate([slopes[:1], (slopes[1:] + slopes[:-1]) / 2, slopes[-1:]])


def without_jumps(values: np.ndarray) -> np.ndarray:
    """Unwrap angles: remove steps of more than half of the range in one frame."""
    if len(values) < 3:
        return values
    span = values.max(axis=0) - values.min(axis=0)
    steps = np.diff(values, axis=0)
    steps[np.abs(steps) > 0.5 * np.maximum(span, 1e-12)] = 0.0
    return np.concatenate([values[:1], values[0] + np.cumsum(steps, axis=0)])


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return the half-open ranges in which `mask` is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def hysteresis(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return a mask that is true from a fall below `low` to a rise above `high`."""
    state = np.zeros(len(values), dtype=np.int8)
    state[values < low] = 1
    state[values > high] = -1
    known = np.flatnonzero(state)
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    last = np.maximum.accumulate(np.where(state != 0, np.arange(len(values)), -1))
    return np.where(last >= 0, state[np.maximum(last, 0)], state[known[0]]) == 1


def turning_points(values: np.ndarray, amplitude: float) -> list[int]:
    """Return the first and last index, and alternating extremes that differ by `amplitude`.

    Smaller wiggles (noise, tremor) do not count.
    """
    points = [0]
    high = low = 0
    direction = 0
    series: Sequence[float] = values.tolist()
    for index, value in enumerate(series):
        if value > series[high]:
            high = index
        if value < series[low]:
            low = index
        if direction >= 0 and series[high] - value >= amplitude:
            if high != points[-1]:
                points.append(high)
            direction, low = -1, index
            high = index
        elif direction <= 0 and value - series[low] >= amplitude:
            if low != points[-1]:
                points.append(low)
            direction, high = 1, index
            low = index
    last = high if direction > 0 else low if direction < 0 else len(series) - 1
    for index in (last, len(series) - 1):
        if index > points[-1]:
            points.append(index)
    return points
