"""Recorded signals: grippers are found, and strokes and rests are at the simulated times."""

import time

import numpy as np
import pytest
from synthetic_robots import Robot, layout_of, record, record_all

from cuesheet.errors import CuesheetError
from cuesheet.signals.extract import MAX_CURVE_STEPS, measure
from cuesheet.signals.gripper import find_strokes, named_grippers
from cuesheet.signals.record import Record

ROBOTS = {
    "one arm": Robot(),
    "two arms with 14 dimensions": Robot(arms=2, fps=50),
    "10 Hz": Robot(fps=10),
    "100 Hz": Robot(arms=2, fps=100),
    "inverted": Robot(inverted=True),
    "never closes fully": Robot(closed=0.4),
    "degrees": Robot(unit=57.3),
    "meters": Robot(unit=0.001),
    "binary command": Robot(binary_action=True),
    "noise": Robot(noise=0.02),
    "tremor": Robot(arms=2, tremor=0.02),
    "drift": Robot(drift=0.1),
    "few joints": Robot(joints=4),
    "objects of any width": Robot(arms=2, fps=50, widths=(0.25, 0.6), retries=0.7),
    "begins closed": Robot(arms=2, widths=(0.25, 0.6), begins_closed=True),
}


@pytest.mark.parametrize("name", ROBOTS)
def test_grippers_without_names_are_found_and_nothing_else_is(name: str) -> None:
    robot = ROBOTS[name]
    layout = layout_of([one.record for one in record_all(robot)])
    assert [one.state for one in layout.grippers] == robot.grippers
    assert [one.action for one in layout.grippers] == robot.grippers
    assert all(one.agreement > 0.8 for one in layout.grippers)
    assert len(layout.arms) == robot.arms


def test_a_joint_that_rests_at_many_places_is_not_a_gripper() -> None:
    records = []
    for seed in range(6):
        random = np.random.default_rng(seed)
        frames, joints = np.arange(600), np.zeros((600, 6))
        start, end = 20, 0
        while end < 560:  # one joint at a time, as with a keyboard
            end = start + int(random.integers(10, 40))
            joint, target = random.integers(6), random.uniform(-1, 1)
            share = np.clip((frames - start) / (end - start), 0, 1)
            joints[:, joint] += (target - joints[start, joint]) * share
            start = end + int(random.integers(15))
        records.append(Record(frames / 30, joints, np.roll(joints, -3, axis=0)))
    assert layout_of(records).grippers == []


@pytest.mark.parametrize("seed", range(4))
def test_a_robot_without_a_gripper_has_none(seed: int) -> None:
    robot = Robot(joints=7, has_gripper=False)
    records = [record(robot, 100 * seed + number).record for number in range(8)]
    assert layout_of(records).grippers == []


def test_which_end_is_open_is_found_without_names() -> None:
    for inverted in (False, True):
        for begins_closed in (False, True):
            robot = Robot(inverted=inverted, begins_closed=begins_closed, widths=(0.25, 0.6))
            layout = layout_of([one.record for one in record_all(robot)])
            assert layout.grippers[0].open_is_high is not inverted


@pytest.mark.parametrize(
    "name",
    [
        "one arm",
        "two arms with 14 dimensions",
        "inverted",
        "10 Hz",
        "noise",
        "objects of any width",
    ],
)
def test_every_stroke_is_found_within_a_fifth_of_a_second(name: str) -> None:
    robot = ROBOTS[name]
    recorded = record_all(robot)
    layout = layout_of([one.record for one in recorded])
    for number, one in enumerate(recorded):
        file = measure(layout, one.record, "made", number)
        for found, known in zip(file.grippers, one.strokes, strict=True):
            assert [stroke.kind for stroke in found.strokes] == [kind for kind, _, _ in known]
            for stroke, (_, start_s, end_s) in zip(found.strokes, known, strict=True):
                assert stroke.start_s == pytest.approx(start_s, abs=0.2 + 1 / robot.fps)
                assert stroke.end_s == pytest.approx(end_s, abs=0.2 + 1 / robot.fps)


def test_a_gripper_is_found_by_its_name_and_a_hand_position_is_not_one() -> None:
    names = ["hand_x", "hand_y", "hand_z", "gripper_open", "gripper_velocity"]
    assert named_grippers(names) == [3]
    assert named_grippers(["left_gripper", "j1", "right_finger_joint"]) == [0, 2]
    assert named_grippers(["joint_1", "hand"]) == [1]
    assert named_grippers(["joint_1", "handle"]) == []


