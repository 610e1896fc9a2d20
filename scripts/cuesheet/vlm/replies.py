"""Pydantic models of every reply that is requested from a VLM.

Their JSON schema is sent to the server as `response_format`. The order of the fields is the order
in which the model writes them: evidence before conclusions. Every string and list is bounded, or a
weak model would never stop writing; texts are one line, stripped and not empty.

A schema allows a text of spaces alone, so such a reply is invalid and requested again. `pattern`
could exclude it, but xgrammar, the grammar library of vLLM and SGLang, ignores the bounds of a text
with a pattern, and its version 0.2.8 cannot compile a schema with patterns of different lengths.
For a similar reason, lists have no `uniqueItems`.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    create_model,
    model_validator,
)

from cuesheet.config.vocabulary import MAX_LABEL_WORDS
from cuesheet.vlm.coordinate_forms import as_box, as_point

# Control, private and unassigned characters, lone surrogates, and line separators: useless in a
# sentence, and harmful in a list with one subtask per line.
_UNWANTED = frozenset({"Cc", "Co", "Cn", "Cs", "Zl", "Zp"})


def _one_line(value: object) -> object:
    if not isinstance(value, str) or (value.isascii() and value.isprintable()):
        return value
    return "".join(" " if unicodedata.category(char) in _UNWANTED else char for char in value)


def _bounded(max_length: int, min_length: int = 1) -> StringConstraints:
    return StringConstraints(strip_whitespace=True, min_length=min_length, max_length=max_length)


def _clip_evidence(value: object) -> object:
    value = "" if value is None else _one_line(value)
    return value.strip()[:MAX_EVIDENCE_CHARS].rstrip() if isinstance(value, str) else value


def _clip_label(value: object) -> object:
    """Cut a label of too many characters at a word boundary; it has too many words as well."""
    if not isinstance(value, str) or len(value) <= MAX_LABEL_CHARS:
        return value
    return value[:MAX_LABEL_CHARS].rpartition(" ")[0] or value


def _without_full_stop(label: str) -> str:
    return label.rstrip(" .") or label


def _as_choice(value: object) -> object:
    """Read one of several words although it has other case, spaces or hyphens."""
    if not isinstance(value, str):
        return value
    return re.sub(r"[\s-]+", "_", value.strip(" .").lower())


def _as_list(value: object) -> object:
    return [value] if isinstance(value, dict) else value


def _plain_name(name: object) -> str:
    return re.sub(r"[\W_]", "", str(name)).lower()


def _as_seconds(value: object) -> object:
    """Read a time that is written as text: "1.5 s", "00:07.5"."""
    if not isinstance(value, str):
        return value
    if match := re.fullmatch(r"\s*(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)\s*", value):
        return 3600 * int(match[1] or 0) + 60 * int(match[2]) + float(match[3])
    return re.sub(r"(?<=\d)\s*s(?:ec(?:onds?)?)?\s*$", "", value)


MAX_EVIDENCE_CHARS = 240
MAX_LABEL_CHARS = 120
MAX_MEMORY_SENTENCES = 2
_CONNECTING_WORDS = frozenset(
    {"a", "an", "the", "and", "or", "of", "to", "in", "into", "on", "onto", "with", "from", "by"}
    | {"at", "for", "its", "their", "until", "while", "then"}
)

Label = Annotated[str, _bounded(MAX_LABEL_CHARS), BeforeValidator(_one_line)]
StepLabel = Annotated[Label, BeforeValidator(_clip_label), AfterValidator(_without_full_stop)]
# What a conclusion is based on. Servers must write it; a reply without it is accepted.
Evidence = Annotated[
    str, StringConstraints(max_length=MAX_EVIDENCE_CHARS), BeforeValidator(_clip_evidence)
]
Sentence = Annotated[str, _bounded(300), BeforeValidator(_one_line)]
Paragraph = Annotated[str, _bounded(800), BeforeValidator(_one_line)]
OptionalParagraph = Annotated[str, _bounded(800, min_length=0), BeforeValidator(_one_line)]
Note = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=200), BeforeValidator(_one_line)
]
# Bounds far beyond any episode and any image: without them a grammar allows 7E3007.
Seconds = Annotated[float, Field(ge=0, le=1_000_000), BeforeValidator(_as_seconds)]
Judgement = Annotated[Literal["yes", "no", "cannot_tell"], BeforeValidator(_as_choice)]
Coordinate = Annotated[float, Field(ge=-1_000_000, le=1_000_000)]


class Reply(BaseModel):
    """A reply. Unknown keys are ignored; wrong types and numbers that are not finite are errors."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _other_spellings(cls, value: Any) -> Any:
        """Accept names of fields in other case, or with other separators: startS, START_S."""
        if not isinstance(value, dict) or cls.model_fields.keys() <= value.keys():
            return value
        missing = {_plain_name(field): field for field in cls.model_fields if field not in value}
        return {missing.get(_plain_name(key), key): item for key, item in value.items()}

    def complaint(self) -> str:
        """Return why the model should correct a valid reply, in words for the model; or ""."""
        return ""


