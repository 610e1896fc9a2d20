"""Subtasks from motion: where the scene begins to change, has changed, and the arm leaves.

Event boundaries are changes of the state of the world. A burst of lasting changes (see `motion`) is
one act of the robot; the lull of the arm before it is where it takes hold, the time after it is
where it lets go and leaves. Where no lasting change can be seen, the lulls alone must do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cuesheet.offline_vlm.labels import Role
from cuesheet.offline_vlm.motion import Motion

# A burst is what reaches this share of the strongest interval; pauses up to JOIN_S belong to it.
BURST_SHARE = 0.3
JOIN_S = 1.0
# Bursts with less than this share of all changes are no act of their own.
ACT_SHARE = 0.2
# Right at the ends the arm itself appears and disappears, at the cost of what it uncovers.
EDGE_S = 1.0
# The arm works slowly where its speed is below this share of its highest speed near by.
LULL_SHARE = 0.5


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
        marks = [start_s, end_s, *(other.time_s for other in chosen)]
        if start_s < edge.time_s < end_s and min(abs(edge.time_s - m) for m in marks) >= min_s:
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
    edges = []
    for number, (first, last) in enumerate(acts):
        floor = acts[number - 1][1] + 1 if number else 0
        ceiling = acts[number + 1][0] if number + 1 < len(acts) else len(speed)
        edges.append(_Edge(float(times[first]), 1.0, "act"))
        begin = _lull_before(speed, floor, first)
        if floor < begin < first:
            edges.append(_Edge(float(times[begin]), 0.7, "contact"))
        leave = _lull_after(speed, last + 1, ceiling)
        edges.append(_Edge(float(times[leave]), 0.8, "leave"))
        if leave > last + 1:
            edges.append(_Edge(float(times[last + 1]), 0.6, "leave"))
    return edges


def _bursts(motion: Motion, start_s: float, end_s: float) -> list[tuple[int, int]]:
    """First and last interval of each act, in order."""
    times = motion.times_s
    middle = (times[:-1] + times[1:]) / 2
    inner = (middle > start_s + EDGE_S) & (middle < end_s - EDGE_S)
    changes = np.where(inner, motion.changes, 0.0)
    if changes.sum() <= 1.0:
        return []
    found: list[list[int]] = []
    for index in np.flatnonzero(changes > BURST_SHARE * changes.max()).tolist():
        if found and times[index] - times[found[-1][1] + 1] <= JOIN_S + 1e-6:
            found[-1][1] = index
        else:
            found.append([index, index])
    total = changes.sum()
    return [(a, b) for a, b in found if changes[a : b + 1].sum() >= ACT_SHARE * total]


def _lull_before(speed: Sequence[float], floor: int, first: int) -> int:
    if first <= floor:
        return first
    limit = LULL_SHARE * max(speed[floor:first])
    while first > floor and speed[first - 1] < limit:
        first -= 1
    return first


def _lull_after(speed: Sequence[float], begin: int, ceiling: int) -> int:
    if begin >= ceiling:
        return min(begin, len(speed))
    limit = LULL_SHARE * max(speed[begin:ceiling])
    while begin < ceiling - 1 and speed[begin] < limit:
        begin += 1
    return begin
