"""An episode in several windows: the order of requests, and the joined replies."""

import asyncio
import re

import pytest
from processes import PATIENCE_S
from stage_setup import CAMERA, asking, kind_of, media_of, words_of

from cuesheet.annotate import plan
from cuesheet.annotate.segmentation import from_episode_start
from cuesheet.annotate.stage import IMAGE_REQUESTS
from cuesheet.config.stages import PlanConfig
from cuesheet.errors import CuesheetError
from demo_vlm.question import Question


def settings(mode="single_frames", **frames) -> PlanConfig:
    return PlanConfig(
        rephrasings={"mode": "off"},
        memory=False,
        min_subtask_s=0.5,
        frames={"mode": mode, "max_frames_per_call": 10, **frames},
    )


def window_of(question: str) -> tuple[float, float]:
    found = re.search(r"(?m)^Window: (\S+) to (\S+) s$", question)
    return float(found[1]), float(found[2])


def halves(kind: str, question: str) -> dict:
    """A description, or two subtasks named after the window's times."""
    start, end = window_of(question)
    if kind == "Description":
        return {"scene": "a table", "events": [{"at_s": start + 1, "what": "it moves"}]}
    middle = (start + end) / 2
    return {
        "subtasks": [
            {"start_s": start, "end_s": middle, "label": f"begin {start:.0f}"},
            {"start_s": middle, "end_s": end, "label": f"end {start:.0f}"},
        ]
    }


async def annotate(stage, config, cut_clip=None):
    return await plan.annotate(stage, config, camera=CAMERA, cut_clip=cut_clip)


async def test_windows_are_described_together_and_segmented_in_order(tmp_path, monkeypatch):
    together = asyncio.Event()
    described = 0

    async def answer(kind, question):
        nonlocal described
        if kind == "Description":
            described += 1
            if described == 4:
                together.set()
            # No description is answered before all four windows are asked about.
            await asyncio.wait_for(together.wait(), PATIENCE_S)
        return halves(kind, question)

    async with asking(tmp_path, monkeypatch, answer, seconds=19) as (stage, server):
        result = await annotate(stage, settings())
    segmented = [words_of(body) for body in server.bodies if kind_of(body) == "Segmentation"]
    starts = [window_of(question)[0] for question in segmented]
    assert len(starts) == 4
    assert starts == sorted(starts)
    assert "Step under way" not in segmented[0]
    for question, before in zip(segmented[1:], starts, strict=False):
        assert f"\nStep under way when the window begins: end {before:.0f}\n" in question
    assert len(result["subtasks"]) == 8
    assert result["subtasks"][-1]["end_frame"] == 190


async def test_a_step_that_continues_in_the_next_window_is_one_subtask(tmp_path, monkeypatch):
    def answer(kind, question):
        if kind == "Description":
            return halves(kind, question)
        start, end = window_of(question)
        going_on = re.search(r"(?m)^Step under way .*: (.*)$", question)
        label = going_on[1] if going_on else "carry the block"
        return {"subtasks": [{"start_s": start, "end_s": end, "label": label}]}

    async with asking(tmp_path, monkeypatch, answer, seconds=19) as (stage, _):
        result = await annotate(stage, settings())
    assert [part["label"] for part in result["subtasks"]] == ["carry the block"]


@pytest.mark.parametrize("mode", ["contact_sheets", "single_frames", "clip"])
async def test_both_calls_of_a_window_begin_with_the_same_words_and_media(
    tmp_path, monkeypatch, mode
):
    async with asking(tmp_path, monkeypatch, halves, seconds=9) as (stage, server):
        await annotate(stage, settings(mode), lambda start, end: b"clip %d %d" % (start, end))
    by_window = {}
    for body in server.bodies:
        by_window.setdefault(window_of(words_of(body)), {})[kind_of(body)] = body
    assert len(by_window) == 2
    for calls in by_window.values():
        first, second = calls["Description"], calls["Segmentation"]
        assert first["messages"][0] == second["messages"][0]
        assert media_of(first) == media_of(second)
        # Everything before the empty line that ends the lines about the window.
        shared, _, _ = words_of(first).partition("\n\nDescribe what")
        assert "\nWindow: " in shared
        assert "a part of an episode that is 9.00 s long" in shared
        assert words_of(second).startswith(shared + "\n\nLimits: ")


async def test_no_more_windows_are_held_than_a_server_works_on(tmp_path, monkeypatch):
    finished, held = 0, []

    async def answer(kind, question):
        nonlocal finished
        finished += kind == "Segmentation"
        return halves(kind, question)

    def cut_clip(start, end):
        held.append(len(held) + 1 - finished)
        return b"clip %d %d" % (start, end)

    async with asking(tmp_path, monkeypatch, answer, seconds=100) as (stage, _):
        await annotate(stage, settings("clip"), cut_clip)
    assert len(held) == 21
    assert max(held) <= IMAGE_REQUESTS == 8


