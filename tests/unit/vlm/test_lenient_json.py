"""Objects that models write if no grammar enforces JSON are read; nothing else is made up."""

import json
import time

import pytest
from pydantic import BaseModel

from cuesheet.vlm.parsing import UnusableReplyError, message_text, parse_reply
from cuesheet.vlm.replies import BboxAnswer, KeypointAnswer, Segmentation


class Step(BaseModel):
    label: str
    at_s: float
    done: bool = True


VALUE = {"label": "grasp the cup's handle", "at_s": 1.5, "done": False}
TEXT = json.dumps(VALUE)


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("}", ",}"),
        repr(VALUE),
        '{label: "grasp the cup\'s handle", at_s: 1.5, done: false}',
        TEXT.replace(', "at_s"', ', // seconds\n"at_s"'),
        TEXT.replace(', "at_s"', ', /* seconds */ "at_s"'),
        TEXT.replace('"', "“"),
        json.dumps(TEXT),
        TEXT[:-1] + ', "confidence": NaN}',
        json.dumps({"answer": VALUE}),
        json.dumps({"type": "object", "properties": VALUE}),
        f"[{TEXT}]",
        repr(VALUE).replace('"', "'").replace("cup's", "cup\\'s"),
        TEXT.replace("cup's", "cup\\'s"),
        TEXT.replace("_", "\\_"),
        TEXT.replace("1.5", "1,5"),
        TEXT.replace(', "done"', '\n "done"').replace("1.5", '"1.5"'),
        TEXT.replace(": ", ":\u00a0"),
        f"{{{TEXT}}}",
        TEXT.replace("{", "{{").replace("}", "}}"),
        f"\\boxed{{{TEXT}}}",
    ],
)
def test_an_object_is_read_in_each_of_these_forms(text):
    assert parse_reply(f"Here it is:\n```json\n{text}\n```", Step).model_dump() == VALUE


@pytest.mark.parametrize(
    "text",
    [
        '{"label": "http://a // b, /* c */", "at_s": 1}',
        '{"label": "http://a // b, /* c */", "at_s": 1,}',
    ],
)
def test_what_looks_like_a_comment_in_a_text_is_a_part_of_it(text):
    assert parse_reply(text, Step).label == "http://a // b, /* c */"


@pytest.mark.parametrize(
    "text",
    [
        '{"label": NaN, "at_s": 1}',
        "{label: &a [*a, *a], at_s: 1}",
        "{label: !!python/object:os.system x, at_s: 1}",
        "{" + "label: [" * 500 + "}",
        "{'label': " + "(" * 5000 + "}",
    ],
)
def test_other_text_is_not_read(text):
    with pytest.raises(UnusableReplyError):
        parse_reply(text, Step)


def test_a_long_reply_that_is_not_json_takes_bounded_time():
    begun = time.process_time()
    with pytest.raises(UnusableReplyError):
        parse_reply("{" + "label: [a, " * 80_000 + "}", Step)
    with pytest.raises(UnusableReplyError):
        parse_reply("{'label': [" + "1, " * 6000 + "]}", Step)
    assert time.process_time() - begun < 10


def test_a_list_in_place_of_the_object_that_holds_it_is_read_whole():
    spans = [{"start_s": n, "end_s": n + 1, "label": f"step {n}"} for n in range(3)]
    for text in (json.dumps(spans), f"Steps: {json.dumps(spans)} Done."):
        read = parse_reply(text, Segmentation)
        assert [span.label for span in read.subtasks] == ["step 0", "step 1", "step 2"]


def test_times_may_have_a_unit_or_minutes():
    times = [("1.5 s", 1.5), ("2sec", 2.0), ("01:05.5", 65.5), ("1:00:00", 3600.0), ("7", 7.0)]
    for text, seconds in times:
        span = {"start_s": text, "end_s": 9000, "label": "a"}
        read = parse_reply(json.dumps({"subtasks": [span]}), Segmentation)
        assert read.subtasks[0].start_s == seconds
    with pytest.raises(UnusableReplyError):
        parse_reply('{"subtasks": [{"start_s": "start", "end_s": 1, "label": "a"}]}', Segmentation)


@pytest.mark.parametrize(
    "box",
    [
        [1, 2, 3, 5],
        [[1, 2, 3, 5]],
        "[1, 2, 3, 5]",
        [[1, 2], [3, 5]],
        [{"x": 1, "y": 2}, {"x": 3, "y": 5}],
        {"x1": 1, "y1": 2, "x2": 3, "y2": 5},
        {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 5},
        {"x": 1, "y": 2, "width": 2, "height": 3},
        {"left": 1, "top": 2, "right": 3, "bottom": 5},
    ],
)
def test_a_box_is_read_in_each_of_these_forms(box):
    detection = {"label": "cup", "bbox_format": "xyxy", "bbox": box}
    read = BboxAnswer.model_validate({"detections": [detection]})
    assert read.detections[0].bbox == [1, 2, 3, 5]


def test_the_key_of_qwen_models_is_known_and_other_boxes_are_rejected():
    read = BboxAnswer.model_validate({"detections": [{"label": "cup", "bbox_2d": [1, 2, 3, 5]}]})
    assert read.detections[0].bbox == [1, 2, 3, 5]
    for box in ({"x": 1, "y": 2, "width": "wide", "height": 3}, [[1, 2], [3]], "here", [1, 2, 3]):
        with pytest.raises(ValueError, match="bbox"):
            BboxAnswer.model_validate(
                {"detections": [{"label": "cup", "bbox_format": "xyxy", "bbox": box}]}
            )
    for point in ([1, 2], [[1, 2]], {"x": 1, "y": 2}, "[1, 2]"):
        answer = {"label": "cup", "point_format": "xy", "point": point}
        assert KeypointAnswer.model_validate(answer).point == [1, 2]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"content": VALUE}, "content"),
        ({"content": None, "function_call": {"arguments": TEXT}}, "tool_calls"),
        ({"content": "", "thinking": TEXT}, "thinking"),
        (
            {"content": None, "reasoning_details": [{"type": "reasoning.text", "text": TEXT}]},
            "reasoning_details",
        ),
    ],
)
def test_further_fields_with_the_answer(message, field):
    text, found = message_text(message)
    assert (parse_reply(text, Step).model_dump(), found) == (VALUE, field)


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<unused94>thought\n", "<unused95>"),
        ("<analysis>", "</analysis>"),
        ('<think time="3">', "</think>"),
    ],
)
def test_a_draft_in_other_thinking_marks_is_not_the_answer(opening, closing):
    draft = TEXT.replace("grasp", "DRAFT")
    assert parse_reply(f"{opening}{draft}{closing}{TEXT}", Step).model_dump() == VALUE
    with pytest.raises(UnusableReplyError):
        parse_reply(f"{opening}{draft}{closing}", Step)


@pytest.mark.parametrize("end", ["1,5 s", "1,5e", "1,500,000", "1, 5"])
def test_a_number_that_is_not_understood_is_never_cut_at_its_comma(end):
    with pytest.raises(UnusableReplyError):
        parse_reply(f'{{"label": "reach", "at_s": {end}}}', Step)


def test_a_missing_comma_between_objects_is_added():
    spans = '{"start_s": 0, "end_s": 1, "label": "a"} {"start_s": 1, "end_s": 2, "label": "b"}'
    found = parse_reply(f'{{"subtasks": [{spans}]}}', Segmentation)
    assert [span.label for span in found.subtasks] == ["a", "b"]
