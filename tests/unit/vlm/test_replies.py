"""Every reply that matches its schema can be written."""

import pytest
from pydantic import ValidationError

from cuesheet.vlm import replies
from cuesheet.vlm.structured_output import response_format

REPLIES = [
    cls
    for cls in vars(replies).values()
    if isinstance(cls, type) and issubclass(cls, replies.Reply) and cls is not replies.Reply
]


def test_an_empty_note_is_ignored():
    answer = replies.CountAnswer.model_validate({"label": "cup", "count": 2, "note": "  "})
    assert answer.note is None
    assert answer.model_dump(exclude_none=True) == {"label": "cup", "count": 2}


def test_texts_are_stripped_and_never_empty():
    assert replies.Relabel.model_validate({"label": "  lift the lid "}).label == "lift the lid"
    with pytest.raises(ValidationError):
        replies.Relabel.model_validate({"label": "   "})


def value_of(schema: dict, root: dict, texts: dict[str, str], key: str = "") -> object:
    """A value that a schema allows; a free text is that of `texts` for its key, or a word."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return None
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    if schema["type"] == "object":
        return {name: value_of(p, root, texts, name) for name, p in schema["properties"].items()}
    if schema["type"] == "array":
        return [value_of(schema["items"], root, texts, key)] * max(1, schema.get("minItems", 1))
    return {"string": texts.get(key, "word"), "boolean": True}.get(schema["type"], 1)


def texts_in(schema: object, key: str = "") -> set[str]:
    """The keys of a schema whose values are free texts, or lists of them."""
    if isinstance(schema, list):
        return {name for part in schema for name in texts_in(part, key)}
    if not isinstance(schema, dict):
        return set()
    if schema.get("type") == "string" and not {"enum", "const"} & schema.keys():
        return {key}
    own = {name: part for name, part in schema.items() if name not in ("properties", "$defs")}
    inner = {**schema.get("properties", {}), **schema.get("$defs", {})}
    found = {name for part in own.values() for name in texts_in(part, key)}
    return found | {name for label, part in inner.items() for name in texts_in(part, label)}


@pytest.mark.parametrize("blank", ["   ", "\n\u00a0", "\x07"])
@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: reply.__name__)
def test_a_reply_with_a_blank_text_is_invalid_except_for_evidence_and_notes(reply, blank):
    schema = reply.model_json_schema()
    reply.model_validate(value_of(schema, schema, {}))
    for name in texts_in(schema) - {"what_changed", "why", "locations", "note"}:
        with pytest.raises(ValidationError):
            reply.model_validate(value_of(schema, schema, {name: blank}))


def test_servers_must_write_two_candidates_and_equal_ones_are_requested_again():
    schema = response_format(replies.LabelCandidates)["json_schema"]["schema"]
    assert schema["properties"]["labels"]["minItems"] == 2
    for labels in (["wave"], ["wave", "Wave."]):
        complaint = replies.LabelCandidates(labels=labels).complaint()
        assert complaint == "labels has several different labels, but this has only one"
    assert replies.LabelCandidates(labels=["wave", "open the box"]).complaint() == ""


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_are_finite(number):
    with pytest.raises(ValidationError):
        replies.Span.model_validate({"start_s": number, "end_s": 1, "label": "a"})
    with pytest.raises(ValidationError):
        replies.KeypointAnswer.model_validate(
            {"label": "a", "point_format": "xy", "point": [number, 1]}
        )


def bounded(schema: dict) -> bool:
    """Whether every string and list of a JSON schema has an upper limit."""
    if schema.get("type") == "string" and "enum" not in schema and "const" not in schema:
        return "maxLength" in schema
    if schema.get("type") == "array" and "maxItems" not in schema:
        return False
    parts = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    parts += [*schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]
    return all(bounded(part) for part in parts)


@pytest.mark.parametrize("reply", REPLIES)
def test_every_schema_is_bounded(reply):
    assert bounded(reply.model_json_schema())


def objects_in(schema):
    """Every schema of an object, however deep."""
    if isinstance(schema, list):
        for item in schema:
            yield from objects_in(item)
    elif isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for value in schema.values():
            yield from objects_in(value)


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: reply.__name__)
def test_every_form_that_is_sent_is_one_that_strict_servers_take(reply):
    form = response_format(reply)["json_schema"]
    assert form["strict"] is True
    found = list(objects_in(form["schema"]))
    assert found
    for schema in found:
        assert schema["additionalProperties"] is False
        assert schema["required"] == list(schema["properties"])
        assert not [name for name, part in schema["properties"].items() if "default" in part]


def test_what_may_be_left_out_can_still_be_said_to_be_nothing():
    schema = response_format(replies.CountQA)["json_schema"]["schema"]["$defs"]["CountAnswer"]
    assert "note" in schema["required"]
    assert {"type": "null"} in schema["properties"]["note"]["anyOf"]
    assert (
        replies.CountAnswer.model_validate({"label": "cup", "count": 1, "note": None}).note is None
    )


@pytest.mark.parametrize(
    ("reply", "order"),
    [
        (replies.Span, ["what_changed", "start_s", "end_s", "label"]),
        (replies.Relabel, ["what_changed", "label"]),
        (replies.TaskFromVideo, ["what_changed", "task"]),
        (replies.Verdict, ["why", "same"]),
        (replies.SpatialAnswer, ["subject", "object", "relation"]),
        (replies.SpatialQA, ["answer", "question"]),
        (replies.CountQA, ["locations", "answer", "question"]),
        (replies.BboxQA, ["answer", "question"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_evidence_is_written_before_the_conclusion(reply, order):
    schema = response_format(reply)["json_schema"]["schema"]
    assert schema["required"] == order


def test_a_reply_without_evidence_is_accepted_and_long_evidence_is_cut():
    assert replies.Relabel.model_validate({"label": "lift the lid"}).what_changed == ""
    long = replies.Verdict.model_validate({"why": "x" * 500, "same": True})
    assert len(long.why) == replies.MAX_EVIDENCE_CHARS


def test_labels_have_no_full_stop_and_long_ones_are_a_complaint():
    assert replies.Relabel.model_validate({"label": "lift the lid."}).label == "lift the lid"
    eight = "put the red cup on the wooden tray"
    assert replies.Relabel.model_validate({"label": eight}).complaint() == ""
    nine = replies.Segmentation.model_validate(
        {"subtasks": [{"start_s": 0, "end_s": 1, "label": f"{eight} slowly"}]}
    )
    assert f"longer: {eight} slowly" in nine.complaint()


@pytest.mark.parametrize(
    ("label", "short"),
    [
        ("lift the lid", "lift the lid"),
        ("put the red cup on the wooden tray slowly", "put the red cup on the wooden tray"),
        ("pick up the big red cup and the blue one", "pick up the big red cup"),
    ],
)
def test_long_labels_are_cut_at_a_word_boundary(label, short):
    assert replies.shorten_label(label) == short


def test_a_label_of_very_many_characters_is_cut_not_rejected():
    label = replies.Relabel.model_validate({"label": "lift the lid and " * 20}).label
    assert len(label) <= replies.MAX_LABEL_CHARS
    assert not label.endswith(" ")


@pytest.mark.parametrize(
    "value",
    [
        {"startS": 0, "endS": 1, "label": "lift it"},
        {"START_S": 0, "End s": 1, "Label": "lift it"},
        {"what_changed": None, "start-s": 0, "end_s": 1, "label": "lift it"},
    ],
)
def test_fields_in_another_spelling_and_null_evidence_are_read(value):
    span = replies.Span.model_validate(value)
    assert span.model_dump() == {"what_changed": "", "start_s": 0, "end_s": 1, "label": "lift it"}


def test_a_field_in_another_spelling_never_replaces_the_field_itself():
    value = {"start_s": 0, "end_s": 1, "END_S": 9, "label": "lift it"}
    assert replies.Span.model_validate(value).end_s == 1


def test_choices_in_another_spelling_are_read():
    spatial = {"subject": "cup", "object": "plate", "relation": "Left of"}
    assert replies.SpatialAnswer.model_validate(spatial).relation == "left_of"
    assert replies.SubtaskVerdict.model_validate({"complete": "Cannot tell."}).complete == (
        "cannot_tell"
    )
    box = {"label": "cup", "bbox_format": "XYXY", "bbox": [1, 2, 3, 4]}
    assert replies.BboxAnswer.model_validate({"detections": box}).detections[0].label == "cup"
    with pytest.raises(ValidationError):
        replies.Detection.model_validate({**box, "bbox_format": "xywh"})
