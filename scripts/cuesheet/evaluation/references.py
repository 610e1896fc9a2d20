"""Reads the segments and boxes of runs and references. Layouts: docs/evaluation.md.

A reference is a JSON, CSV or Parquet file, or the result folder of a run. Rows of files are checked
by typed models, and an error message names the file and the row.
"""

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from cuesheet.artifacts.results import episode_files
from cuesheet.artifacts.stage_files import read_stage_file
from cuesheet.errors import CuesheetError
from cuesheet.evaluation.granularity import Granularity, Side
from cuesheet.evaluation.segments import Segment

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels

_LAYOUT = (
    "expected rows of episode, start_s, end_s and text, or the layout of WGO-Bench (id, "
    "instruction, segments); see docs/evaluation.md"
)


@dataclass(frozen=True)
class Reference:
    """Segments by episode, and named boxes by episode, camera and frame.

    `granularity`: changes of the segments that the file specifies.
    """

    segments: Mapping[int, Sequence[Segment]]
    boxes: Mapping[int, Mapping[tuple[str, int], Mapping[str, Box]]] = field(default_factory=dict)
    granularity: Granularity = field(default_factory=Granularity)

    def changed(self, further: Granularity | None = None) -> "Reference":
        """Return the reference with its segments folded and renamed.

        `further` are rules in addition to those of the file; they take precedence.
        """
        rules = self.granularity.combined(further or Granularity())
        segments = {index: rules.apply(parts) for index, parts in self.segments.items()}
        return replace(self, segments=segments, granularity=rules)


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    start_s: FiniteFloat = Field(validation_alias=AliasChoices("start_s", "start_sec"))
    end_s: FiniteFloat = Field(validation_alias=AliasChoices("end_s", "end_sec"))
    text: str = Field("", validation_alias=AliasChoices("text", "subtask", "label", "name"))

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> "_Row":
        if self.end_s <= self.start_s:
            raise ValueError(f"ends at {self.end_s:g} s, starts at {self.start_s:g} s")
        return self

    def segment(self) -> Segment:
        return Segment(self.start_s, self.end_s, self.text)


class _EpisodeRow(_Row):
    episode: NonNegativeInt = Field(validation_alias=AliasChoices("episode", "episode_index"))


class _Phases(BaseModel):
    phases: list[_Row]


class _BoxRow(BaseModel):
    camera: str
    frame_index: NonNegativeInt
    label: str
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


class _BoxTrack(BaseModel):
    """Boxes of one object: one entry per frame, null if the object is not visible."""

    box: list[tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None]


class _Episode(BaseModel):
    episode: NonNegativeInt = Field(validation_alias=AliasChoices("episode", "episode_index"))
    segments: list[_Phases | _Row] = Field(default_factory=list)
    boxes: list[_BoxRow] | dict[str, dict[str, _BoxTrack]] = Field(default_factory=list)


class _Rules(BaseModel):
    """Optional top-level keys of a JSON reference."""

    fold: list[str] | dict[str, Side] = Field(default_factory=list)
    mapping: dict[str, str] = Field(default_factory=dict)

    def granularity(self) -> Granularity:
        return Granularity(fold_sides(self.fold), self.mapping)


def fold_sides(fold: Collection[str] | Mapping[str, Side]) -> dict[str, Side]:
    """Return the side that each label is folded into; `previous` for the labels of a list."""
    return dict(fold) if isinstance(fold, Mapping) else dict.fromkeys(fold, "previous")


