"""Motion rows: one motion per arm at a time, and rows that agree with their spans."""

from pathlib import Path

import pytest
from keyframe_files import keyframes_json

from cuesheet.artifacts.episode import KeyframesFile
from cuesheet.artifacts.stage_files import Finding, StageFile
from cuesheet.assemble.validate import validate_episode

GOOD = [
    ("left arm", 0, 10, "move the left arm"),
    ("right arm", 0, 20, "hold the right arm still"),
    ("left arm", 10, 15, "close the left gripper"),
    ("left arm", 18, 20, "move the left arm"),
]


def motion_errors(spans, rows: set[tuple[int, str]] | None = None) -> list[Finding]:
    """Return what is wrong with spans (arm, start, end, text) and rows (frame, text)."""
    keyframes = keyframes_json("demo", 3, task="Pick", fps=10.0, length=20, cameras={})
    episode = KeyframesFile.model_validate(keyframes).episode(Path("keyframes"))
    begun = {(start, text) for _, start, _, text in spans} if rows is None else rows
    row = {"style": "motion", "role": "assistant", "camera": None, "tool_calls": None}
    names = ("arm", "start_frame", "end_frame", "text")
    plan = {
        **{"format": 1, "stage": "plan", "dataset": "demo", "episode_index": 3, "events": []},
        "persistent": [
            {**row, "content": text, "timestamp": frame / 10} for frame, text in sorted(begun)
        ],
        "motion": [dict(zip(names, span, strict=True)) for span in spans],
    }
    report = validate_episode(episode, {"plan": StageFile.model_validate(plan)}, [])
    return [error for error in report.errors if error.code.startswith("motion")]


def codes(*arguments) -> set[str]:
    return {error.code for error in motion_errors(*arguments)}


def test_arms_may_move_at_the_same_time_and_pause() -> None:
    assert motion_errors(GOOD) == []


def test_an_arm_has_one_motion_at_a_time() -> None:
    (error,) = motion_errors([("arm", 0, 10, "move"), ("arm", 9, 20, "stop")])
    assert (error.code, error.where) == ("motion_overlaps", "motion of arm")
    assert error.message == (
        "'stop' covers frames 9 to 20, but the motion before it ends at frame 10; an arm has one "
        "motion at a time."
    )


@pytest.mark.parametrize(("start", "end"), [(5, 5), (6, 5), (-1, 4), (15, 21)])
def test_a_span_lies_in_the_episode(start: int, end: int) -> None:
    assert "motion_span_invalid" in codes([("arm", start, end, "move")])


def test_rows_and_spans_are_the_same() -> None:
    without_last = {(start, text) for _, start, _, text in GOOD[:-1]}
    assert codes(GOOD, without_last) == {"motion_rows_disagree"}
    assert codes([], {(3, "move")}) == {"motion_rows_disagree"}
