"""Pydantic models of every reply that a VLM is asked for.

Their JSON schema goes to the server as `response_format`. Every string and list is bounded, or a
weak model would write for ever inside the schema; texts are one line, stripped and never empty.
"""

import unicodedata
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
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