def read_reference(path: Path) -> Reference:
    """Read a reference; its layout is recognized by its content.

    Raises:
        CuesheetError: the file is missing, cannot be read or has an unknown layout.
    """
    if path.is_dir():
        return read_results(path)
    if not path.is_file():
        raise CuesheetError(
            f"{path} does not exist; expected a file of reference segments (JSON, CSV or Parquet) "
            "or the result folder of a run."
        )
    readers = {".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise CuesheetError(f"{path}: expected a file ending in .json, .csv or .parquet.")
    try:
        reference = reader(path)
    except ValidationError as error:
        raise CuesheetError(f"{path}: {_first_problem(error)}; {_LAYOUT}.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CuesheetError(f"{path} cannot be read ({error}); {_LAYOUT}.") from None
    if not any(reference.segments.values()) and not reference.boxes:
        raise CuesheetError(f"{path} has no segments; {_LAYOUT}.")
    return reference


def read_results(folder: Path) -> Reference:
    """Read the subtasks of a run from its result folder.

    Raises:
        CuesheetError: the folder contains no plan, or a plan is broken.
    """
    plans = episode_files(folder, "plan")
    if not plans:
        raise CuesheetError(
            f"{folder} contains no plan/*.json; expected a result folder (results/DATASET)."
        )
    segments = {}
    for _, path in plans:
        plan = read_stage_file(path, "plan")
        segments[plan.episode_index] = [
            Segment(subtask.start_s, subtask.end_s, subtask.label) for subtask in plan.subtasks
        ]
    return Reference(segments)


def wgo_rows(path: Path) -> Iterator[dict[str, Any]] | None:
    """Return the rows (id, instruction, video, segments) of a file in the layout of WGO-Bench.

    Videos are bytes. Returns None if the file has another layout.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        if not {"id", "segments"} <= set(file.schema_arrow.names):
            return None

    def rows() -> Iterator[dict[str, Any]]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1):
                yield from batch.to_pylist()

    return rows()


def _read_parquet(path: Path) -> Reference:
    import pyarrow.parquet as pq

    if wgo_rows(path) is not None:
        rows = pq.read_table(path, columns=["segments"]).column("segments").to_pylist()
        return Reference(
            {
                index: [_Row.model_validate(row).segment() for row in segments or ()]
                for index, segments in enumerate(rows)
            }
        )
    return _from_rows(pq.read_table(path).to_pylist())


def _read_csv(path: Path) -> Reference:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return _from_rows(csv.DictReader(file))


def _read_json(path: Path) -> Reference:
    data = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(data, list):
        return _from_rows(data)
    rules = _Rules.model_validate(data).granularity()
    if "episodes" not in data:
        return replace(_from_rows(data["segments"]), granularity=rules)
    segments: dict[int, list[Segment]] = {}
    boxes = {}
    for number, raw in enumerate(data["episodes"]):
        try:
            episode = _Episode.model_validate(raw)
        except ValidationError as error:
            raise ValueError(f"episodes.{number}.{_first_problem(error)}") from None
        segments[episode.episode] = [
            row.segment()
            for segment in episode.segments
            for row in (segment.phases if isinstance(segment, _Phases) else [segment])
        ]
        found = _boxes(episode)
        if found:
            boxes[episode.episode] = found
    return Reference(segments, boxes, rules)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'the row'}: {problem['msg']}"


def _boxes(episode: _Episode) -> dict[tuple[str, int], dict[str, Box]]:
    found: dict[tuple[str, int], dict[str, Box]] = {}
    if isinstance(episode.boxes, list):
        for row in episode.boxes:
            found.setdefault((row.camera, row.frame_index), {})[row.label] = row.box
        return found
    for camera, tracks in episode.boxes.items():
        for label, track in tracks.items():
            for frame_index, box in enumerate(track.box):
                if box:
                    found.setdefault((camera, frame_index), {})[label] = box
    return found


def _from_rows(rows: Iterable[Mapping[str, Any]]) -> Reference:
    segments: dict[int, list[Segment]] = {}
    for number, raw in enumerate(rows):
        try:
            row = _EpisodeRow.model_validate(raw)
        except ValidationError as error:
            raise ValueError(f"row {number}: {_first_problem(error)}") from None
        segments.setdefault(row.episode, []).append(row.segment())
    return Reference(segments)
