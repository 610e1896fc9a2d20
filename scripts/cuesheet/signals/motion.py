"""How the arms move: speed, where they stand still, and primitives of motion in words."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from cuesheet.artifacts.signals_file import ArmLayout, GripperLayout, Motion, Stroke
from cuesheet.signals.series import derivative, hysteresis, runs, smooth, without_jumps

# An arm stands still below the first share of its usual fast speed, until it exceeds the second.
STILL_BELOW, MOVES_ABOVE = 0.1, 0.2
MIN_STILL_S = 0.25
SMOOTHING_S = 0.15

_AXIS = re.compile(r"(?:^|[_.\s])(?:pos(?:ition)?[_.\s]?)?([xyz])$", re.IGNORECASE)


def step_of(times_s: np.ndarray) -> float:
    """The median time between two frames (s); 1 for a single frame."""
    return max(float(np.median(np.diff(times_s))), 1e-6) if len(times_s) > 1 else 1.0


def arm_speed(times_s: np.ndarray, values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Speed at every frame in scaled units per second, root mean square over the dimensions."""
    if not values.shape[1] or len(values) < 2:
        return np.zeros(len(values))
    units = without_jumps(values) / np.where(scale > 0, scale, 1.0)
    window = max(1, round(SMOOTHING_S / step_of(times_s)))
    slopes = derivative(smooth(units, window), times_s)
    return smooth(np.sqrt(np.mean(slopes**2, axis=1)), window)


def still_spans(times_s: np.ndarray, speed: np.ndarray, arm: ArmLayout) -> list[tuple[int, int]]:
    """Half-open frame ranges in which the arm stands still, of at least MIN_STILL_S.

    Tremor and sensor noise raise the thresholds, at most to a third of the usual fast speed.
    """
    noise = min(arm.noise, 0.25 * arm.speed)
    low = max(STILL_BELOW * arm.speed, 1.3 * noise)
    high = max(MOVES_ABOVE * arm.speed, 1.8 * noise)
    step_s = step_of(times_s)
    found: list[list[int]] = []
    for begin, end in runs(hysteresis(speed, low, high)):
        # A twitch shorter than a tenth of a second does not end a rest.
        if found and (begin - found[-1][1]) * step_s < 0.1:
            found[-1][1] = end
        else:
            found.append([begin, end])
    return [(b, e) for b, e in found if (e - b) * step_s >= MIN_STILL_S]


def position_dimensions(dimensions: Sequence[int], names: Sequence[str]) -> list[int] | None:
    """The dimensions that are named as the x, y and z of a hand, if there is exactly one of each."""
    axes: dict[str, list[int]] = {"x": [], "y": [], "z": []}
    for dimension in dimensions:
        match = _AXIS.search(names[dimension])
        if match:
            axes[match[1].lower()].append(dimension)
    if any(len(found) != 1 for found in axes.values()):
        return None
    return [found[0] for found in axes.values()]
