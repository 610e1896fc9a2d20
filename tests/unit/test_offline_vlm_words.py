"""What the embedded default makes of the words of a request."""

import json
from itertools import pairwise

import pytest

from cuesheet.vlm import replies
from demo_vlm import answers, labels, phrasing, schema, words
from demo_vlm.media import Media
from demo_vlm.question import parse
from demo_vlm.request import ChatRequest

TASKS = [
    "Pick and place a puck to a goal",
    "Grasp the cover and close the box with it",
    "Push and close a window",
    "Insert a peg sideways",
    "Press a button from the top",
    "Pick up the cup by the handle with the left arm, then pour water",
    "fold_the_towel",
    "TV remote to drawer",
    "x",
]


def answer(reply: type[replies.Reply], text: str):
    request = ChatRequest((text,), text, (), reply.__name__, reply.model_json_schema(), None)
    return reply.model_validate_json(answers.reply_text(request, Media()))


def key(sentence: str) -> str:
    return "".join(sign for sign in sentence.lower() if sign.isalnum())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("wanted", [1, 10, 64])
def test_so_many_rephrasings_as_wanted_and_all_different(task, wanted):
    found = answer(replies.Rephrasings, f"Task: {task}\nRephrasings wanted: {wanted}").rephrasings
    assert len(found) == wanted
    assert len({key(sentence) for sentence in [*found, task]}) == wanted + 1


@pytest.mark.parametrize("task", TASKS)
def test_axes_have_so_many_sentences_as_wanted_and_share_none(task):
    text = (
        f"Task: {task}\nAxis synonym: 3\nAxis omit_arm: 3\nAxis omit_orientation: 2\n"
        "Axis omit_grasp: 2\nAxis combined: 2"
    )
    found = answer(replies.AxisRephrasings, text).model_dump()
    assert {axis: len(sentences) for axis, sentences in found.items()} == answers.DEFAULT_AXES
    sentences = [key(sentence) for part in found.values() for sentence in part]
    assert len(set(sentences)) == len(sentences)


def test_an_axis_leaves_out_what_it_is_named_for():
    task = "Pick up the cup by the handle with the left arm, sideways"
    found = phrasing.axis_rephrasings(task, answers.DEFAULT_AXES)
    assert all("left arm" not in sentence for sentence in found["omit_arm"])
    assert all("sideways" not in sentence for sentence in found["omit_orientation"])
    assert all("handle" not in sentence for sentence in found["omit_grasp"])
    assert found["combined"][0] == "Pick up the cup."


@pytest.mark.parametrize(
    ("task", "thing"),
    [
        ("Pick and place a puck to a goal", "the puck"),
        ("Push and close a window", "the window"),
        ("Open a door with a revolving joint", "the door"),
        ("Pick up the red cup and put it on the plate", "the red cup"),
        ("put the left shoe in the box", "the left shoe"),
    ],
)
def test_the_thing_of_a_task_is_found(task, thing):
    assert words.parse(task).thing == thing


def test_labels_follow_the_words_of_the_task():
    roles = ["approach", "contact", "act", "leave"]
    assert labels.labels(words.parse("Pick and place a puck to a goal"), roles) == [
        "reach for the puck",
        "grasp the puck",
        "place the puck to the goal",
        "let go of the puck and move away",
    ]
    assert labels.labels(words.parse("Push and close a window"), roles) == [
        "reach for the window",
        "line up with the window",
        "push and close the window",
        "move away from the window",
    ]
    cover = labels.labels(words.parse("Grasp the cover and close the box with it"), ["act"])
    assert cover == ["close the box with the cover"]


@pytest.mark.parametrize("task", [*TASKS, ""])
def test_any_task_gets_labels_that_are_not_empty_and_do_not_repeat(task):
    roles = ["approach", "contact", "act", "leave", "act", "leave", "act", "act"]
    found = labels.labels(words.parse(task), roles)
    assert len(found) == len(roles)
    assert all(found)
    assert all(a != b for a, b in pairwise(found))


