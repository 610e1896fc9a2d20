"""Shared parts of the stages: media, requests without images, speech."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from stage_setup import CAMERA, asking, kind_of, media_of, words_of

from cuesheet.annotate import interjections, plan, vqa
from cuesheet.config.stages import FramesConfig, InterjectionsConfig, PlanConfig, VqaConfig
from cuesheet.vlm.run_environment import SHARED_FOLDER_VARIABLE, publish


def count(kind, question):
    return {"question": "How many?", "answer": {"label": "block", "count": 1}}


async def image_url_of(tmp_path, monkeypatch) -> str:
    async with asking(tmp_path, monkeypatch, count, name="vqa", seconds=1) as (stage, server):
        await vqa.annotate(
            stage, VqaConfig(types=["count"]), cameras=[CAMERA], convention="pixels", seed=0
        )
    (image,) = media_of(server.bodies[0])
    return image["image_url"]["url"]


async def test_media_are_sent_as_files_if_the_run_names_a_shared_folder(tmp_path, monkeypatch):
    monkeypatch.delenv(SHARED_FOLDER_VARIABLE, raising=False)
    publish(SHARED_FOLDER_VARIABLE, tmp_path, str(tmp_path / "shared"))
    url = await image_url_of(tmp_path, monkeypatch)
    path = Path(unquote(urlsplit(url).path))
    assert url.startswith("file://")
    assert path.is_relative_to(tmp_path / "shared")
    frame = tmp_path / "keyframes" / CAMERA / "000000.png"
    assert path.read_bytes() == frame.read_bytes()


async def test_media_are_sent_as_data_without_a_shared_folder(tmp_path, monkeypatch):
    monkeypatch.delenv(SHARED_FOLDER_VARIABLE, raising=False)
    assert (await image_url_of(tmp_path, monkeypatch)).startswith("data:image/png;base64,")


async def test_rephrasings_by_axis_are_requested_by_the_names_of_the_reply(tmp_path, monkeypatch):
    axes = ("synonym", "omit_arm", "omit_orientation", "omit_grasp", "combined")

    def answer(kind, question):
        return {axis: [f"do it {axis}", "Put the red block into the bowl."] for axis in axes}

    config = PlanConfig(derive_task="off", rephrasings={"mode": "axes"})
    async with asking(tmp_path, monkeypatch, answer, seconds=1) as (stage, server):
        await plan.annotate(stage, config, camera=None, cut_clip=None)
    (body,) = server.bodies
    assert media_of(body) == []
    wanted = words_of(body).split("Write ")[-1]
    assert all(f"`{axis}`" in wanted for axis in axes)
    texts = [row["content"] for row in stage.persistent]
    assert texts == ["put the red block into the bowl", *(f"do it {axis}" for axis in axes)]


async def test_rephrasings_of_several_tasks_are_at_the_first_frame_of_each_task(
    tmp_path, monkeypatch
):
    def answer(kind, question):
        return {"rephrasings": ["grab it"] if "lift" in question else ["put it down"]}

    starts = [(0, "lift the cup"), (5, "lower the cup"), (8, "lift the cup")]
    task = "lift the cup. Then: lower the cup"
    config = PlanConfig(derive_task="off")
    async with asking(tmp_path, monkeypatch, answer, seconds=1, task=task, task_starts=starts) as (
        stage,
        server,
    ):
        await plan.annotate(stage, config, camera=None, cut_clip=None)
    assert len(server.bodies) == 2
    assert [(row["timestamp"], row["content"]) for row in stage.persistent] == [
        (0.0, "lift the cup"),
        (0.0, "grab it"),
        (0.5, "lower the cup"),
        (0.5, "put it down"),
        (0.8, "lift the cup"),
        (0.8, "grab it"),
    ]


async def test_rephrasings_that_only_repeat_the_task_are_one_warning(tmp_path, monkeypatch):
    def answer(kind, question):
        return {"rephrasings": ["Put the red block into the bowl."]}

    async with asking(tmp_path, monkeypatch, answer, seconds=1) as (stage, _):
        await plan.annotate(stage, PlanConfig(), camera=None, cut_clip=None)
    assert len(stage.persistent) == 1
    assert stage.warnings[1:] == ["the model gave no usable rephrasing of the task"]


async def test_the_robot_acknowledges_the_task_with_a_call_of_say(tmp_path, monkeypatch):
    async with asking(
        tmp_path, monkeypatch, lambda *_: {"speech": "On it."}, name="interjections", seconds=1
    ) as (stage, server):
        await interjections.annotate(
            stage,
            InterjectionsConfig(),
            plan={"task": {"text": "lift the cup"}, "subtasks": [], "persistent": []},
            camera=None,
            layout=FramesConfig(),
            seed=0,
        )
    assert [kind_of(body) for body in server.bodies] == ["Acknowledgement"]
    (event,) = stage.events
    assert (event["role"], event["style"], event["content"]) == ("assistant", None, None)
    (call,) = event["tool_calls"]
    assert call["function"] == {"name": "say", "arguments": {"text": "On it."}}


LONG = "carefully put the red block into the blue bowl slowly"


async def segment_labels(tmp_path, monkeypatch, corrected: str):
    """Labels and warnings of a plan whose first label is too long, and the number of requests."""
    labels = iter([LONG, corrected])

    def answer(kind, question):
        return {"subtasks": [{"start_s": 0, "end_s": 3, "label": next(labels)}]}

    async with asking(tmp_path, monkeypatch, answer, seconds=3) as (stage, server):
        settings = PlanConfig(
            describe_first=False, memory=False, rephrasings={"mode": "off"}, derive_task="off"
        )
        found = await plan.annotate(stage, settings, camera=CAMERA, cut_clip=None)
    assert "at most 8 words" in server.bodies[1]["messages"][-1]["content"][0]["text"]
    return [part["label"] for part in found["subtasks"]], stage.warnings, len(server.bodies)


async def test_a_label_that_is_too_long_is_requested_again(tmp_path, monkeypatch):
    labels, warnings, requests = await segment_labels(tmp_path, monkeypatch, "place the block")
    assert (labels, warnings, requests) == (["place the block"], [], 2)


async def test_a_label_that_stays_too_long_is_shortened_with_a_warning(tmp_path, monkeypatch):
    labels, warnings, requests = await segment_labels(tmp_path, monkeypatch, LONG)
    assert (labels, requests) == (["carefully put the red block into the blue"], 2)
    assert len(warnings) == 1
    assert "was shortened to" in warnings[0]


async def test_a_long_label_is_shortened_if_its_correction_is_unusable(tmp_path, monkeypatch):
    labels, warnings, _ = await segment_labels(tmp_path, monkeypatch, "")
    assert len(labels) == 1
    assert len(labels[0].split()) <= 8
    assert len(warnings) == 1
