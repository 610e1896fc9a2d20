"""Pydantic models of every reply that a VLM is asked for.

Their JSON schema goes to the server as `response_format`. Every string and list is bounded, or a
weak model would write for ever inside the schema; texts are one line, stripped and never empty.
"""

import itertools
import math
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

# Control, private and unassigned characters, lone surrogates, and separators of lines: of no use
# in a sentence, and harmful in a list of one subtask a line or to who reads the dataset.
_UNWANTED = frozenset({"Cc", "Co", "Cn", "Cs", "Zl", "Zp"})


def _one_line(value: object) -> object:
    if not isinstance(value, str) or (value.isascii() and value.isprintable()):
        return value
    return "".join(" " if unicodedata.category(char) in _UNWANTED else char for char in value)


def _text(max_length: int) -> type[str]:
    return Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=max_length),
        BeforeValidator(_one_line),
    ]


Label = _text(120)
Sentence = _text(300)
Paragraph = _text(800)
# Bounds far beyond any episode and any picture: without them a grammar allows 7E3007.
Seconds = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Coordinate = Annotated[float, Field(ge=-1_000_000, le=1_000_000, allow_inf_nan=False)]


class Reply(BaseModel):
    """Unknown keys in a reply are ignored, wrong types are not."""

    model_config = ConfigDict(extra="ignore")


class SceneEvent(Reply):
    at_s: Seconds
    what: Sentence


class Description(Reply):
    scene: Paragraph
    events: list[SceneEvent] = Field(max_length=40)


class Span(Reply):
    start_s: Seconds
    end_s: Seconds
    label: Label


class Segmentation(Reply):
    subtasks: list[Span] = Field(min_length=1, max_length=64)


class Relabel(Reply):
    label: Label


class Memory(Reply):
    memory: Paragraph


class Rephrasings(Reply):
    rephrasings: list[Sentence] = Field(min_length=1, max_length=64)


class AxisRephrasings(Reply):
    synonym: list[Sentence] = Field(max_length=16)
    omit_arm: list[Sentence] = Field(max_length=16)
    omit_orientation: list[Sentence] = Field(max_length=16)
    omit_grasp: list[Sentence] = Field(max_length=16)
    combined: list[Sentence] = Field(max_length=16)


class TaskFromVideo(Reply):
    task: Sentence


class Acknowledgement(Reply):
    speech: Sentence


class Interjection(Reply):
    interjection: Sentence
    speech: Sentence


class Verdict(Reply):
    """Whether two labels mean the same."""

    same: bool


class Detection(Reply):
    label: Label
    bbox_format: Literal["xyxy"]
    bbox: list[Coordinate] = Field(min_length=4, max_length=4)


class BboxAnswer(Reply):
    detections: list[Detection] = Field(min_length=1, max_length=16)


class KeypointAnswer(Reply):
    label: Label
    point_format: Literal["xy"]
    point: list[Coordinate] = Field(min_length=2, max_length=2)


class CountAnswer(Reply):
    label: Label
    count: int = Field(ge=0, le=1000)
    note: (
        Annotated[
            str,
            StringConstraints(strip_whitespace=True, max_length=200),
            BeforeValidator(_one_line),
        ]
        | None
    ) = None

    @field_validator("note")
    @classmethod
    def _empty_is_none(cls, note: str | None) -> str | None:
        return note or None


class AttributeAnswer(Reply):
    label: Label
    attribute: Label
    value: Label


Relation = Literal["left_of", "right_of", "on", "in", "above", "below", "near"]


class SpatialAnswer(Reply):
    subject: Label
    relation: Relation
    object: Label


class BboxQA(Reply):
    question: Sentence
    answer: BboxAnswer


class KeypointQA(Reply):
    question: Sentence
    answer: KeypointAnswer


class CountQA(Reply):
    question: Sentence
    answer: CountAnswer


class AttributeQA(Reply):
    question: Sentence
    answer: AttributeAnswer


