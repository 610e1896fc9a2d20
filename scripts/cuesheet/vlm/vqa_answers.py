"""Checks of VQA answers as they are stored: form, numbers and coordinates."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from cuesheet.vlm.replies import VQA_REPLIES, BboxAnswer, KeypointAnswer, Reply


@dataclass(frozen=True)
class AnswerProblem:
    """One defect of a VQA answer: a stable code and a sentence."""

    code: str
    message: str


def check_answer(
    question_type: str, answer: Any, size: tuple[int, int] | None
) -> list[AnswerProblem]:
    """Return the defects of a VQA answer as it is stored; an empty list if it is valid.

    The reply model of the question type is applied strictly: without conversion and without unknown
    keys. Then the coordinates are checked: boxes are ordered and have an area, and nothing is
    outside the frame.

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
    model: Any = VQA_REPLIES[question_type].model_fields["answer"].annotation
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
    if isinstance(answer, KeypointAnswer) and size and not _is_inside(size, answer.point):
        text = f"point {answer.point} is outside the frame of {size[0]} x {size[1]} pixels."
        yield AnswerProblem("vqa_point_outside", text)
    for detection in answer.detections if isinstance(answer, BboxAnswer) else ():
        x_min, y_min, x_max, y_max = box = detection.bbox
        if x_min > x_max or y_min > y_max:
            text = f"bbox {box} is not in the order x_min, y_min, x_max, y_max."
            yield AnswerProblem("vqa_box_not_ordered", text)
        elif x_min == x_max or y_min == y_max:
            yield AnswerProblem("vqa_box_empty", f"bbox {box} has no area.")
        if size and not _is_inside(size, box):
            text = f"bbox {box} is not within the frame of {size[0]} x {size[1]} pixels."
            yield AnswerProblem("vqa_box_outside", text)


def _is_inside(size: tuple[int, int], coordinates: Sequence[float]) -> bool:
    """Tell whether x, y, ... are in the frame, which spans [0, width] x [0, height]."""
    bounds = itertools.cycle(size)
    return all(0 <= value <= bound for value, bound in zip(coordinates, bounds, strict=False))
