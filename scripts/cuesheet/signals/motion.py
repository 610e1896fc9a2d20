"""Motion of the arms: speed, standing still, and primitives of motion in words."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from cuesheet.artifacts.signals_file import ArmLayout, GripperLayout, Stroke
from cuesheet.artifacts.stage_files import MotionSpan
from cuesheet.signals.series import derivative, hysteresis, runs, smooth, step_of, without_jumps

# An arm stands still below the first share of its usual fast speed, until it exceeds the second.
STILL_BELOW, MOVES_ABOVE = 0.1, 0.2
MIN_STILL_S = 0.25
SMOOTHING_S = 0.15
# A primitive of motion that is not a stroke lasts at least this long.
MIN_MOTION_S = 0.4
# An axis joins a direction at this share of the fastest axis, and leaves it below the second.
_JOINS, _LEAVES = 0.5, 0.35

_AXIS = re.compile(r"(?:^|[_.\s])(?:pos(?:ition)?[_.\s]?)?([xyz])$", re.IGNORECASE)


def with_article(name: str) -> str:
    """Return "the left arm" for "left arm", but "arm 1" for "arm 1"."""
    return name if name[-1].isdigit() else f"the {name}"


def arm_speed(times_s: np.ndarray, values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the speed (scaled units/s) at every frame, as root mean square over dimensions."""
    if not values.shape[1] or len(values) < 2:
        return np.zeros(len(values))
    units = without_jumps(values) / np.where(scale > 0, scale, 1.0)
    window = max(1, round(SMOOTHING_S / step_of(times_s)))
    slopes = derivative(smooth(units, window), times_s)
    return smooth(np.sqrt(np.mean(slopes**2, axis=1)), window)


def still_spans(times_s: np.ndarray, speed: np.ndarray, arm: ArmLayout) -> list[tuple[int, int]]:
    """Return half-open frame ranges of at least MIN_STILL_S in which the arm stands still.

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
    """Return the dimensions named as x, y and z of a hand, if there is exactly one of each."""
    axes: dict[str, list[int]] = {"x": [], "y": [], "z": []}
    for dimension in dimensions:
        match = _AXIS.search(names[dimension])
        if match:
            axes[match[1].lower()].append(dimension)
    if any(len(found) != 1 for found in axes.values()):
        return None
    return [found[0] for found in axes.values()]


def primitives(
    times_s: np.ndarray,
    state: np.ndarray,
    speed: np.ndarray,
    arm: ArmLayout,
    strokes: Sequence[tuple[GripperLayout, Stroke]],
    still: Sequence[tuple[int, int]],
) -> list[MotionSpan]:
    """Return the motion of one arm without gaps: gripper strokes, standing still, movement.

    A stroke has precedence over the movement during it. The direction of a movement is included if
    the state has the position of the hand.
    """
    length = len(times_s)
    codes = np.zeros(length, dtype=np.int64)
    words = ["move"] if arm.name == "arm" else [f"move {with_article(arm.name)}"]
    known = {words[0]: 0}

    def code(text: str) -> int:
        if text not in known:
            known[text] = len(words)
            words.append(text)
        return known[text]

    if arm.position:
        for begin, end, direction in _directions(times_s, state[:, arm.position], arm):
            codes[begin:end] = code(f"{words[0]} {direction}")
    for begin, end in still:
        codes[begin:end] = code(
            "hold still" if arm.name == "arm" else f"hold {with_article(arm.name)} still"
        )
    for layout, stroke in strokes:
        codes[stroke.start_frame : stroke.end_frame] = code(
            f"{stroke.kind} {with_article(layout.name)}"
        )
    protected = {number for text, number in known.items() if text.startswith(("close", "open"))}
    edges = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), length]
    spans = [[begin, end, int(codes[begin])] for begin, end in pairwise(edges)]
    merged = _without_flicker(spans, protected, MIN_MOTION_S / step_of(times_s))
    return [
        MotionSpan(arm=arm.name, start_frame=b, end_frame=e, text=words[c]) for b, e, c in merged
    ]


def _without_flicker(
    spans: list[list[int]], protected: set[int], min_frames: float
) -> list[list[int]]:
    """Merge spans shorter than the minimum into the span before them; join equal neighbors."""
    merged: list[list[int]] = []
    for begin, end, code in spans:
        short = end - begin < min_frames and code not in protected
        if merged and (short or merged[-1][2] == code):
            if merged[-1][2] in protected and merged[-1][2] != code:
                merged.append([begin, end, code])  # a stroke ends when it ends
            else:
                merged[-1][1] = end
        elif (
            merged
            and merged[-1][1] - merged[-1][0] < min_frames
            and (merged[-1][2] not in protected and code not in protected)
        ):
            merged[-1][1:] = [end, code]
        else:
            merged.append([begin, end, code])
    return merged


def _directions(
    times_s: np.ndarray, position: np.ndarray, arm: ArmLayout
) -> list[tuple[int, int, str]]:
    """Return the runs of one direction in the robot's frame: x forward, y left, z up."""
    window = max(1, round(0.3 / step_of(times_s)))
    velocity = smooth(derivative(smooth(position, window), times_s), window)
    fastest = np.maximum(np.abs(velocity).max(axis=1), 1e-12)
    floor = 0.05 * (arm.position_m or 1.0)
    labels = np.zeros(len(times_s), dtype=np.int64)
    texts = ("back", "forward"), ("right", "left"), ("down", "up")
    for axis in range(3):
        share = np.abs(velocity[:, axis]) / fastest
        active = ~hysteresis(share, _LEAVES, _JOINS) & (np.abs(velocity[:, axis]) > floor)
        labels += 3**axis * np.where(active, np.where(velocity[:, axis] > 0, 2, 1), 0)
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    found = []
    for begin, end in pairwise(edges):
        signs = [int(labels[begin]) // 3**axis % 3 for axis in range(3)]
        parts = [texts[axis][signs[axis] - 1] for axis in (2, 0, 1) if signs[axis]]
        if parts:
            found.append((begin, end, " and ".join(parts[:2])))
    return found
