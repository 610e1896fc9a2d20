"""The VQA stage with a server: requests, and the rows that follow from replies."""

import pytest
from stage_setup import CAMERA, asking, media_of, words_of

from cuesheet.annotate import vqa
from cuesheet.config.load import load_config
from cuesheet.config.stages import VqaConfig
from cuesheet.errors import CuesheetError

# What Qwen2.5-VL makes of 1280 x 720 px within 401408 px: by 1.515 smaller, multiples of 28 px.
RESIZED = (840, 448)


def reply(kind, question):
    bbox = {"label": "block", "bbox_format": "xyxy", "bbox": [210, 112, 420, 224]}
    answer = {
        "BboxQA": {"detections": [bbox]},
        "KeypointQA": {"label": "block", "point_format": "xy", "point": [420, 224]},
        "CountQA": {"label": "block", "count": 1},
        "AttributeQA": {"label": "block", "attribute": "color", "value": "red"},
        "SpatialQA": {"subject": "block", "relation": "on", "object": "table"},
    }[kind]
    return {"question": "Which?", "answer": answer}


async def annotate(stage, *kinds, convention="pixels", plan=None):
    settings = VqaConfig(types=list(kinds), max_invalid=1)
    return await vqa.annotate(
        stage, settings, cameras=[CAMERA], convention=convention, seed=0, plan=plan
    )


@pytest.mark.parametrize(
    "limits",
    [
        {"max_pixels": 401408},
        {"size": {"shortest_edge": 3136, "longest_edge": 401408}},
        {"max_pixels": 401408, "size": {"shortest_edge": 3136, "longest_edge": 12845056}},
    ],
    ids=["max_pixels", "size", "both"],
)
@pytest.mark.parametrize("kind", ["bbox", "keypoint"])
async def test_coordinates_refer_to_the_image_as_the_processor_resizes_it(
    tmp_path, monkeypatch, limits, kind
):
    sampling = {"mm_processor_kwargs": limits}
    async with asking(
        tmp_path, monkeypatch, reply, name="vqa", sampling=sampling, seconds=1, size=(1280, 720)
    ) as (stage, server):
        (pair,) = (await annotate(stage, kind, convention="resized_pixels"))["pairs"]
    (body,) = server.bodies
    assert f"top left, {RESIZED[0]} x {RESIZED[1]}" in words_of(body)
    assert body["mm_processor_kwargs"] == limits
    if kind == "bbox":
        assert pair["answer"]["detections"][0]["bbox"] == [320, 180, 640, 360]
    else:
        assert pair["answer"]["point"] == [640, 360]


async def test_a_limit_that_is_not_a_number_of_pixels_is_an_error_that_names_it(
    tmp_path, monkeypatch
):
    sampling = {"mm_processor_kwargs": {"max_pixels": "many"}}
    async with asking(tmp_path, monkeypatch, reply, name="vqa", sampling=sampling, seconds=1) as (
        stage,
        _,
    ):
        with pytest.raises(CuesheetError, match=r"mm_processor_kwargs\.max_pixels is 'many'"):
            await annotate(stage, "bbox", convention="resized_pixels")


@pytest.mark.parametrize("kind", ["bbox", "keypoint", "count", "attribute", "spatial"])
async def test_only_questions_about_places_name_coordinates(tmp_path, monkeypatch, kind):
    async with asking(tmp_path, monkeypatch, reply, name="vqa", seconds=1, size=(640, 480)) as (
        stage,
        server,
    ):
        (pair,) = (await annotate(stage, kind))["pairs"]
    (body,) = server.bodies
    assert pair["type"] == kind
    assert len(media_of(body)) == 1
    assert ("Coordinates: " in words_of(body)) == (kind in ("bbox", "keypoint"))