def test_memory_is_a_chain_that_keeps_outcomes_and_drops_the_way_there():
    steps = ["reach for the puck", "grasp the puck and lift it", "place the puck in the bin"]
    memory = ""
    for step in steps:
        text = f"Memory so far: {memory or 'none'}\nJust finished: {step}\nStarting now: go on"
        memory = answer(replies.Memory, text).memory
    assert memory == "I grasped the puck and lifted it. I placed the puck in the bin."


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ("put the cup down", "I put the cup down."),
        ("Grab the lid", "I grabbed the lid."),
        ("carry it over", "I carried it over."),
        ("let go of the puck and move away", "I let go of the puck and moved away."),
        ("red cube", "I did this step: red cube."),
    ],
)
def test_what_was_done_is_told_in_the_first_person_past(order, told):
    assert words.past_sentence(order) == told


def test_speech_accepts_what_was_asked():
    assert answer(replies.Acknowledgement, "Task: Open a drawer").speech == (
        "Okay, I will open a drawer."
    )
    found = answer(
        replies.Interjection, "Coming subtask: close the lid\nLast subtask: grasp the lid"
    )
    assert "shut the lid" in found.interjection
    assert found.speech == "Sure, I will close the lid."


def test_relabel_keeps_a_short_imperative():
    text = "Span: 1.20 to 3.40 s\nFirst label: Grasp the puck."
    assert answer(replies.Relabel, text).label == "grasp the puck"


def test_the_lines_are_found_wherever_a_prompt_puts_them():
    asked = parse(
        "Some words of a user.\n\nLimits: at most 3 subtasks, each at least 0.75 s long.\n"
        "Images: 2 contact sheets, 4 columns, read row by row.\nSheet 1: 0.00 0.50 1.00\n"
        "Sheet 2: 1.50\n  Window: 0.00 to 2.00 s\nTask: Lift: the Task: thing\nTask: other\n"
        "Memory so far: none\nCoordinates: pixels of the image, origin top left, 336 x 224\n"
    )
    assert (asked.max_subtasks, asked.min_subtask_s) == (3, 0.75)
    assert asked.sheets is not None
    assert asked.sheets.columns == 4
    assert asked.sheets.times_s == ((0.0, 0.5, 1.0), (1.5,))
    assert asked.window_s == (0.0, 2.0)
    assert asked.task == "Lift: the Task: thing"
    assert asked.memory == ""
    assert asked.coordinates == (336, 224)


@pytest.mark.parametrize("text", ["", "Task:", "Sheet 1: a b", "Limits: none", "Window: 3 s", "\0"])
def test_broken_or_missing_lines_are_no_error(text):
    assert answer(replies.Acknowledgement, text).speech
    assert answer(replies.Memory, text).memory
    assert answer(replies.Interjection, text).interjection


def test_replies_stay_within_the_bounds_of_the_schema():
    task = "Push " + "the very long word " * 60
    assert len(answer(replies.Acknowledgement, f"Task: {task}").speech) <= 300
    assert len(answer(replies.Relabel, f"First label: {task}").label) <= 120
    bounded = {
        "type": "object",
        "required": ["rephrasings"],
        "properties": {
            "rephrasings": {
                "type": "array",
                "maxItems": 2,
                "items": {"type": "string", "maxLength": 9},
            }
        },
    }
    request = ChatRequest(("Task: Open a door",), "Task: Open a door", (), "other", bounded, None)
    found = json.loads(answers.reply_text(request, Media()))["rephrasings"]
    assert len(found) == 2
    assert all(0 < len(sentence) <= 9 for sentence in found)


def test_an_unknown_schema_gets_the_least_that_it_allows():
    document = {
        "type": "object",
        "required": ["ok", "kind", "items", "size"],
        "properties": {
            "ok": {"type": "boolean"},
            "kind": {"enum": ["a", "b"]},
            "items": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Item"}},
            "size": {"anyOf": [{"type": "integer", "minimum": 3}, {"type": "null"}]},
        },
        "$defs": {"Item": {"type": "object", "required": ["n"], "properties": {"n": {}}}},
    }
    assert schema.blank(document) == {
        "ok": False,
        "kind": "a",
        "items": [{"n": "unknown"}],
        "size": None,
    }


def test_the_kind_of_reply_is_told_by_the_keys_where_the_name_is_another():
    for reply in (
        *(replies.Description, replies.Segmentation, replies.Relabel, replies.Memory),
        *(replies.Rephrasings, replies.AxisRephrasings, replies.TaskFromVideo),
        *(replies.Acknowledgement, replies.Interjection, *replies.VQA_REPLIES.values()),
    ):
        assert answers.kind_of("response", reply.model_json_schema()) == reply.__name__
