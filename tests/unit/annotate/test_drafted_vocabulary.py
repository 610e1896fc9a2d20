"""Labels that the model drafts for a task: drafts, the list, and labels that it does not have."""

import json

import pytest
from stage_setup import CAMERA, PROMPTS, asking, kind_of, media_of, words_of

import annotate_plan
from cuesheet.annotate import plan
from cuesheet.annotate.vocabulary import build, clean_labels, draft
from cuesheet.artifacts.stage_files import StageFile
from cuesheet.artifacts.vocabulary import DraftFile
from cuesheet.config.load import load_config
from cuesheet.config.models import PlanConfig
from cuesheet.errors import CuesheetError
from cuesheet.vlm.client import Answer
from cuesheet.vlm.prompts import Prompts
from cuesheet.vlm.replies import CompletedEvents, LabelCandidates, Relabel, Segmentation
from cuesheet.vlm.structured_output import response_format
from cuesheet.vlm.vocabulary import MergedSteps, use_own_words, with_vocabulary

LABELS = ("pick up the cup", "place the cup")
TEXTS = Prompts([PROMPTS / "system.md", PROMPTS / "vocabulary_build.md"])


def step(label, at_s=1.0):
    return {"what_changed": "", "at_s": at_s, "label": label}


def drafted(number, *labels):
    return DraftFile(
        format=1,
        stage="vocabulary",
        dataset="made",
        episode_index=number,
        steps=[step(label) for label in labels],
    )


class Merging:
    """A model that answers with these labels, or with nothing usable."""

    def __init__(self, *labels):
        self.labels = labels
        self.requests = []

    async def ask(self, **request):
        self.requests.append(request)
        steps = [{"label": label} for label in self.labels]
        value = MergedSteps.model_validate({"steps": steps}) if steps else None
        return Answer(value, "", {})


async def test_a_draft_is_one_request_with_sheets_of_the_whole_episode(tmp_path, monkeypatch):
    def answer(kind, question):
        assert kind == "DraftedSteps"
        return {"steps": [step("place the cup", 5.0), step("pick up the cup", 2.0)]}

    async with asking(tmp_path, monkeypatch, answer, name="vocabulary", seconds=90) as (
        stage,
        server,
    ):
        found = await draft(stage, PlanConfig(), CAMERA)
        content = stage.result(**found)
    assert [one["label"] for one in found["steps"]] == ["pick up the cup", "place the cup"]
    assert DraftFile.model_validate(content).labels == ["pick up the cup", "place the cup"]
    (body,) = server.bodies
    assert "Span: 0.00 to 90.00 s" in words_of(body)
    assert len(media_of(body)) == 3  # 60 frames of 180 in sheets of 20
    schema = body["response_format"]["json_schema"]["schema"]
    fields = schema["$defs"]["DraftedStep"]["properties"]
    assert list(fields) == ["what_changed", "at_s", "label"]


async def test_a_draft_without_a_usable_reply_has_no_steps_and_a_warning(tmp_path, monkeypatch):
    async with asking(
        tmp_path, monkeypatch, lambda *_: {"steps": []}, name="vocabulary", seconds=4
    ) as (stage, server):
        found = await draft(stage, PlanConfig(), CAMERA)
        assert found == {"steps": []}
        assert stage.warnings == ["the model gave no usable list of steps of episode made/000000"]
        assert [call["outcome"] for call in stage.vlm.calls] == ["invalid"]
        assert await draft(stage, PlanConfig(), None) == {"steps": []}
    assert len(server.bodies) == 2  # the second is the correction


async def test_the_list_is_made_of_all_drafts_in_the_order_of_their_episodes():
    model = Merging("Pick up the cup", "place the cup", "other")
    drafts = {
        "000000": drafted(0, "grab the cup", "place the cup"),
        "000004": drafted(4, "pick up the cup"),
    }
    labels, warnings = await build(model, TEXTS, "move the cup", drafts)
    assert labels == ["Pick up the cup", "place the cup"]  # `other` has a meaning of its own
    assert warnings == []
    (request,) = model.requests
    lines = [line for line in request["text"].splitlines() if line.startswith("Step ")]
    assert lines == ["Step 1: grab the cup", "Step 2: place the cup", "Step 3: pick up the cup"]


async def test_without_any_draft_there_is_no_request_and_one_line_says_so():
    model = Merging("wave")
    labels, warnings = await build(model, TEXTS, "wave", {"000000": drafted(0)})
    assert (labels, model.requests) == ([], [])
    assert warnings == ["no draft of the task 'wave' has steps; its plans may have any labels"]


async def test_the_other_drafts_are_used_if_one_has_no_steps():
    drafts = {"000000": drafted(0), "000001": drafted(1, "wave")}
    labels, (warning,) = await build(Merging("wave"), TEXTS, "wave", drafts)
    assert labels == ["wave"]
    assert warning.startswith("1 of the 2 drafts of the task 'wave' have no steps")