@pytest.mark.parametrize(
    ("task", "told"),
    [("test", "unknown"), ("", "unknown"), ("TODO.", "unknown"), ("pick cup", "pick cup")],
)
async def test_a_placeholder_is_not_a_task_but_a_short_text_is(tmp_path, monkeypatch, task, told):
    async with asking(tmp_path, monkeypatch, reply, name="vqa", seconds=1, task=task) as (
        stage,
        server,
    ):
        await annotate(stage, "count")
    assert f"\nTask: {told}\n" in words_of(server.bodies[0])


def asked_for(question):
    """The lines below `Do not ask again:`."""
    _, _, rest = question.partition("Do not ask again:\n")
    return [line[2:] for line in rest.splitlines() if line.startswith("- ")]


async def test_a_repeated_question_is_requested_again_with_the_questions_so_far(
    tmp_path, monkeypatch
):
    def ask(kind, question):
        count = {"label": "block", "count": 1}
        times = len(asked_for(question))
        return {"answer": count, "question": "How many?" if not times else f"How many {times}?"}

    async with asking(tmp_path, monkeypatch, ask, name="vqa", seconds=4) as (stage, server):
        pairs = (await annotate(stage, "count"))["pairs"]
    assert [pair["question"] for pair in pairs] == [
        "How many?", "How many 1?", "How many 2?", "How many 3?"
    ]  # fmt: skip
    assert len(server.bodies) == 4 + 3
    assert asked_for(words_of(server.bodies[-1])) == ["How many?", "How many 1?", "How many 2?"]
    assert stage.warnings == []


async def test_a_question_that_is_repeated_twice_is_left_out(tmp_path, monkeypatch):
    async with asking(tmp_path, monkeypatch, reply, name="vqa", seconds=3) as (stage, _):
        (pair,) = (await annotate(stage, "count"))["pairs"]
    assert (pair["question"], pair["frame_index"]) == ("Which?", 0)
    assert stage.warnings == [
        "vqa: 2 of 3 questions repeated another question of their camera and type, even after a "
        "second request; no pair is written for them"
    ]
    assert len(stage.events) == 2


async def annotate_boxes_and_counts(stage):
    return (await annotate(stage, "bbox", "count"))["pairs"]


async def test_questions_of_different_types_are_repeated_only_if_the_model_insists(
    tmp_path, monkeypatch
):
    async with asking(tmp_path, monkeypatch, reply, name="vqa", seconds=4, size=(640, 480)) as (
        stage,
        server,
    ):
        pairs = await annotate_boxes_and_counts(stage)
    assert sorted(pair["type"] for pair in pairs) == ["bbox", "count"]
    assert {pair["question"] for pair in pairs} == {"Which?"}
    assert "2 of 4 questions repeated" in stage.warnings[0]
    assert [asked_for(words_of(body)) for body in server.bodies[4:]] == [["Which?"]] * 3


async def test_a_question_of_another_type_is_replaced_too(tmp_path, monkeypatch):
    def ask(kind, question):
        times = len(asked_for(question))
        return {
            **reply(kind, question),
            "question": f"Which {kind} {times}?" if times else "Which?",
        }

    async with asking(tmp_path, monkeypatch, ask, name="vqa", seconds=2, size=(640, 480)) as (
        stage,
        _,
    ):
        one, other = await annotate_boxes_and_counts(stage)
    assert {one["type"], other["type"]} == {"bbox", "count"}
    assert one["question"] == "Which?"
    assert other["question"] in ("Which BboxQA 1?", "Which CountQA 1?")
    assert stage.warnings == []


