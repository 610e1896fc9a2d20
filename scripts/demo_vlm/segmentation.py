"""Subtasks from motion: where the scene begins to change, has changed, and the arm leaves.

Event boundaries are changes of the state of the world. A burst of lasting changes (see `motion`) is
one act of the robot; the lull of the arm before it is where it takes hold, the time after it is
where it lets go and leaves. Where no lasting change can be seen, the lulls alone must do.
"""

from dataclasses import dataclass

import numpy as np

from demo_vlm.labels import Role
from demo_vlm.motion import Motion

# A burst is what reaches this share of the strongest interval; bursts with a smaller share of all
# changes, and changes of fewer pixels than MIN_CHANGE altogether, are noise.
BURST_SHARE, ACT_SHARE, MIN_CHANGE = 0.25, 0.2, 6.0
# Acts this close to each other (s) are one.
JOIN_S = 1.0
# Right at the ends of the window the arm itself appears and disappears (s).
EDGE_S = 1.0
# The arm works slowly where its speed is below this share of its highest speed near by.
LULL_SHARE = 0.5
# It leaves where its speed has risen by this factor from the lowest since the act.
LEAVE_RISE = 1.5


@dataclass(frozen=True)
class Segment:
    """[start_s, end_s) and what the motion says about it."""

    start_s: float
    end_s: float
    role: Role


@dataclass(frozen=True)
class _Edge:
    time_s: float
    weight: float
    role: Role
    act: int


def segment(
    motion: Motion, start_s: float, end_s: float, *, max_segments: int, min_s: float
) -> list[Segment]:
    """Divide [start_s, end_s) into at most `max_segments` segments of at least `min_s` seconds."""
    if end_s <= start_s:
        end_s = start_s + max(min_s, 0.1)
    edges: list[_Edge] = []
    if len(motion.speed) >= 2 and motion.moves:
        edges = _edges(motion, start_s, end_s)
    chosen: list[_Edge] = []
    for edge in sorted(edges, key=lambda edge: (-edge.weight, edge.time_s)):
        if len(chosen) + 1 >= max_segments:
            break
        if any((other.act, other.role) == (edge.act, edge.role) for other in chosen):
            continue
        marks = [start_s, end_s, *(other.time_s for other in chosen)]
        if (
            start_s < edge.time_s < end_s
            and min(abs(edge.time_s - m) for m in marks) >= min_s - 1e-9
        ):
            chosen.append(edge)
    chosen.sort(key=lambda edge: edge.time_s)
    if not chosen:
        return [Segment(start_s, end_s, "whole")]
    starts = [start_s, *(edge.time_s for edge in chosen)]
    roles: list[Role] = ["approach", *(edge.role for edge in chosen)]
    return [
        Segment(start, end, role)
        for start, end, role in zip(starts, [*starts[1:], end_s], roles, strict=True)
    ]


def _edges(motion: Motion, start_s: float, end_s: float) -> list[_Edge]:
    times, speed = motion.times_s, motion.speed
    acts = _bursts(motion, start_s, end_s)
    if not acts:
        return _longest_lull(motion, start_s, end_s)
    edges = []
    for number, (first, last) in enumerate(acts):
        floor = acts[number - 1][1] + 1 if number else 0
        ceiling = acts[number + 1][0] if number + 1 < len(acts) else len(speed)
        edges.append(_Edge(float(times[first]), 1.0, "act", number))
        edges.append(_Edge(float(times[last + 1]), 0.9, "leave", number))
        leave = _rise_after(speed, max(last, first + 1), ceiling)
        if leave is not None:
            edges.append(_Edge(float(times[leave]), 0.8, "leave", number))
        begin = _lull_before(speed, floor, first)
        if floor < begin < first:
            edges.append(_Edge(float(times[begin]), 0.7, "contact", number))
    return edges


def _bursts(motion: Motion, start_s: float, end_s: float) -> list[tuple[int, int]]:
    """First and last interval of each act, in order."""
    times = motion.times_s
    middle = (times[:-1] + times[1:]) / 2
    inner = (middle > start_s + EDGE_S) & (middle < end_s - EDGE_S)
    changes = np.where(inner, motion.changes, 0.0)
    if changes.sum() < MIN_CHANGE:
        return []
    found: list[list[int]] = []
    for index in np.flatnonzero(changes > BURST_SHARE * changes.max()).tolist():
        if found and times[index] - times[found[-1][1] + 1] <= JOIN_S + 1e-6:
            found[-1][1] = index
        else:
            found.append([index, index])
    total = changes.sum()
    kept = [(a, b) for a, b in found if changes[a : b + 1].sum() >= ACT_SHARE * total]
    return _carried_on(kept, motion.speed)


def _carried_on(bursts: list[tuple[int, int]], speed: np.ndarray) -> list[tuple[int, int]]:
    """Join bursts between which the arm never pauses: what left one place arrives at another."""
    acts: list[tuple[int, int]] = []
    for first, last in bursts:
        if acts and speed[acts[-1][1] + 1 : first].min() >= LULL_SHARE * _high(speed):
            acts[-1] = acts[-1][0], last
        else:
            acts.append((first, last))
    return acts


def _lull_before(speed: np.ndarray, floor: int, first: int) -> int:
    """The interval from which on the arm is slow until `first`; `first` where it is not."""
    if first <= floor:
        return first
    limit = LULL_SHARE * speed[floor:first].max()
    while first > floor and speed[first - 1] < limit:
        first -= 1
    return first


def _rise_after(speed: np.ndarray, begin: int, ceiling: int) -> int | None:
    """The interval in which the arm, slow after an act, becomes fast again."""
    lowest = np.inf
    for index in range(begin, ceiling):
        if lowest < 0.6 * _high(speed) and speed[index] > LEAVE_RISE * lowest:
            return index
        lowest = min(lowest, speed[index])
    return None


def _longest_lull(motion: Motion, start_s: float, end_s: float) -> list[_Edge]:
    """The edges of the longest slow stretch inside the window: there the arm works on something."""
    times, speed = motion.times_s, motion.speed
    slow = speed < LULL_SHARE * _high(speed)
    best = (0, 0)
    begin = None
    for index, is_slow in enumerate([*slow.tolist(), False]):
        if is_slow and begin is None:
            begin = index
        elif not is_slow and begin is not None:
            inside = times[begin] >= start_s + EDGE_S and times[index] <= end_s - EDGE_S
            if inside and times[index] - times[begin] > times[best[1]] - times[best[0]]:
                best = begin, index
            begin = None
    if best == (0, 0):
        return []
    return [
        _Edge(float(times[best[0]]), 0.8, "act", 0),
        _Edge(float(times[best[1]]), 0.7, "leave", 0),
    ]


def _high(speed: np.ndarray) -> float:
    """The speed of the fastest fifth of the intervals."""
    return float(np.sort(speed)[-max(1, len(speed) // 5) :].mean())