class SceneEvent(Reply):
    at_s: Seconds
    what: Sentence


class Description(Reply):
    scene: Paragraph
    events: list[SceneEvent] = Field(max_length=40)


class Span(Reply):
    what_changed: Evidence = ""
    start_s: Seconds
    end_s: Seconds
    label: StepLabel


class Segmentation(Reply):
    subtasks: list[Span] = Field(min_length=1, max_length=64)

    def complaint(self) -> str:
        return long_labels([span.label for span in self.subtasks])


class Relabel(Reply):
    what_changed: Evidence = ""
    label: StepLabel

    def complaint(self) -> str:
        return long_labels([self.label])


def candidates() -> Any:
    """Return the field of several labels. Servers must write two; a reply with one is accepted."""
    return Field(min_length=1, max_length=8, json_schema_extra={"minItems": 2})


class LabelCandidates(Reply):
    """Several labels of one segment."""

    what_changed: Evidence = ""
    labels: list[StepLabel] = candidates()

    def complaint(self) -> str:
        if len({label.casefold() for label in self.labels}) < 2:
            return "labels has several different labels, but this has only one"
        return long_labels(self.labels)


class LabelChoice(Reply):
    """The number of the best of several labels, from 1."""

    why: Evidence = ""
    number: int = Field(ge=1, le=8)


class CompletedEvent(Reply):
    what_changed: Evidence = ""
    at_s: Seconds
    label: StepLabel


class CompletedEvents(Reply):
    """The events of the second look, each at the time at which it is complete."""

    events: list[CompletedEvent] = Field(max_length=32)

    def complaint(self) -> str:
        return long_labels([event.label for event in self.events])


class Memory(Reply):
    memory: Paragraph

    def complaint(self) -> str:
        count = len(_sentences(self.memory))
        if count <= MAX_MEMORY_SENTENCES:
            return ""
        return f"memory has at most {MAX_MEMORY_SENTENCES} sentences, but this has {count}"


class Rephrasings(Reply):
    rephrasings: list[Sentence] = Field(min_length=1, max_length=64)


class AxisRephrasings(Reply):
    synonym: list[Sentence] = Field(max_length=16)
    omit_arm: list[Sentence] = Field(max_length=16)
    omit_orientation: list[Sentence] = Field(max_length=16)
    omit_grasp: list[Sentence] = Field(max_length=16)
    combined: list[Sentence] = Field(max_length=16)


class TaskFromVideo(Reply):
    what_changed: Evidence = ""
    task: Sentence


class Acknowledgement(Reply):
    speech: Sentence


class Interjection(Reply):
    interjection: Sentence
    speech: Sentence


class Verdict(Reply):
    """Whether two labels mean the same."""

    why: Evidence = ""
    same: bool


class SubtaskVerdict(Reply):
    """Whether a subtask is complete in its last image."""

    why: Evidence = ""
    complete: Judgement


