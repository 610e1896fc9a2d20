"""Corrections by people: files that override the model's annotations of an episode.

`{folder}/{episode}.json` or `.csv`, in one folder per dataset. docs/corrections.md defines the
format. Everything that can be checked without frames is checked when a run starts.
"""

import csv
import io
import itertools
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from cuesheet.errors import CuesheetError
from cuesheet.vlm.replies import VQA_REPLIES, Label, OptionalParagraph, Sentence
from cuesheet.vlm.vqa_answers import check_answer

FORMAT = 1

_NAME = re.compile(r"\d{6}")
_CSV_COLUMNS = ("start", "end", "text")
SEE = "docs/corrections.md describes the format."


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Span(_Exact):
    """A subtask in seconds from the episode's first frame; `end_s` None: until the next starts.

    `memory` is the memory at its start: None leaves it to the model, "" writes none.
    """

    start_s: Annotated[FiniteFloat, Field(ge=0)]
    end_s: FiniteFloat | None = None
    label: Label
    memory: OptionalParagraph | None = None


class InterjectionCorrection(_Exact):
    """An interjection and the robot's reply; only the first frame may have speech alone."""

    time_s: Annotated[FiniteFloat, Field(ge=0)]
    interjection: Sentence | None = None
    speech: Sentence


class VqaCorrection(_Exact):
    """Deletes the pair of a frame and camera, or replaces it by `question` and `answer`."""

    frame_index: Annotated[int, Field(ge=0)]
    camera: str
    type: Literal["bbox", "keypoint", "count", "attribute", "spatial"]
    delete: bool = False
    question: Sentence | None = None
    answer: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _delete_or_replace(self) -> "VqaCorrection":
        given = (self.question is not None, self.answer is not None)
        if given != ((False, False) if self.delete else (True, True)):
            raise ValueError('expected either "delete": true, or a question and an answer')
        if self.answer is not None:
            problems = check_answer(self.type, self.answer, None)
            if problems:
                raise ValueError(problems[0].message)
            read = VQA_REPLIES[self.type].model_validate(
                {"question": self.question, "answer": self.answer}
            )
            self.answer = read.answer.model_dump(exclude_none=True)
        return self


class Correction(_Exact):
    """The corrections of one episode. `length`: number of frames when it was corrected.

    Lists that are None are left to the model; `done` and `reviewer` are for reviewers only.
    """

    format: Literal[1]
    dataset: str
    episode_index: Annotated[int, Field(ge=0)]
    length: Annotated[int, Field(ge=1)] | None = None
    subtasks: Annotated[list[Span], Field(min_length=1)] | None = None
    rephrasings: list[Sentence] | None = None
    interjections: list[InterjectionCorrection] | None = None
    vqa: list[VqaCorrection] | None = None
    verdict: Literal["good", "bad"] | None = None
    note: str | None = None
    done: bool = False
    reviewer: Annotated[str, Field(max_length=80)] | None = None

    @model_validator(mode="after")
    def _entries_agree(self) -> "Correction":
        if self.subtasks and self.subtasks[0].memory:
            raise ValueError(
                "subtasks.0 has a memory, but nothing has happened before the first subtask; "
                "remove the key"
            )
        seen: set[tuple[int, str]] = set()
        for entry in self.vqa or ():
            key = (entry.frame_index, entry.camera)
            if key in seen:
                raise ValueError(f"vqa has two entries for frame {key[0]} of {key[1]}")
            seen.add(key)
        return self


def files_below(folder: Path) -> dict[int, Path]:
    """Return the correction file of each episode in a dataset's folder.

    Raises CuesheetError if a name is not that of an episode, or if an episode has two files.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix not in (".json", ".csv") or path.name.startswith("."):
            continue
        if not _NAME.fullmatch(path.stem):
            raise CuesheetError(
                f"{path}: expected an episode's number in six digits as the file's name, such as "
                f"000003{path.suffix}"
            )
        if int(path.stem) in found:
            raise CuesheetError(
                f"{found[int(path.stem)]} and {path} correct the same episode; keep one of them"
            )
        found[int(path.stem)] = path
    return found


def read_correction(path: Path, dataset_name: str) -> Correction:
    """Read a correction file, JSON or CSV, and check it against its own path.

    Raises CuesheetError if it cannot be read, or its content is not a valid correction.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CuesheetError(f"{path} cannot be read: {error.strerror}") from None
    value = decode_correction(data, path, dataset_name)
    try:
        return parse_correction(value, dataset_name, int(path.stem))
    except CuesheetError as error:
        raise CuesheetError(f"{path}: {error}") from None


def decode_correction(data: bytes, path: Path, dataset_name: str) -> dict[str, Any]:
    """Return the content of a correction file as a JSON object that is not validated yet.

    A CSV file (by the suffix of `path`) does not contain the name of its dataset. Raises
    CuesheetError if the file is neither JSON nor a CSV table of subtasks.
    """
    try:
        text = data.decode("utf-8-sig")
        if path.suffix == ".csv":
            head = {"format": FORMAT, "dataset": dataset_name, "episode_index": int(path.stem)}
            return {**head, "subtasks": _csv_spans(text)}
        value = json.loads(text)
    except CuesheetError as error:
        raise CuesheetError(f"{path}: {error}") from None
    except UnicodeDecodeError as error:
        raise CuesheetError(f"{path} is not UTF-8 text: {error}") from None
    except (ValueError, RecursionError) as error:
        raise CuesheetError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise CuesheetError(f"{path} contains a JSON {type(value).__name__}; expected an object")
    return value


