"""Checks of VQA rows: one question and one answer a frame and camera, true to form and frame.

Coordinates are pixels of the source frame, measured from its top left corner: the frame spans
[0, width] x [0, height].
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, get_args

from cuesheet.replies import Relation
from cuesheet.stage_files import KeyframesFile, LanguageRow, VqaPair

RELATIONS = get_args(Relation)
Error = Callable[[str, str], None]  # code, message


class Placed(Protocol):
    """A row, its place in the files and its frame (None: on no frame)."""

    row: LanguageRow
    where: str
    frame_index: int | None


class Reporter(Protocol):
    def error(self, code: str, where: str, message: str) -> None: ...


def check_vqa(
    report: Reporter, events: Sequence[Placed], pairs: Sequence[VqaPair], frames: KeyframesFile
) -> None:
    """Reports what is wrong with the VQA events of one episode.

    Args:
        report: where errors go.
        events: the rows of style "vqa".
        pairs: the list that names each pair's frame, camera, question type and answer.
        frames: the decoded keyframes and the cameras' frame sizes.
    """
    decoded = {
        camera: {frame.frame_index for frame in keyframes}
        for camera, keyframes in frames.keyframes.items()
    }
    listed: dict[tuple[int, str | None], VqaPair] = {}
    for number, pair in enumerate(pairs):
        key = (pair.frame_index, pair.camera)
        if key in listed:
            report.error(
                "vqa_pair_twice",
                f"vqa pair {number}",
                f"a second pair for frame {pair.frame_index} of {pair.camera}; at most one.",
            )
        listed.setdefault(key, pair)
    # A row that is on no frame is an error of its own; its partner is not one more.
    all_placed = all(event.frame_index is not None for event in events)
    for (frame_index, camera), placed in _by_frame_and_camera(events).items():
        where, at = placed[0].where, f"frame {frame_index} of {camera}"
        if camera is None:
            continue  # reported as a row without camera
        if frame_index not in decoded.get(camera, ()):
            report.error(
                "vqa_frame_not_decoded", where, f"{at} was not decoded, so no model has seen it."
            )
        pair = listed.pop((frame_index, camera), None)
        roles = [item.row.role for item in placed]
        if roles.count("user") > 1 or roles.count("assistant") > 1:
            report.error("vqa_pair_twice", placed[-1].where, f"{at} has more than one pair.")
            continue
        if len(placed) == 1:
            missing = "answer" if roles == ["user"] else "question"
            if all_placed:
                report.error("vqa_unpaired", where, f"{at} has no {missing} to this row.")
            continue
        question = next((item for item in placed if item.row.role == "user"), None)
        answer = next((item for item in placed if item.row.role == "assistant"), None)
        if question is None or answer is None:
            continue  # reported as a wrong role
        if pair is None:
            report.error("vqa_pairs_disagree", where, f"{at} is not in the file's list of pairs.")
        else:
            _check_pair(report, question, answer, pair, frames)
    for pair in listed.values() if all_placed else ():
        report.error(
            "vqa_pairs_disagree",
            "vqa pairs",
            f"the pair of frame {pair.frame_index} of {pair.camera} has no rows.",
        )


def _by_frame_and_camera(
    events: Sequence[Placed],
) -> dict[tuple[int, str | None], list[Placed]]:
    groups: dict[tuple[int, str | None], list[Placed]] = {}
    for event in events:
        if event.frame_index is not None:
            groups.setdefault((event.frame_index, event.row.camera), []).append(event)
    return groups


def _check_pair(
    report: Reporter, question: Placed, answer: Placed, pair: VqaPair, frames: KeyframesFile
) -> None:
    text = answer.row.content
    if not text or not (question.row.content or "").strip():
        return  # reported as empty text
    try:
        value = json.loads(text)
    except ValueError as error:
        report.error("vqa_answer_not_json", answer.where, f"the answer is not JSON: {error}.")
        return
    if not isinstance(value, dict):
        report.error("vqa_answer_not_json", answer.where, f"the answer is no JSON object: {text}")
        return
    if json.dumps(value) != _plain(value):
        report.error("vqa_keys_not_sorted", answer.where, "the answer's keys are not in order.")
    same = _plain(value) == _plain(pair.answer) and question.row.content == pair.question
    if not same:
        report.error(
            "vqa_pairs_disagree", answer.where, "the rows differ from the file's list of pairs."
        )
    size = frames.cameras.get(pair.camera)
    check_answer(
        pair.type,
        value,
        (size.width, size.height) if size else None,
        lambda code, message: report.error(code, answer.where, message),
    )


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


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