class SpatialQA(Reply):
    question: Sentence
    answer: SpatialAnswer


VQA_REPLIES: dict[str, type[Reply]] = {
    "bbox": BboxQA,
    "keypoint": KeypointQA,
    "count": CountQA,
    "attribute": AttributeQA,
    "spatial": SpatialQA,
}


@dataclass(frozen=True)
class AnswerProblem:
    """One defect of a VQA answer: a stable code and a sentence."""

    code: str
    message: str


def check_answer(
    question_type: str, answer: Any, size: tuple[int, int] | None
) -> list[AnswerProblem]:
    """Return what is wrong with a VQA answer as it is stored; an empty list if it is valid.

    The reply model of the question type is applied without its tolerance for replies: no conversion
    and no unknown keys. Then the coordinates are checked: boxes are ordered and have an area, and
    nothing is outside the frame.

    Args:
        question_type: bbox, keypoint, count, attribute or spatial.
        answer: the answer's JSON object.
        size: width and height of the source frame in pixels; None skips the check of the bounds.
    """
    if question_type not in VQA_REPLIES:
        known = ", ".join(VQA_REPLIES)
        return [
            AnswerProblem(
                "vqa_type_unknown", f"question type {question_type!r}; one of {known} is expected."
            )
        ]
    model = VQA_REPLIES[question_type].model_fields["answer"].annotation
    try:
        read = model.model_validate(answer, strict=True, extra="forbid")
    except ValidationError as error:
        return [_as_problem(found) for found in error.errors(include_url=False)]
    if getattr(read, "note", None) is None and answer.get("note") is not None:
        return [AnswerProblem("empty_text", "note is empty; leave it out.")]
    return list(_check_coordinates(read, size))


def _as_problem(error: Mapping[str, Any]) -> AnswerProblem:
    """Translate an error of pydantic into the code of the validation report."""
    place, value = ".".join(map(str, error["loc"])) or "the answer", error["input"]
    message = f"{place}: {error['msg']}; found {value!r}."
    if isinstance(value, float) and not math.isfinite(value):
        return AnswerProblem("vqa_number_not_finite", message)
    if error["type"] == "string_too_short":
        return AnswerProblem("empty_text", f"{place} is empty.")
    if error["type"] != "missing" and place == "count":
        message = f"count is {value!r}; expected a whole number from 0 to 1000."
        return AnswerProblem("vqa_count_not_whole", message)
    code = "vqa_relation_unknown" if place == "relation" else "vqa_answer_type"
    return AnswerProblem(code, message)


def _check_coordinates(answer: Reply, size: tuple[int, int] | None) -> Iterator[AnswerProblem]:
    if isinstance(answer, KeypointAnswer) and not _is_inside(size, *answer.point):
        text = f"point {answer.point} is outside the frame of {size[0]} x {size[1]} pixels."
        yield AnswerProblem("vqa_point_outside", text)
    for detection in answer.detections if isinstance(answer, BboxAnswer) else ():
        x_min, y_min, x_max, y_max = box = detection.bbox
        if x_min > x_max or y_min > y_max:
            text = f"bbox {box} is not in the order x_min, y_min, x_max, y_max."
            yield AnswerProblem("vqa_box_not_ordered", text)
        elif x_min == x_max or y_min == y_max:
            yield AnswerProblem("vqa_box_empty", f"bbox {box} has no area.")
        if not _is_inside(size, *box):
            text = f"bbox {box} is not within the frame of {size[0]} x {size[1]} pixels."
            yield AnswerProblem("vqa_box_outside", text)


def _is_inside(size: tuple[int, int] | None, *coordinates: float) -> bool:
    """Whether x, y, ... are in the frame, which spans [0, width] x [0, height]."""
    bounds = itertools.cycle(size or (math.inf, math.inf))
    low = 0 if size else -math.inf
    return all(low <= value <= bound for value, bound in zip(coordinates, bounds, strict=False))
