"""Checks of one VQA answer against its type and its frame."""

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

from cuesheet.vlm.replies import Relation

RELATIONS = get_args(Relation)
Error = Callable[[str, str], None]


def check_answer(
    question_type: str, answer: Mapping[str, Any], size: tuple[int, int] | None, error: Error
) -> None:
    """Reports what is wrong with an answer through `error(code, message)`.

    Args:
        question_type: bbox, keypoint, count, attribute or spatial.
        answer: the answer's JSON object.
        size: width and height of the source frame in pixels; None where unknown.
        error: called once for every problem.
    """
    check = _CHECKS.get(question_type)
    if check is None:
        error(
            "vqa_type_unknown", f"question type {question_type!r}; known are {', '.join(_CHECKS)}."
        )
    else:
        check(answer, size, error)


def _has_keys(
    value: Any, keys: set[str], error: Error, what: str, optional: frozenset[str] = frozenset()
) -> bool:
    if isinstance(value, Mapping) and keys <= set(value) <= keys | optional:
        return True
    found = sorted(value) if isinstance(value, Mapping) else type(value).__name__
    error("vqa_answer_type", f"{what} has the keys {sorted(keys)}; found {found}.")
    return False


def _check_text(value: Any, name: str, error: Error) -> None:
    if not isinstance(value, str):
        error("vqa_answer_type", f"{name} is {value!r}; expected a text.")
    elif not value.strip():
        error("empty_text", f"{name} is empty.")


def _are_numbers(value: Any, count: int, name: str, error: Error) -> bool:
    numbers = isinstance(value, list) and all(
        isinstance(item, int | float) and not isinstance(item, bool) for item in value
    )
    if not numbers or len(value) != count:
        error("vqa_answer_type", f"{name} is {value!r}; expected {count} numbers.")
        return False
    if not all(math.isfinite(item) for item in value):
        error("vqa_number_not_finite", f"{name} is {value!r}; expected finite numbers.")
        return False
    return True


def _check_bbox(answer: Mapping[str, Any], size: tuple[int, int] | None, error: Error) -> None:
    if not _has_keys(answer, {"detections"}, error, "a bbox answer"):
        return
    detections = answer["detections"]
    if not isinstance(detections, list) or not detections:
        error("vqa_answer_type", f"detections is {detections!r}; expected at least one.")
        return
    for item in detections:
        if not _has_keys(item, {"label", "bbox_format", "bbox"}, error, "a detection"):
            continue
        _check_text(item["label"], "a detection's label", error)
        if item["bbox_format"] != "xyxy":
            error("vqa_answer_type", f"bbox_format is {item['bbox_format']!r}; expected 'xyxy'.")
        elif _are_numbers(item["bbox"], 4, "bbox", error):
            _check_box(item["bbox"], size, error)


def _check_box(box: list[float], size: tuple[int, int] | None, error: Error) -> None:
    x_min, y_min, x_max, y_max = box
    if x_min > x_max or y_min > y_max:
        error("vqa_box_not_ordered", f"bbox {box}: x_min, y_min must come before x_max, y_max.")
    elif x_min == x_max or y_min == y_max:
        error("vqa_box_empty", f"bbox {box} has no area.")
    if size and not _inside(size, x_min, y_min, x_max, y_max):
        error("vqa_box_outside", f"bbox {box} leaves the frame of {size[0]} x {size[1]} pixels.")


def _inside(size: tuple[int, int], *coordinates: float) -> bool:
    xs, ys = coordinates[::2], coordinates[1::2]
    return all(0 <= x <= size[0] for x in xs) and all(0 <= y <= size[1] for y in ys)


def _check_keypoint(answer: Mapping[str, Any], size: tuple[int, int] | None, error: Error) -> None:
    if not _has_keys(answer, {"label", "point_format", "point"}, error, "a keypoint answer"):
        return
    _check_text(answer["label"], "label", error)
    point = answer["point"]
    if answer["point_format"] != "xy":
        error("vqa_answer_type", f"point_format is {answer['point_format']!r}; expected 'xy'.")
    elif _are_numbers(point, 2, "point", error) and size and not _inside(size, *point):
        error("vqa_point_outside", f"point {point} is not in the frame of {size[0]} x {size[1]}.")


def _check_count(answer: Mapping[str, Any], size: tuple[int, int] | None, error: Error) -> None:
    optional = frozenset({"note"})
    if not _has_keys(answer, {"label", "count"}, error, "a count answer", optional):
        return
    _check_text(answer["label"], "label", error)
    if answer.get("note") is not None:
        _check_text(answer["note"], "note", error)
    count = answer["count"]
    if isinstance(count, float) and not math.isfinite(count):
        error("vqa_number_not_finite", f"count is {count!r}.")
    elif not isinstance(count, int) or isinstance(count, bool) or count < 0:
        error("vqa_count_not_whole", f"count is {count!r}; expected a whole number, 0 or more.")


def _check_attribute(answer: Mapping[str, Any], size: tuple[int, int] | None, error: Error) -> None:
    if _has_keys(answer, {"label", "attribute", "value"}, error, "an attribute answer"):
        for name in ("label", "attribute", "value"):
            _check_text(answer[name], name, error)


def _check_spatial(answer: Mapping[str, Any], size: tuple[int, int] | None, error: Error) -> None:
    if not _has_keys(answer, {"subject", "relation", "object"}, error, "a spatial answer"):
        return
    _check_text(answer["subject"], "subject", error)
    _check_text(answer["object"], "object", error)
    if answer["relation"] not in RELATIONS:
        error(
            "vqa_relation_unknown",
            f"relation {answer['relation']!r}; known are {', '.join(RELATIONS)}.",
        )


_CHECKS: Mapping[str, Callable[[Mapping[str, Any], tuple[int, int] | None, Error], None]] = {
    "bbox": _check_bbox,
    "keypoint": _check_keypoint,
    "count": _check_count,
    "attribute": _check_attribute,
    "spatial": _check_spatial,
}