def parse_correction(value: Any, dataset_name: str, episode_index: int) -> Correction:
    """Validate the content of an episode's file. Raises CuesheetError if it is not valid."""
    try:
        correction = Correction.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise CuesheetError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
    if (correction.dataset, correction.episode_index) != (dataset_name, episode_index):
        raise CuesheetError(
            f"the content is for episode {correction.episode_index} of {correction.dataset!r}, but "
            f"the path is that of episode {episode_index} of {dataset_name!r}"
        )
    return correction


def check_correction(
    correction: Correction, length: int, fps: float, cameras: Collection[str]
) -> None:
    """Raise CuesheetError if a correction does not fit the metadata of its episode."""
    _check_times(correction.subtasks or [], length, fps)
    _check_interjections(correction.interjections or [], length, fps)
    _check_frames(correction, length, cameras)


def _csv_spans(text: str) -> list[dict[str, Any]]:
    """Return the subtasks of a CSV table with the columns start, end (optional) and text.

    The delimiter is a comma or a semicolon. Spaces after a delimiter are ignored.
    """
    header = text.split("\n", 1)[0]
    delimiter = ";" if ";" in header else ","
    rows = csv.DictReader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    names = [name.strip() for name in rows.fieldnames or []]
    if not {"start", "text"} <= set(names) <= set(_CSV_COLUMNS):
        raise CuesheetError(
            f"the first line is {header.strip()!r}; expected the columns {', '.join(_CSV_COLUMNS)}"
        )
    rows.fieldnames = names
    spans = []
    for row in rows:
        if row.get(None):
            raise CuesheetError(
                f"line {rows.line_num} has more than {len(names)} values; put a text that contains "
                f"{delimiter!r} in double quotes"
            )
        try:
            span = {"start_s": float(row["start"]), "label": (row["text"] or "").strip()}
            if (row.get("end") or "").strip():
                span["end_s"] = float(row["end"])
        except (TypeError, ValueError):
            found = f"start {row['start']!r}, end {row.get('end')!r}"
            raise CuesheetError(
                f"line {rows.line_num}: {found}; expected times in seconds, such as 2.5"
            ) from None
        spans.append(span)
    return spans


def _check_times(spans: Sequence[Span], length: int, fps: float) -> None:
    """Check subtasks as far as possible without the timestamps of the frames."""
    if not spans:
        return
    half_s, end_s = 0.5 / fps + 1e-6, length / fps
    if spans[0].start_s > half_s:
        raise CuesheetError(
            f"subtasks.0 starts at {spans[0].start_s:g} s; expected 0, the episode's first frame"
        )
    for number, (before, after) in enumerate(itertools.pairwise(spans)):
        if after.start_s - before.start_s < half_s:
            raise CuesheetError(
                f"subtasks.{number + 1} starts at {after.start_s:g} s, less than one frame after "
                f"subtasks.{number}, which starts at {before.start_s:g} s"
            )
        if before.end_s is not None and abs(before.end_s - after.start_s) > half_s:
            raise CuesheetError(
                f"subtasks.{number} ends at {before.end_s:g} s and subtasks.{number + 1} starts "
                f"at {after.start_s:g} s; expected the same time"
            )
    # Timestamps may differ a little from frame_index / fps. The plan stage checks them exactly.
    slack_s = max(1 / fps, 0.01 * end_s)
    last = spans[-1]
    wrong_end = last.end_s is not None and abs(last.end_s - end_s) > slack_s
    if last.start_s >= end_s or wrong_end:
        time_s = last.end_s if wrong_end else last.start_s
        raise CuesheetError(
            f"the last subtask {'ends' if wrong_end else 'starts'} at {time_s:g} s; the episode "
            f"ends at {end_s:g} s ({length} frames)"
        )


def _check_interjections(
    entries: Sequence[InterjectionCorrection], length: int, fps: float
) -> None:
    """Check the times of interjections, which may not be after the last frame."""
    half_s, end_s = 0.5 / fps + 1e-6, length / fps
    for number, entry in enumerate(entries):
        if entry.time_s >= max(1.01 * end_s, end_s + half_s):
            raise CuesheetError(
                f"interjections.{number} is at {entry.time_s:g} s, but the episode ends at "
                f"{end_s:g} s ({length} frames)"
            )
        if entry.interjection is None and entry.time_s > half_s:
            raise CuesheetError(
                f"interjections.{number} at {entry.time_s:g} s has no interjection; only the first "
                "frame may have speech alone"
            )


def _check_frames(correction: Correction, length: int, cameras: Collection[str]) -> None:
    if correction.length not in (None, length):
        raise CuesheetError(
            f"the correction was made for {correction.length} frames; the episode now has "
            f"{length}. If it was recorded again, correct it again; otherwise remove the key "
            "`length`"
        )
    for number, entry in enumerate(correction.vqa or ()):
        if entry.frame_index >= length:
            raise CuesheetError(
                f"vqa.{number}: frame {entry.frame_index} does not exist; the episode has {length} "
                "frames"
            )
        if entry.camera not in cameras:
            raise CuesheetError(
                f"vqa.{number}: camera {entry.camera!r} does not exist; the dataset has "
                f"{', '.join(cameras) or 'none'}"
            )