class EpisodeVerdict(Reply):
    """Whether the task was achieved, and whether a step failed and was tried again."""

    why: Evidence = ""
    achieved: Judgement
    retried: bool


class Detection(Reply):
    label: Label
    bbox_format: Annotated[Literal["xyxy"], BeforeValidator(_as_choice)]
    bbox: Annotated[list[Coordinate], BeforeValidator(as_box)] = Field(min_length=4, max_length=4)

    @model_validator(mode="before")
    @classmethod
    def _native_key(cls, value: Any) -> Any:
        """Accept the key with which Qwen models write boxes of corners."""
        if isinstance(value, dict) and "bbox" not in value and "bbox_2d" in value:
            return {"bbox_format": "xyxy", **value, "bbox": value["bbox_2d"]}
        return value


class BboxAnswer(Reply):
    detections: Annotated[list[Detection], BeforeValidator(_as_list)] = Field(
        min_length=1, max_length=16
    )


class KeypointAnswer(Reply):
    label: Label
    point_format: Annotated[Literal["xy"], BeforeValidator(_as_choice)]
    point: Annotated[list[Coordinate], BeforeValidator(as_point)] = Field(
        min_length=2, max_length=2
    )


class CountAnswer(Reply):
    label: Label
    count: int = Field(ge=0, le=1000)
    note: Annotated[Note | None, AfterValidator(lambda note: note or None)] = None


class AttributeAnswer(Reply):
    label: Label
    attribute: Label
    value: Label


Relation = Annotated[
    Literal["left_of", "right_of", "on", "in", "above", "below", "near"],
    BeforeValidator(_as_choice),
]


class SpatialAnswer(Reply):
    subject: Label
    object: Label
    relation: Relation


class BboxQA(Reply):
    answer: BboxAnswer
    question: Sentence


class KeypointQA(Reply):
    answer: KeypointAnswer
    question: Sentence


class CountQA(Reply):
    locations: Evidence = ""
    answer: CountAnswer
    question: Sentence


class AttributeQA(Reply):
    answer: AttributeAnswer
    question: Sentence


class SpatialQA(Reply):
    answer: SpatialAnswer
    question: Sentence


QuestionAndAnswer = BboxQA | KeypointQA | CountQA | AttributeQA | SpatialQA
VQA_REPLIES: dict[str, type[QuestionAndAnswer]] = {
    "bbox": BboxQA,
    "keypoint": KeypointQA,
    "count": CountQA,
    "attribute": AttributeQA,
    "spatial": SpatialQA,
}


@cache
def visual_questions(types: tuple[str, ...]) -> type[Reply]:
    """Return the model of a reply with one question and answer per type, named after the types."""
    fields: dict[str, Any] = {
        question_type: (VQA_REPLIES[question_type], ...) for question_type in types
    }
    return create_model("VisualQuestions", __base__=Reply, **fields)


def long_labels(labels: Sequence[str]) -> str:
    """Return the complaint about labels with too many words; "" if there are none."""
    long = [label for label in labels if len(label.split()) > MAX_LABEL_WORDS]
    if not long:
        return ""
    return f"a label has at most {MAX_LABEL_WORDS} words, but these are longer: {'; '.join(long)}"


def _sentences(text: str) -> list[str]:
    return re.findall(r".+?(?:[.!?](?=\s|$)|[\u3002\uff01\uff1f]|$)\s*", text)


def first_sentences(text: str, count: int) -> str:
    """Return the first `count` sentences of a text."""
    return "".join(_sentences(text)[:count]).strip()


def shorten_label(label: str) -> str:
    """Cut a label after its eighth word, without a connecting word at the end."""
    words = label.split()
    if len(words) <= MAX_LABEL_WORDS:
        return label
    words = words[:MAX_LABEL_WORDS]
    while len(words) > 1 and words[-1].lower().strip(",;") in _CONNECTING_WORDS:
        words.pop()
    return " ".join(words).rstrip(" ,;:.")