async def test_an_unusable_list_limits_no_labels():
    labels, (warning,) = await build(Merging(), TEXTS, "wave", {"0": drafted(0, "wave")})
    assert labels == []
    assert warning == "no usable labels of the task 'wave'; its plans may have any labels"


def test_labels_of_a_list_are_distinct_and_short():
    labels, warnings = clean_labels(
        ["wave", " Wave", "Other", "one two three four five six seven eight nine"]
    )
    assert labels == ["wave", "one two three four five six seven eight"]
    assert len(warnings) == 1


def test_a_repeated_label_is_requested_again():
    steps = [{"label": "wave"}, {"label": "Wave"}]
    complaint = MergedSteps.model_validate({"steps": steps}).complaint()
    assert complaint == "every label is written once, but these are repeated: Wave"


@pytest.mark.parametrize("reply", [Segmentation, Relabel, LabelCandidates, CompletedEvents])
def test_the_own_words_come_before_the_label_and_other_is_allowed(reply):
    limited = with_vocabulary(reply, LABELS, own_words=True)
    schema = response_format(limited)["json_schema"]["schema"]
    (part,) = [*schema.get("$defs", {}).values()] or [schema]
    names = list(part["properties"])
    assert names[0] == "what_changed"
    assert names[-2] == "own_words"
    assert names[-1] in ("label", "labels")
    assert part["required"] == names
    assert json.dumps([*LABELS, "other"]) in json.dumps(schema)


def test_other_becomes_the_models_own_words():
    relabel = with_vocabulary(Relabel, LABELS, own_words=True)
    reply = relabel(own_words="pour the tea", label="other")
    use_own_words(reply)
    assert reply.label == "pour the tea"
    reply = relabel(own_words="grab the cup", label="pick up the cup")
    use_own_words(reply)
    assert reply.label == "pick up the cup"
    candidates = with_vocabulary(LabelCandidates, LABELS, own_words=True)
    reply = candidates(own_words="pour the tea", labels=["pick up the cup", "other"])
    use_own_words(reply)
    assert reply.labels == ["pick up the cup", "pour the tea"]


async def test_a_plan_has_the_labels_of_the_list_and_reports_others(tmp_path, monkeypatch):
    spans = [
        {"start_s": 0.0, "end_s": 3.0, "own_words": "grab the cup", "label": LABELS[0]},
        {"start_s": 3.0, "end_s": 6.0, "own_words": "pour the tea", "label": "other"},
    ]
    vocabulary = {"format": 1, "dataset": "made", "task": "x", "labels": LABELS, "drafts": {}}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(vocabulary))
    settings = PlanConfig(describe_first=False, memory=False, rephrasings={"mode": "off"})
    async with asking(tmp_path, monkeypatch, lambda *_: {"subtasks": spans}, seconds=6) as (
        stage,
        server,
    ):
        used = annotate_plan._vocabulary(stage, (), str(path))
        found = await plan.annotate(stage, settings, camera=CAMERA, cut_clip=None)
        content = StageFile.model_validate(stage.result(**found, **used))
    assert [part.label for part in content.subtasks] == [LABELS[0], "pour the tea"]
    assert content.own_labels == ["pour the tea"]
    assert content.vocabulary.is_drafted
    (body,) = server.bodies
    assert kind_of(body) == "Segmentation"
    assert "- `own_words`:" in words_of(body)
    assert "`other`" in words_of(body)


async def test_a_plan_without_a_list_is_labeled_freely_with_a_warning(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    empty = {"format": 1, "dataset": "made", "task": "x", "labels": [], "drafts": {}}
    path.write_text(json.dumps(empty))
    spans = [{"start_s": 0.0, "end_s": 6.0, "label": "juggle"}]
    settings = PlanConfig(describe_first=False, memory=False, rephrasings={"mode": "off"})
    async with asking(tmp_path, monkeypatch, lambda *_: {"subtasks": spans}, seconds=6) as (
        stage,
        server,
    ):
        record = annotate_plan._vocabulary(stage, (), str(path))["vocabulary"]
        assert (record["labels"], record["is_drafted"]) == ([], True)
        found = await plan.annotate(stage, settings, camera=CAMERA, cut_clip=None)
        assert any("has no drafted labels" in warning for warning in stage.warnings)
    assert found["subtasks"][0]["label"] == "juggle"
    assert "own_words" not in words_of(server.bodies[0])


def test_a_drafted_list_contradicts_the_labels_of_the_dataset():
    raw = {"dataset": "d", "plan": {"vocabulary": "auto", "subtasks_from": "dataset"}}
    with pytest.raises(CuesheetError) as raised:
        load_config(raw)
    (line,) = str(raised.value).splitlines()
    assert line.startswith("config: plan: vocabulary is auto but subtasks_from is dataset")