async def test_a_request_names_the_position_of_its_window_in_the_episode(tmp_path, monkeypatch):
    async with asking(tmp_path, monkeypatch, halves, seconds=14) as (stage, server):
        await annotate(stage, settings())
    begun, continues = "in this part may have begun earlier", "in this part may continue afterwards"
    found = {}
    for body in server.bodies:
        question = words_of(body)
        found.setdefault(window_of(question)[0], set()).add(
            (begun in question, continues in question)
        )
    assert [found[start] for start in sorted(found)] == [
        {(False, True)},
        {(True, True)},
        {(True, False)},
    ]


async def test_one_window_is_not_called_a_part(tmp_path, monkeypatch):
    async with asking(tmp_path, monkeypatch, halves, seconds=4) as (stage, server):
        await annotate(stage, settings("contact_sheets"))
    questions = [words_of(body) for body in server.bodies]
    assert len(questions) == 2
    assert not any("a part of" in question for question in questions)
    assert all("A sheet is a grid of frames of one video" in question for question in questions)


async def test_a_window_without_usable_spans_ends_the_episode_by_name(tmp_path, monkeypatch):
    def answer(kind, question):
        if kind == "Segmentation" and window_of(question)[0] > 0:
            return {"subtasks": [{"start_s": 900, "end_s": 901, "label": "far away"}]}
        return halves(kind, question)

    async with asking(tmp_path, monkeypatch, answer, seconds=19) as (stage, _):
        with pytest.raises(
            CuesheetError, match=r"made/000000.* of 4\.50 to 9\.50 s: none of its 1"
        ):
            await asyncio.wait_for(annotate(stage, settings()), PATIENCE_S)


async def test_times_that_count_from_the_clips_first_frame_are_moved(tmp_path, monkeypatch):
    def answer(kind, question):
        start, end = window_of(question)
        clip = re.search(r"(?m)^Clip: (\S+) to (\S+) s$", question)
        assert (float(clip[1]), float(clip[2])) == (start, end)
        told = f"its first frame is at {start:.2f} s of the episode"
        assert (told in question) == (start > 0)
        if kind == "Description":
            return {"scene": "a table", "events": [{"at_s": 1.5, "what": "it moves"}]}
        if start > 0:
            assert f"- {start + 1.5:.2f} s: it moves" in question
        length = end - start
        return {
            "subtasks": [
                {"start_s": 0, "end_s": 2, "label": f"begin {start:.0f}"},
                {"start_s": 2, "end_s": length, "label": f"end {start:.0f}"},
            ]
        }

    async with asking(tmp_path, monkeypatch, answer, seconds=19) as (stage, _):
        result = await annotate(stage, settings("clip"), lambda start, end: b"%d %d" % (start, end))
    starts = [part["start_s"] for part in result["subtasks"]]
    assert starts == [0.0, 2.0, 4.5, 6.5, 9.5, 11.5, 14.5, 16.5]
    assert sum("counted from the clip's first frame" in text for text in stage.warnings) == 6


def test_only_times_that_fit_the_clip_and_not_the_window_are_moved():
    inside = [(30.0, 41.0, "a"), (41.0, 60.0, "b")]
    assert from_episode_start(inside, 30.0, 60.0) == inside
    from_zero = [(0.0, 11.0, "a"), (11.0, 30.0, "b")]
    assert from_episode_start(from_zero, 30.0, 60.0) == inside
    assert from_episode_start(from_zero, 0.0, 30.0) == from_zero
    mixed = [(0.0, 11.0, "a"), (35.0, 60.0, "b")]
    assert from_episode_start(mixed, 30.0, 60.0) == mixed
    beyond = [(0.0, 45.0, "a")]
    assert from_episode_start(beyond, 60.0, 90.0) == beyond


@pytest.mark.parametrize("mode", ["contact_sheets", "single_frames", "clip"])
async def test_the_demo_model_reads_what_windows_say(tmp_path, monkeypatch, mode):
    async with asking(tmp_path, monkeypatch, halves, seconds=9) as (stage, server):
        await annotate(stage, settings(mode), lambda start, end: b"%d %d" % (start, end))
    last = next(body for body in reversed(server.bodies) if kind_of(body) == "Segmentation")
    asked = Question(words_of(last))
    # 9 s at 2 frames per second and the last frame are 19 frames: 9 and 10.
    assert asked.span_s("Window") == (4.5, 9.0)
    assert asked.task == "put the red block into the bowl"
    assert asked.number("Limits", "at most") is None
    assert asked.number("Limits", "at least") == 0.5
    times = (*(4.5 + step / 2 for step in range(9)), 8.9)
    if mode == "contact_sheets":
        assert asked.sheet_times_s() == [list(times)]
    elif mode == "single_frames":
        assert tuple(asked.image_times_s().values()) == times
    else:
        assert asked.span_s("Clip") == (4.5, 9.0)