async def test_several_questions_share_one_image(tmp_path, monkeypatch):
    def several(kind, question):
        fields = {"count": "CountQA", "bbox": "BboxQA", "spatial": "SpatialQA"}
        replies = {name: reply(model, question) for name, model in fields.items()}
        for name in replies:
            replies[name]["question"] = f"Which {name}?"
        return replies

    async with asking(
        tmp_path, monkeypatch, several, name="vqa", seconds=1, size=(640, 480), vqa_frames=3
    ) as (
        stage,
        server,
    ):
        pairs = (
            await vqa.annotate(
                stage,
                VqaConfig(types=["count", "bbox", "spatial"], frames=3, per_call=3),
                cameras=[CAMERA],
                convention="pixels",
                seed=0,
            )
        )["pairs"]
    (body,) = server.bodies
    schema = body["response_format"]["json_schema"]["schema"]
    assert set(schema["required"]) == {"count", "bbox", "spatial"}
    assert len(media_of(body)) == 1
    assert words_of(body).count("Task: ") == 1
    for name in ("count", "bbox", "spatial"):
        assert f"Field `{name}`:" in words_of(body)
    assert [pair["frame_index"] for pair in pairs] == [0, 1, 2]
    assert pairs[0]["type"] == "bbox"
    assert {pair["type"] for pair in pairs} == {"bbox", "count", "spatial"}
    assert len({pair["question"] for pair in pairs}) == 3


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"types": ["bbox"], "per_call": 2, "frames": 2},
            "per_call is 2 but types has 1; the questions of a request are of different types: "
            "lower vqa.per_call or add types",
        ),
        (
            {"per_call": 3},
            "per_call is 3 but frames is 1; a frame has one question per camera, so set "
            "vqa.frames to at least 3",
        ),
    ],
)
def test_contradicting_settings_are_one_clear_line(settings, line):
    with pytest.raises(CuesheetError) as raised:
        load_config({"dataset": "d", "vqa": settings})
    assert str(raised.value).splitlines() == [f"config: vqa: {line}"]


async def test_questions_are_about_the_task_and_the_objects_of_the_plan(tmp_path, monkeypatch):
    async with asking(tmp_path, monkeypatch, reply, name="vqa", seconds=4) as (stage, server):
        plan = vqa.PlanFacts("sort the cutlery", ["pick up the fork", "put it into the tray"])
        await annotate(stage, "bbox", plan=plan)
    first = [words_of(body) for body in server.bodies if not asked_for(words_of(body))]
    lines = [line for text in first for line in text.splitlines()]
    targets = {line for line in lines if line.startswith("Ask about: ")}
    assert targets == {
        "Ask about: fork", "Ask about: tray", "Ask about: cutlery", "Ask about: robot gripper"
    }  # fmt: skip
    assert lines.count("Task: sort the cutlery") == 4


async def test_questions_are_also_about_the_objects_of_the_vocabulary(tmp_path, monkeypatch):
    async with asking(tmp_path, monkeypatch, reply, name="vqa", seconds=5) as (stage, server):
        plan = vqa.PlanFacts(
            "sort the cutlery",
            ["pick up the fork"],
            ["pick up the fork", "put it into the tray", "close the drawer"],
        )
        await annotate(stage, "bbox", plan=plan)
    lines = {line for body in server.bodies for line in words_of(body).splitlines()}
    assert {line.removeprefix("Ask about: ") for line in lines if line.startswith("Ask about")} == {
        *("fork", "tray", "drawer", "cutlery", "robot gripper"),
    }


async def test_an_unusable_reply_is_a_warning_and_no_pair(tmp_path, monkeypatch):
    async with asking(
        tmp_path, monkeypatch, lambda kind, question: {"no": "reply"}, name="vqa", seconds=1
    ) as (stage, _):
        assert (await annotate(stage, "count"))["pairs"] == []
    assert stage.warnings == [f"vqa: no usable reply for count {CAMERA} 0; no pair is written"]


async def test_a_wrong_coordinate_convention_is_a_warning_of_the_episode(tmp_path, monkeypatch):
    def beyond(kind, question):
        point = {"label": "block", "point_format": "xy", "point": [900, 900]}
        return {"question": "Which?", "answer": point}

    async with asking(tmp_path, monkeypatch, beyond, name="vqa", seconds=6, size=(640, 480)) as (
        stage,
        _,
    ):
        assert (await annotate(stage, "keypoint"))["pairs"] == []
    (warning,) = [text for text in stage.warnings if "vlm.coordinates" in text]
    assert "are outside the frame" in warning
