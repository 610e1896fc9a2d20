"""Motion rows: one motion per arm at a time, and rows that agree with their spans."""

import pytest

from cuesheet.artifacts.stage_files import MotionSpan
from cuesheet.assemble.validate_motion import check_motion


def span(arm: str, start: int, end: int, text: str = "move") -> MotionSpan:
    return MotionSpan(arm=arm, start_frame=start, end_frame=end, text=text)


GOOD = [
    span("left arm", 0, 10, "move the left arm"),
    span("right arm", 0, 20, "hold the right arm still"),
    span("left arm", 10, 15, "close the left gripper"),
    span("left arm", 18, 20, "move the left arm"),
]


def codes(spans: list[MotionSpan], rows: set[tuple[int, str]] | None = None) -> list[str]:
    begun = {(one.start_frame, one.text) for one in spans} if rows is None else rows
    return [code for code, _, _ in check_motion(begun, spans, 20)]


def test_arms_may_move_at_the_same_time_and_pause() -> None:
    assert codes(GOOD) == []


def test_an_arm_has_one_motion_at_a_time() -> None:
    problems = list(check_motion({(0, "move"), (9, "stop")}, [
        span("arm", 0, 10), span("arm", 9, 20, "stop")
    ], 20))  # fmt: skip
    assert problems == [
        (
            "motion_overlaps",
            "motion of arm",
            "'stop' covers frames 9 to 20, but the motion before it ends at frame 10; an arm has "
            "one motion at a time.",
        )
    ]


@pytest.mark.parametrize(("start", "end"), [(5, 5), (6, 5), (-1, 4), (15, 21)])
def test_a_span_lies_in_the_episode(start: int, end: int) -> None:
    assert codes([span("arm", start, end)]) == ["motion_span_invalid"]


def test_rows_and_spans_are_the_same() -> None:
    assert codes(GOOD, {(one.start_frame, one.text) for one in GOOD[:-1]}) == [
        "motion_rows_disagree"
    ]
    assert codes([], {(3, "move")}) == ["motion_rows_disagree"]
