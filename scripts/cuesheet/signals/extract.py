"""Measures one episode by the layout of its dataset: the content of `signals/{episode}.json`."""

from collections.abc import Sequence

import numpy as np

from cuesheet.artifacts.signals_file import (
    Arm,
    ArmLayout,
    Gripper,
    GripperLayout,
    SignalsFile,
    SignalsLayout,
    Still,
    Stroke,
)
from cuesheet.artifacts.stage_files import MotionSpan
from cuesheet.signals.gripper import find_strokes
from cuesheet.signals.motion import arm_speed, primitives, still_spans, with_article
from cuesheet.signals.record import Record
from cuesheet.signals.series import fill_gaps, step_of, without_jumps

# Maximum number of values of curves and trajectory, per second and in all.
CURVES_PER_SECOND = 10
MAX_CURVE_STEPS = 2000

# A gripper, its values on every frame, and its strokes.
_Measured = tuple[GripperLayout, np.ndarray, list[Stroke]]


def measure(layout: SignalsLayout, record: Record, dataset: str, episode_index: int) -> SignalsFile:
    """Return gripper strokes, rests, motion and curves of one episode."""
    times_s = record.timestamps_s
    state, action = fill_gaps(record.state), fill_gaps(record.action)
    steps = curve_frames(times_s)
    grippers = [
        (one, column, _strokes(one, times_s, column))
        for one in layout.grippers
        if (column := _column(one, state, action)) is not None
    ]
    arms, motion = [], []
    scale = np.array(layout.scale)
    for arm in layout.arms:
        if max(arm.dimensions) >= state.shape[1]:
            continue
        speed = arm_speed(times_s, state[:, arm.dimensions], scale[arm.dimensions])
        still = still_spans(times_s, speed, arm)
        arms.append(_arm(arm, times_s, speed[steps], still))
        mine = [(one, s) for one, _, strokes in grippers if one.arm == arm.name for s in strokes]
        motion += primitives(times_s, state, speed, arm, mine, still)
    return SignalsFile(
        dataset=dataset,
        episode_index=episode_index,
        length=record.length,
        times_s=[round(float(value), 4) for value in times_s[steps]],
        grippers=[
            Gripper(
                name=one.name, strokes=strokes, opening=_rounded(_opening(one, column)[steps], 3)
            )
            for one, column, strokes in grippers
        ],
        arms=arms,
        trajectory=_trajectory(layout, state, grippers, steps),
        motion=motion or _strokes_alone(grippers, record.length),
        notices=list(layout.notices),
    )


def curve_frames(times_s: np.ndarray) -> np.ndarray:
    """Return the frames of the curves, evenly spaced from the first to the last frame."""
    duration_s = float(times_s[-1] - times_s[0])
    count = min(len(times_s), int(duration_s * CURVES_PER_SECOND) + 2, MAX_CURVE_STEPS)
    return np.unique(np.linspace(0, len(times_s) - 1, max(count, 1)).round().astype(int))


def _column(one: GripperLayout, state: np.ndarray, action: np.ndarray) -> np.ndarray | None:
    values, dimension = (state, one.state) if one.measured_in == "state" else (action, one.action)
    return values[:, dimension] if dimension is not None and dimension < values.shape[1] else None


def _opening(one: GripperLayout, values: np.ndarray) -> np.ndarray:
    share = (values - one.low) / (one.high - one.low)
    return np.clip(share if one.open_is_high else 1 - share, 0, 1)


def _strokes(one: GripperLayout, times_s: np.ndarray, values: np.ndarray) -> list[Stroke]:
    found = find_strokes(times_s, values, low=one.low, high=one.high)
    return [
        Stroke(
            kind="open" if (direction > 0) == one.open_is_high else "close",
            start_frame=begin,
            end_frame=end,
            start_s=float(times_s[begin]),
            end_s=_time(times_s, end),
        )
        for begin, end, direction in found
    ]


def _time(times_s: np.ndarray, frame: int) -> float:
    """Return the time of a frame; for the end of the episode, one period after the last frame."""
    if frame < len(times_s):
        return float(times_s[frame])
    return round(float(times_s[-1]) + (step_of(times_s) if len(times_s) > 1 else 0.0), 6)


def _arm(
    arm: ArmLayout, times_s: np.ndarray, speed: np.ndarray, still: list[tuple[int, int]]
) -> Arm:
    spans = [
        Still(
            start_frame=begin,
            end_frame=end,
            start_s=float(times_s[begin]),
            end_s=_time(times_s, end),
        )
        for begin, end in still
    ]
    return Arm(name=arm.name, still=spans, speed=_rounded(speed / arm.speed, 3))


def _strokes_alone(grippers: Sequence[_Measured], length: int) -> list[MotionSpan]:
    """Return the motion of a robot whose arm is not recorded: only the strokes are known."""
    return [
        MotionSpan(
            arm=one.arm or one.name,
            start_frame=stroke.start_frame,
            end_frame=min(stroke.end_frame, length),
            text=f"{stroke.kind} {with_article(one.name)}",
        )
        for one, _, strokes in grippers
        for stroke in strokes
    ]


def _trajectory(
    layout: SignalsLayout, state: np.ndarray, grippers: Sequence[_Measured], steps: np.ndarray
) -> list[list[float]]:
    """Return the moving dimensions of the state, scaled, and the openings of the grippers."""
    scale, center = np.array(layout.scale), np.array(layout.center)
    width = min(state.shape[1], len(scale))
    of_grippers = {one.state for one in layout.grippers}
    free = [d for d in range(width) if scale[d] > 0 and d not in of_grippers]
    parts = [(without_jumps(state)[:, free] - center[free]) / scale[free]]
    # A gripper tells more about the phase than a joint, so the openings count twice.
    parts += [4.0 * _opening(one, column)[:, None] for one, column, _ in grippers]
    values = np.hstack(parts)[steps]
    return [] if not values.shape[1] else [_rounded(row, 4) for row in values]


def _rounded(values: np.ndarray, digits: int) -> list[float]:
    return np.round(values, digits).tolist()
