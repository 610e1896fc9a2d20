"""Labels from a given list: in the schema, in the prompt, and nowhere else."""

import pytest
from stage_setup import CAMERA, asking, kind_of, words_of

from cuesheet.annotate import plan
from cuesheet.config.load import load_config
from cuesheet.config.models import PlanConfig
from cuesheet.errors import CuesheetError
from cuesheet.vlm.replies import CompletedEvents, LabelCandidates, Memory, Relabel, Segmentation
from cuesheet.vlm.vocabulary import with_vocabulary

LABELS = ("pick up the cup", "place the cup", "open the box")


def enums_of(schema):
    """Every enum of a JSON schema."""
    if isinstance(schema, dict):
        found = [schema["enum"]] if "enum" in schema else []
        return found + [enum for value in schema.values() for enum in enums_of(value)]
    if isinstance(schema, list):
        return [enum for value in schema for enum in enums_of(value)]
    return []


@pytest.mark.parametrize("reply", [Segmentation, Relabel, LabelCandidates, CompletedEvents])
def test_the_schema_has_the_labels_as_an_enum_and_the_same_name(reply):
    limited = with_vocabulary(reply, LABELS)
    assert enums_of(limited.model_json_schema()) == [list(LABELS)]
    assert limited.__name__ == reply.__name__
    assert with_vocabulary(reply, ()) is reply


def test_candidates_from_a_list_are_at_least_two():
    schema = with_vocabulary(LabelCandidates, LABELS).model_json_schema()
    assert schema["properties"]["labels"]["minItems"] == 2


def test_replies_without_labels_stay_as_they_are():
    assert with_vocabulary(Memory, LABELS) is Memory


async def test_the_plan_uses_the_given_labels_and_memory_stays_free(tmp_path, monkeypatch):
    spans = [
        {"what_changed": "", "start_s": 0.0, "end_s": 3.0, "label": LABELS[0]},
        {"what_changed": "", "start_s": 3.0, "end_s": 6.0, "label": LABELS[1]},
    ]

    def answer(kind, question):
        return {
            "Segmentation": {"subtasks": spans},
            "Relabel": {"what_changed": "", "label": LABELS[2]},
            "Memory": {"memory": "I hold the cup."},
        }[kind]

    settings = PlanConfig(describe_first=False, relabel="span", rephrasings={"mode": "off"})
    async with asking(tmp_path, monkeypatch, answer, seconds=6) as (stage, server):
        stage.vocabulary = LABELS
        found = await plan.annotate(stage, settings, camera=CAMERA, cut_clip=None)
    assert {part["label"] for part in found["subtasks"]} == {LABELS[2]}
    for body in server.bodies:
        schema = body["response_format"]["json_schema"]["schema"]
        limited = kind_of(body) != "Memory"
        assert enums_of(schema) == ([list(LABELS)] if limited else [])
        assert ("- open the box" in words_of(body)) == limited


async def test_a_label_outside_the_list_is_requested_again(tmp_path, monkeypatch):
    spans = [{"what_changed": "", "start_s": 0.0, "end_s": 6.0, "label": "juggle"}]
    settings = PlanConfig(describe_first=False, memory=False, rephrasings={"mode": "off"})
    async with asking(tmp_path, monkeypatch, lambda *_: {"subtasks": spans}, seconds=6) as (
        stage,
        server,
    ):
        stage.vocabulary = LABELS
        with pytest.raises(CuesheetError, match="no usable segmentation"):
            await plan.annotate(stage, settings, camera=CAMERA, cut_clip=None)
    assert len(server.bodies) == 2


def test_labels_are_chosen_by_task():
    by_task = PlanConfig(vocabulary={"tidy up": ["pick up the cup"]})
    assert by_task.labels_of("tidy up") == ("pick up the cup",)
    assert by_task.labels_of("cook") == ()
    assert PlanConfig(vocabulary=["wave"]).labels_of("cook") == ("wave",)
    assert PlanConfig().labels_of("cook") == ()


@pytest.mark.parametrize(
    ("vocabulary", "line"),
    [
        (["wave", "Wave "], "the label 'Wave ' is there twice; remove one"),
        (["wave", " "], "a label is empty; remove it"),
        (
            {"cook": ["one two three four five six seven eight nine"]},
            "task 'cook': the label 'one two three four five six seven eight nine' has 9 words; a "
            "label has at most 8",
        ),
        ([], "the list is empty; write `off` for any labels"),
        (
            "always",
            "found 'always', expected off, auto, a list of labels, or tasks with lists of labels "
            "{task: [label, ...]}; for one write [always]",
        ),
    ],
)
def test_an_invalid_vocabulary_is_one_line(vocabulary, line):
    with pytest.raises(CuesheetError) as raised:
        load_config({"dataset": "d", "plan": {"vocabulary": vocabulary}})
    assert str(raised.value).splitlines() == [f"config: plan.vocabulary: {line}"]


def test_yaml_reads_off_as_false():
    config = load_config({"dataset": "d", "plan": {"vocabulary": False}})
    assert config.plan.vocabulary == "off"
