"""Checks of VQA rows: one question and one answer per frame and camera, valid for the frame.

Coordinates are pixels of the source frame, measured from its top left corner: the frame spans
[0, width] x [0, height].
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.language import LanguageRow
from cuesheet.artifacts.stage_files import ValidationFile, VqaPair
from cuesheet.vlm.vqa_answers import check_answer


@dataclass(frozen=True)
class PlacedRow:
    """A row with its column, its place in the files, and its frame (None: on no frame)."""

    row: LanguageRow
    column: str
    label: str
    frame_index: int | None


def check_vqa(
    report: ValidationFile, events: Sequence[PlacedRow], pairs: Sequence[VqaPair], episode: Episode
) -> None:
    """Report what is wrong with `events`, the rows of style "vqa", and the file's list of pairs."""
    decoded = {
        camera: {frame.frame_index for frame in keyframes}
        for camera, keyframes in episode.keyframes.items()
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
    # A row on no frame is reported elsewhere; its partner is not reported again.
    all_placed = all(event.frame_index is not None for event in events)
    for (frame_index, camera), placed in _by_frame_and_camera(events).items():
        label, at = placed[0].label, f"frame {frame_index} of {camera}"
        if camera is None:
            continue  # reported as a row without camera
        if frame_index not in decoded.get(camera, ()):
            report.error(
                "vqa_frame_not_decoded", label, f"{at} was not decoded, so no model has seen it."
            )
        expected = listed.pop((frame_index, camera), None)
        roles = [item.row.role for item in placed]
        if roles.count("user") > 1 or roles.count("assistant") > 1:
            report.error("vqa_pair_twice", placed[-1].label, f"{at} has more than one pair.")
            continue
        if len(placed) == 1:
            missing = "answer" if roles == ["user"] else "question"
            if all_placed:
                report.error("vqa_unpaired", label, f"{at} has no {missing} for this row.")
            continue
        question = next((item for item in placed if item.row.role == "user"), None)
        answer = next((item for item in placed if item.row.role == "assistant"), None)
        if question is None or answer is None:
            continue  # reported as a wrong role
        if expected is None:
            report.error("vqa_pairs_disagree", label, f"{at} is not in the file's list of pairs.")
        else:
            _check_pair(report, question, answer, expected, episode)
    for pair in listed.values() if all_placed else ():
        report.error(
            "vqa_pairs_disagree",
            "vqa pairs",
            f"the pair of frame {pair.frame_index} of {pair.camera} has no rows.",
        )


def _by_frame_and_camera(
    events: Sequence[PlacedRow],
) -> dict[tuple[int, str | None], list[PlacedRow]]:
    groups: dict[tuple[int, str | None], list[PlacedRow]] = {}
    for event in events:
        if event.frame_index is not None:
            groups.setdefault((event.frame_index, event.row.camera), []).append(event)
    return groups


def _check_pair(
    report: ValidationFile, question: PlacedRow, answer: PlacedRow, pair: VqaPair, episode: Episode
) -> None:
    text = answer.row.content
    if not text or not (question.row.content or "").strip():
        return  # reported as empty text
    try:
        value = json.loads(text)
    except ValueError as error:
        report.error("vqa_answer_not_json", answer.label, f"the answer is not JSON: {error}.")
        return
    if not isinstance(value, dict):
        report.error("vqa_answer_not_json", answer.label, f"the answer is not an object: {text}")
        return
    if json.dumps(value) != _plain(value):
        report.error("vqa_keys_not_sorted", answer.label, "the answer's keys are not sorted.")
    same = _plain(value) == _plain(pair.answer) and question.row.content == pair.question
    if not same:
        report.error(
            "vqa_pairs_disagree", answer.label, "the rows differ from the file's list of pairs."
        )
    size = episode.cameras.get(pair.camera)
    for problem in check_answer(pair.type, value, (size.width, size.height) if size else None):
        report.error(problem.code, answer.label, problem.message)


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
