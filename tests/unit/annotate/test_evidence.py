"""Recorded events as boundaries: snapping, added strokes, and when they are not used."""

from itertools import pairwise

import pytest

from cuesheet.annotate.evidence import (
    events_of,
    preparing_strokes,
    refine,
    stroke_label,
    table,
)
from cuesheet.annotate.segmentation import split_windows
from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.signals_file import Arm, Gripper, SignalsFile, Still, Stroke
from cuesheet.artifacts.subtasks import Subtask, Window, join_windows
from cuesheet.config.signals import SignalsConfig
from cuesheet.config.stages import PlanConfig

EPISODE = Episode("made", 0, "", 10.0, [n / 10 for n in range(100)], {})


def stroke(kind: str, start: int, end: int) -> Stroke:
    return Stroke(kind=kind, start_frame=start, end_frame=end, start_s=start / 10, end_s=end / 10)


SIGNALS = SignalsFile(
    dataset="made",
    episode_index=0,
    length=100,
    times_s=[],
    grippers=[
        Gripper(
            name="gripper", strokes=[stroke("close", 30, 38), stroke("open", 70, 76)], opening=[]
        )
    ],
    arms=[],
    trajectory=[],
    motion=[],
    notices=[],
)


def refined(starts: list[int], granularity: str) -> tuple[list[int], float | None, bool]:
    edges = [0, *starts, 100]
    segmentation = [Subtask(a, b, f"step {n}") for n, (a, b) in enumerate(pairwise(edges))]
    found = refine(
        segmentation, SIGNALS, EPISODE, PlanConfig(granularity=granularity), SignalsConfig()
    )
    return [part.start_frame for part in found.subtasks], found.share, found.is_used


def test_events_have_frame_precision_and_are_a_table_of_a_window() -> None:
    assert [one.frame for one in events_of(SIGNALS)] == [30, 38, 70, 76]
    assert table(SIGNALS, EPISODE, 0, 50) == (
        "- 3.00 s: gripper begins to close\n- 3.80 s: gripper is closed"
    )
    assert table(None, EPISODE, 0, 50) == ""


def test_phases_move_to_events_and_strokes_without_a_boundary_are_added() -> None:
    assert refined([27], "phases") == ([0, 30, 38, 70, 76], 1.0, True)


def test_events_are_the_ends_of_strokes_and_boundaries_without_a_stroke() -> None:
    assert refined([33, 55], "events") == ([0, 38, 55, 76], 1 / 2, True)


def test_an_episode_whose_boundaries_have_no_events_is_left_alone() -> None:
    assert refined([12, 50, 90], "events") == ([0, 12, 50, 90], 0.0, False)


def test_a_new_phase_is_named_after_its_stroke_and_the_object_around_it() -> None:
    close, opened = stroke("close", 1, 5), stroke("open", 1, 5)
    assert stroke_label(close, "gripper", "pick up the red cup from the table") == (
        "close the gripper on the red cup"
    )
    assert stroke_label(opened, "gripper 2", "place the cup") == "open gripper 2"


def test_windows_share_one_sheet_and_are_joined_without_a_boundary_at_their_edge() -> None:
    windows = split_windows(range(100), 100, 60, 20)
    assert windows == [Window(0, 60), Window(40, 100)]
    segmentations = [
        [Subtask(0, 30, "reach"), Subtask(30, 60, "carry")],
        [Subtask(40, 80, "carry it"), Subtask(80, 100, "place")],
    ]
    joined = join_windows(segmentations, EPISODE, min_subtask_s=0)
    assert [(part.start_frame, part.end_frame) for part in joined] == [(0, 30), (30, 80), (80, 100)]


def test_windows_are_joined_at_a_boundary_on_which_both_agree() -> None:
    segmentations = [
        [Subtask(0, 50, "reach"), Subtask(50, 60, "carry")],
        [Subtask(40, 52, "reach"), Subtask(52, 100, "place")],
    ]
    joined = join_windows(segmentations, EPISODE, min_subtask_s=0)
    assert [(part.start_frame, part.label) for part in joined] == [(0, "reach"), (50, "place")]


def recorded(strokes: list[Stroke], rest: int = 0) -> SignalsFile:
    """One gripper, and an arm that stands still until frame `rest`."""
    still = [Still(start_frame=0, end_frame=rest, start_s=0.0, end_s=rest / 10)] if rest else []
    return SIGNALS.model_copy(
        update={
            "grippers": [Gripper(name="gripper", strokes=strokes, opening=[])],
            "arms": [Arm(name="arm", still=still, speed=[])],
        }
    )


def boundaries(
    segmentation: list[tuple[int, str]], signals: SignalsFile, granularity: str
) -> list[int]:
    edges = [*(start for start, _ in segmentation), 100]
    subtasks = [
        Subtask(start, end, label)
        for (start, end), (_, label) in zip(pairwise(edges), segmentation, strict=True)
    ]
    settings = PlanConfig(granularity=granularity)
    found = refine(subtasks, signals, EPISODE, settings, SignalsConfig())
    return [part.start_frame for part in found.subtasks]


def test_a_stroke_that_begins_with_the_first_movement_prepares_the_gripper() -> None:
    first, grasp = stroke("close", 6, 14), stroke("close", 40, 48)
    signals = recorded([first, grasp], rest=5)
    assert preparing_strokes(signals) == [first]
    assert preparing_strokes(recorded([first, grasp])) == []  # the arm moves from the start
    assert preparing_strokes(SIGNALS) == []  # nothing is known about the arm
    segmentation = [(0, "reach"), (46, "place"), (80, "leave")]
    assert boundaries(segmentation, signals, "events") == [0, 48, 80]
    assert boundaries([(0, "reach"), (15, "wait"), (42, "grasp")], signals, "phases") == [
        0, 14, 40, 48
    ]  # fmt: skip


def test_a_phase_does_not_end_between_equal_labels_without_an_event() -> None:
    signals = recorded([stroke("close", 30, 38)])
    moving = [(0, "reach"), (31, "move the cup"), (60, "Move the cup"), (80, "leave")]
    assert boundaries(moving, signals, "phases") == [0, 30, 38, 80]
    assert boundaries(moving, signals, "events") == [0, 38, 60, 80]


def test_an_added_stroke_replaces_one_boundary_that_the_model_saw_at_another_time() -> None:
    signals = recorded([stroke("close", 30, 38), stroke("open", 60, 68)])
    seen = [(0, "reach"), (31, "grasp"), (47, "move"), (80, "leave")]
    # 38 replaces 47, and 60 replaces 80.
    assert boundaries(seen, signals, "phases") == [0, 30, 38, 60, 68]
    alone = recorded([stroke("close", 30, 38)])
    far = [(0, "reach"), (31, "grasp"), (70, "leave")]
    assert boundaries(far, alone, "phases") == [0, 30, 38, 70]


@pytest.mark.parametrize("names", [True, False])
def test_strokes_name_their_phases_unless_labels_are_given(names: bool) -> None:
    segmentation = [Subtask(0, 30, "reach for the cup"), Subtask(30, 100, "lift the cup")]
    found = refine(
        segmentation,
        recorded([stroke("close", 30, 38)]),
        EPISODE,
        PlanConfig(granularity="phases"),
        SignalsConfig(),
        name_strokes=names,
    )
    second = "close the gripper on the cup" if names else "lift the cup"
    assert [part.label for part in found.subtasks] == ["reach for the cup", second, "lift the cup"]
    assert 1 in found.changed
