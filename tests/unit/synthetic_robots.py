"""Synthetic teleoperation with known answers: joints in minimum-jerk moves, gradual grippers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cuesheet.signals.layout import Names, make_layout
from cuesheet.signals.record import Record


@dataclass(frozen=True)
class Robot:
    """`arms` arms of `joints` joints, each followed by its gripper (if it has one)."""

    arms: int = 1
    joints: int = 6
    fps: int = 30
    has_gripper: bool = True
    widths: tuple[float, float] | None = None  # levels at which objects stop it, if they vary
    begins_closed: bool = False
    retries: float = 0.3  # share of the objects whose first grasp fails
    closed: float = 0.0  # value of the closed gripper, 1 is open; swapped by `inverted`
    inverted: bool = False
    unit: float = 1.0  # everything is recorded in this unit
    tremor: float = 0.004
    noise: float = 0.002
    drift: float = 0.0  # over an episode, of every dimension
    binary_action: bool = False

    @property
    def width(self) -> int:
        return self.arms * (self.joints + self.has_gripper)

    @property
    def grippers(self) -> list[int]:
        if not self.has_gripper:
            return []
        return [(arm + 1) * (self.joints + 1) - 1 for arm in range(self.arms)]


@dataclass(frozen=True)
class Recorded:
    record: Record
    strokes: list[list[tuple[str, float, float]]]  # per arm: kind, start_s, end_s


def _ease(frames: int) -> np.ndarray:
    t = np.linspace(0, 1, frames)
    return 10 * t**3 - 15 * t**4 + 6 * t**5


def _script(
    robot: Robot, random: np.random.Generator, home: np.ndarray, objects: int
) -> list[tuple]:
    """(seconds, joint target or None, opening or None) with retries and pauses."""
    steps: list[tuple] = [(0.5, None, 1.0)] if robot.begins_closed else []
    for _ in range(objects):
        pick = home + random.normal(0, 0.6, len(home))
        place = home + random.normal(0, 0.6, len(home))
        steps.append((random.uniform(0.6, 1.6), pick, None))
        if random.random() < robot.retries:  # a failed grasp
            steps += [(0.6, None, 0.0), (0.6, None, 1.0)]
            steps.append((0.5, pick + random.normal(0, 0.05, len(home)), None))
        width = random.uniform(*robot.widths) if robot.widths else 0.0
        steps.append((random.uniform(0.4, 1.2), None, width))
        steps.append((random.uniform(0.6, 1.6), place, None))
        if random.random() < 0.4:
            steps.append((random.uniform(0.3, 1.0), None, None))
        steps += [(random.uniform(0.4, 0.9), None, 1.0), (random.uniform(0.5, 1.2), home, None)]
    return steps


def _arm(robot: Robot, random: np.random.Generator, home: np.ndarray, objects: int):
    rows, strokes = [], []
    joints, opening = home.copy(), 0.0 if robot.begins_closed else 1.0
    rows += [(joints.copy(), opening)] * int(random.uniform(0.2, 1.0) * robot.fps)
    for seconds, target, wanted in _script(robot, random, home, objects):
        frames = max(2, int(seconds * robot.fps))
        start, before, begin = joints.copy(), opening, len(rows)
        for share in _ease(frames):
            joints = start if target is None else start + (target - start) * share
            opening = before if wanted is None else before + (wanted - before) * share
            rows.append((joints.copy(), opening))
        if wanted is not None:
            kind = "open" if wanted > before else "close"
            strokes.append((kind, begin / robot.fps, len(rows) / robot.fps))
    return rows, strokes


def record(robot: Robot, seed: int, objects: int = 2) -> Recorded:
    """One episode; all arms work at the same time."""
    homes = np.random.default_rng(99)
    random = np.random.default_rng(seed)
    arms = [
        _arm(robot, random, homes.normal(0, 0.5, robot.joints), objects) for _ in range(robot.arms)
    ]
    length = max(len(rows) for rows, _ in arms)
    columns = []
    for rows, _ in arms:
        rows = rows + [rows[-1]] * (length - len(rows))
        joints = np.array([row[0] for row in rows])
        wobble = random.normal(0, robot.tremor, joints.shape)
        columns.append(joints + (wobble + np.roll(wobble, 1, axis=0)))
        if robot.has_gripper:
            opening = np.array([row[1] for row in rows])
            level = robot.closed + (1 - robot.closed) * opening
            columns.append((1 - level if robot.inverted else level)[:, None])
    state = np.hstack(columns)
    lag = max(1, robot.fps // 10)
    action = np.vstack([state[lag:], np.repeat(state[-1:], lag, axis=0)])
    if robot.binary_action:
        for dimension in robot.grippers:
            action[:, dimension] = np.where(action[:, dimension] > 0.5, 1.0, -1.0)
    state = state + random.normal(0, robot.noise, state.shape)
    state = state + np.linspace(0, robot.drift, length)[:, None]
    times = np.arange(length) / robot.fps
    return Recorded(
        Record(times, state * robot.unit, action * robot.unit), [strokes for _, strokes in arms]
    )


def record_all(robot: Robot, episodes: int = 8) -> list[Recorded]:
    return [record(robot, seed) for seed in range(episodes)]


def layout_of(
    records: Sequence[Record], state_names: Sequence[str] = (), gripper: str | list[str] = "auto"
):
    """The layout by these records; without names the dimensions are `state[0]` and so on."""
    width, actions = records[0].state.shape[1], records[0].action.shape[1]
    names = Names(
        ["observation.state"],
        ["action"],
        list(state_names) or [f"observation.state[{n}]" for n in range(width)],
        list(state_names)[:actions] or [f"action[{n}]" for n in range(actions)],
    )
    return make_layout("made", range(len(records)), records, names, gripper)