def test_a_named_gripper_that_never_moves_is_not_used_and_is_noticed() -> None:
    values = record(Robot(has_gripper=False), 1).record
    state = np.hstack([values.state, np.full((values.length, 1), 0.7)])
    records = [Record(values.timestamps_s, state, state)]
    layout = layout_of(records, [f"joint_{n}" for n in range(6)] + ["gripper"])
    assert layout.grippers == []
    assert "gripper" in layout.notices[0]


def test_a_configured_gripper_is_used_and_a_wrong_name_is_an_error() -> None:
    records = [one.record for one in record_all(Robot())]
    assert layout_of(records, gripper=["observation.state[6]"]).grippers[0].state == 6
    with pytest.raises(CuesheetError, match=r"no dimension 'observation.state\[9\]'"):
        layout_of(records, gripper=["observation.state[9]"])
    assert layout_of(records, gripper="none").grippers == []


def test_missing_values_change_no_stroke() -> None:
    recorded = record_all(Robot())
    layout = layout_of([one.record for one in recorded])
    whole = recorded[0].record
    state = whole.state.copy()
    state[np.random.default_rng(0).random(state.shape) < 0.1] = np.nan
    holes = measure(layout, Record(whole.timestamps_s, state, whole.action), "made", 0)
    full = measure(layout, whole, "made", 0)
    assert [s.kind for s in holes.grippers[0].strokes] == [s.kind for s in full.grippers[0].strokes]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_shortest_episodes_have_no_strokes(length: int) -> None:
    recorded = record_all(Robot(arms=2))
    layout = layout_of([one.record for one in recorded])
    first = recorded[0].record
    short = Record(first.timestamps_s[:length], first.state[:length], first.action[:length])
    file = measure(layout, short, "made", 0)
    assert [one.strokes for one in file.grippers] == [[], []]
    assert layout_of([short]).grippers == []


def test_a_dataset_without_state_and_action_has_an_empty_file() -> None:
    empty = Record(np.arange(10) / 10, np.zeros((10, 0)), np.zeros((10, 0)))
    layout = layout_of([empty])
    file = measure(layout, empty, "made", 0)
    assert (file.grippers, file.arms, file.trajectory, file.motion) == ([], [], [], [])


def test_an_hour_is_measured_in_seconds_and_its_curves_are_bounded() -> None:
    recorded = record_all(Robot(arms=2, fps=30))
    layout = layout_of([one.record for one in recorded])
    state = np.tile(recorded[0].record.state, (400, 1))[:100_000]
    hour = Record(np.arange(len(state)) / 30, state, state)
    begun = time.process_time()
    file = measure(layout, hour, "made", 0)
    assert time.process_time() - begun < 0.1 * len(state) / 30 / 30
    assert len(file.times_s) == len(file.trajectory) == MAX_CURVE_STEPS


def test_a_stroke_that_rests_half_way_is_two_and_noise_is_none() -> None:
    times = np.arange(400) / 50
    values = np.interp(times, [0, 2, 2.5, 4.5, 5], [1, 1, 0.5, 0.5, 0])
    noise = np.random.default_rng(0).normal(0, 0.02, len(times))
    assert [s[2] for s in find_strokes(times, values + noise, low=0, high=1)] == [-1, -1]
    assert find_strokes(times, 0.5 + noise, low=0, high=1) == []


def test_motion_of_an_arm_has_no_gaps_and_names_each_stroke() -> None:
    recorded = record_all(Robot(arms=2, fps=50))
    layout = layout_of([one.record for one in recorded])
    file = measure(layout, recorded[0].record, "made", 0)
    for arm, gripper in zip(file.arms, file.grippers, strict=True):
        spans = [one for one in file.motion if one.arm == arm.name]
        assert [one.start_frame for one in spans[1:]] == [one.end_frame for one in spans[:-1]]
        assert (spans[0].start_frame, spans[-1].end_frame) == (0, file.length)
        said = [one.text for one in spans if one.text.startswith(("close", "open"))]
        assert said == [f"{stroke.kind} {gripper.name}" for stroke in gripper.strokes]
