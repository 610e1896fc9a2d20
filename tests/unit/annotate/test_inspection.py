"""Inspections: their requests, camera defects, and the results for the episode."""

import numpy as np
import pytest
from PIL import Image
from stage_setup import CAMERA, asking, words_of

from cuesheet.annotate.acts import missing_acts
from cuesheet.annotate.camera_defects import find_defects
from cuesheet.annotate.inspection import inspect
from cuesheet.artifacts.episode import Keyframe
from cuesheet.artifacts.inspection import InspectionFile
from cuesheet.artifacts.stage_files import StageFile
from cuesheet.config.load import load_config
from cuesheet.config.stages import FramesConfig
from cuesheet.errors import CuesheetError


def plan_of(*labels, task="pick up the cup and place it on the shelf"):
    parts = [
        {
            "start_frame": 20 * n,
            "end_frame": 20 * n + 20,
            "start_s": 2.0 * n,
            "end_s": 2.0 * n + 2,
            "label": label,
        }
        for n, label in enumerate(labels)
    ]
    return StageFile(
        format=1,
        stage="plan",
        dataset="made",
        episode_index=0,
        persistent=[],
        events=[],
        task={"text": task, "source": "dataset"},
        subtasks=parts,
    )


async def inspected(tmp_path, monkeypatch, answer, plan, camera=CAMERA):
    async with asking(tmp_path, monkeypatch, answer, name="inspection", seconds=6) as (
        stage,
        server,
    ):
        found = await inspect(stage, plan=plan, camera=camera, layout=FramesConfig())
        return InspectionFile(**stage.result(**found)), server.bodies


async def test_each_subtask_and_the_episode_are_one_request(tmp_path, monkeypatch):
    def answer(kind, question):
        if kind == "EpisodeVerdict":
            return {"why": "The cup fell.", "achieved": "no", "retried": True}
        done = "no" if "Step: place" in question else "yes"
        return {"why": "It is on the floor.", "complete": done}

    plan = plan_of("pick up the cup", "place the cup on the shelf", "open the door")
    found, bodies = await inspected(tmp_path, monkeypatch, answer, plan)
    assert len(bodies) == 4
    assert [part.complete for part in found.subtasks] == ["yes", "no", "yes"]
    assert found.verdict == "failed"
    assert found.episode.retried
    assert [(code, where) for code, where, _ in found.findings() if "camera" not in code] == [
        ("task_not_achieved", "episode"),
        ("subtask_incomplete", "subtask at 2.00 s"),
    ]
    spans = [line for body in bodies for line in words_of(body).splitlines() if "Span" in line]
    assert sorted(spans) == [
        "Span: 0.00 to 2.00 s", "Span: 2.00 to 4.00 s", "Span: 4.00 to 6.00 s"
    ]  # fmt: skip


async def test_without_a_camera_no_request_is_sent(tmp_path, monkeypatch):
    plan = plan_of("pick up the cup")
    found, bodies = await inspected(tmp_path, monkeypatch, lambda *_: {}, plan, camera=None)
    assert bodies == []
    assert found.missing_acts == ["place"]
    assert found.verdict == "doubtful"


@pytest.mark.parametrize(
    ("task", "labels", "missing"),
    [
        ("pick up the cup and place it on the shelf", ["pick up the cup"], ["place"]),
        ("pick up the cup and place it on the shelf", ["grasp the cup", "put it down"], []),
        ("Open the drawer, then take the pen out.", ["open the drawer"], ["take"]),
        ("put the place mat away", ["put the mat away"], []),
        ("slide the box", ["push the box"], []),
        ("juggle the balls", ["throw a ball"], []),
        ("", ["open the box"], []),
    ],
)
def test_an_act_of_the_task_that_no_subtask_does_is_named(task, labels, missing):
    assert missing_acts(task, labels) == missing


def images_as_keyframes(folder, camera, images, step_s=0.5):
    frames = []
    for index, image in enumerate(images):
        path = folder / f"{camera}{index}.png"
        Image.fromarray(image).save(path)
        frames.append(Keyframe(camera, index * 15, index * step_s, path, 64, 48))
    return frames


def moving(count, still=()):
    images, place = [], 0
    for index in range(count):
        place += 0 if index in still else 3
        image = np.full((48, 64, 3), 120, np.uint8)
        image[10:20, place % 50 : place % 50 + 8] = 250
        images.append(image)
    return images


def defects(**cameras):
    return {one.camera: one.defect for one in find_defects(cameras)}


def test_a_camera_that_works_has_no_defect(tmp_path):
    assert defects(a=images_as_keyframes(tmp_path, "a", moving(20))) == {}


def test_a_black_camera_is_found_even_with_noise(tmp_path):
    noise = np.random.default_rng(0).integers(0, 6, (20, 48, 64, 3)).astype(np.uint8)
    found = defects(
        a=images_as_keyframes(tmp_path, "a", list(noise)),
        b=images_as_keyframes(tmp_path, "b", moving(20)),
    )
    assert found == {"a": "black"}


def test_a_dark_scene_with_a_light_is_not_black(tmp_path):
    images = [np.minimum(image, 60) * (image > 200) for image in moving(20)]
    assert defects(a=images_as_keyframes(tmp_path, "a", images)) == {}


def test_a_frozen_camera_is_found(tmp_path):
    frozen = [moving(1)[0]] * 20
    found = defects(
        a=images_as_keyframes(tmp_path, "a", frozen),
        b=images_as_keyframes(tmp_path, "b", moving(20)),
    )
    assert found == {"a": "frozen"}
    assert defects(a=images_as_keyframes(tmp_path, "a", frozen)) == {"a": "frozen"}


def test_a_camera_that_freezes_for_some_seconds_is_found_if_another_one_sees_motion(tmp_path):
    broken = images_as_keyframes(tmp_path, "a", moving(30, still=range(10, 20)))
    assert defects(a=broken, b=images_as_keyframes(tmp_path, "b", moving(30))) == {"a": "frozen"}


def test_a_robot_that_rests_is_not_a_defect(tmp_path):
    resting = {
        name: images_as_keyframes(tmp_path, name, moving(30, still=range(10, 20))) for name in "ab"
    }
    assert defects(**resting) == {}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"inspect": {"enabled": True}, "plan": {"enabled": False}}
            | {"interjections": {"enabled": False}},
            "inspect.enabled is true but plan.enabled is false; the inspection is about the "
            "subtasks of the plan: enable both, or disable the inspection",
        ),
        (
            {"output": {"leave_out": "failed"}},
            "output.leave_out is failed but inspect.enabled is false; enable the inspection, or "
            "set output.leave_out to off",
        ),
        (
            {"output": {"leave_out": "bad"}, "inspect": {"enabled": True}},
            "output.leave_out: found 'bad', expected one of off, failed, doubtful",
        ),
    ],
)
def test_contradicting_settings_are_one_line(settings, line):
    with pytest.raises(CuesheetError) as raised:
        load_config({"dataset": "d", **settings})
    assert str(raised.value).splitlines() == [f"config: {line}"]
