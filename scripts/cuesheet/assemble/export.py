"""Exports the annotations of a finished dataset as one tidy table, for use without LeRobot.

One row per language row, with LeRobot's names `episode_index` and `frame_index` and these columns:

- `style`, `role`, `camera`: as in the dataset; rows without a style are `speech`;
- `start_s`, `end_s`: seconds from the episode's start. A persistent row lasts until the next one of
  its style or the end of the episode; an event lasts for its frame;
- `text`: what is said or asked;
- `json`: the structured value of a row, if it has one: the answer of a VQA pair, the tool calls of
  speech.

Rows are sorted by episode, then by start.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.inspection import InspectionFile
from cuesheet.artifacts.language import EVENTS_COLUMN, PERSISTENT_COLUMN, style_name
from cuesheet.artifacts.layout import Layout
from cuesheet.artifacts.sampling import shortest_float32
from cuesheet.artifacts.stage_files import ValidationFile
from cuesheet.dataset.data_reader import open_data_file, scalars, seconds_from_start
from cuesheet.dataset.metadata import Dataset, Episode
from cuesheet.errors import CuesheetError
from cuesheet.files import atomic_path

SCHEMA = pa.schema(
    [
        pa.field("episode_index", pa.int64(), nullable=False),
        pa.field("frame_index", pa.int64(), nullable=False),
        pa.field("style", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("camera", pa.string()),
        pa.field("text", pa.string()),
        pa.field("json", pa.string()),
    ]
)
_TIDY_COLUMNS = ("style", "role", "camera", "text", "json")
_BATCH_FRAMES = 512


def write_exports(dataset: Dataset, parquet: Path, jsonl: Path) -> int:
    """Write both files atomically and return the number of rows.

    The column `json` is text in the parquet file and the value itself in the JSON lines.
    """
    count = 0
    with ExitStack() as stack:
        table_path = stack.enter_context(atomic_path(parquet))
        lines_path = stack.enter_context(atomic_path(jsonl))
        writer = stack.enter_context(pq.ParquetWriter(table_path, SCHEMA))
        lines = stack.enter_context(lines_path.open("w", encoding="utf-8"))
        for table in tidy_tables(dataset):
            rows = pa.Table.from_pandas(table, SCHEMA, preserve_index=False)
            writer.write_table(rows)
            for row in rows.to_pylist():
                row["json"] = None if row["json"] is None else json.loads(row["json"])
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += len(table)
    return count


def write_inspections(layout: Layout, episodes: Iterable[int], path: Path) -> None:
    """Write one JSON line per inspected episode: what was found, its verdict, and whether it has
    rows.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for index in episodes:
            if not layout.validation(index).is_file():
                continue
            validation = ValidationFile.read(layout.validation(index))
            if not validation.inspection:
                continue
            found = InspectionFile.read(layout.inspection(index))
            line = {
                "episode_index": index,
                "verdict": found.verdict,
                "has_rows": validation.has_rows,
                **found.model_dump(include={"episode", "subtasks", "cameras", "missing_acts"}),
            }
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")


def tidy_tables(dataset: Dataset) -> Iterator[pd.DataFrame]:
    """Yield the table of every data file of an annotated dataset.

    Raises CuesheetError if the dataset has no language columns, or a file cannot be read.
    """
    for data_file, episodes in dataset.data_files.items():
        if not dataset.has_file(data_file):
            continue
        path = dataset.root / data_file
        try:
            with open_data_file(path) as file:
                missing = {PERSISTENT_COLUMN, EVENTS_COLUMN} - set(file.schema_arrow.names)
                if missing:
                    raise CuesheetError(f"{path} has no column {min(missing)}: it has no labels.")
                tables = [
                    _episode_table(file, group, episode, dataset.fps)
                    for group, episode in enumerate(episodes)
                ]
        except (OSError, pa.ArrowException) as error:
            raise CuesheetError(f"{path} cannot be read: {error}") from None
        yield pd.concat(tables, ignore_index=True)


def _episode_table(file: pq.ParquetFile, group: int, episode: Episode, fps: float) -> pd.DataFrame:
    """Return the table of one episode, which is a row group of an annotated file."""
    first = next(file.iter_batches(1, row_groups=[group], columns=[PERSISTENT_COLUMN]))
    persistent = first.column(0)[0].as_py()
    own_times: list[float] = []
    events: list[dict[str, Any]] = []
    for batch in file.iter_batches(
        _BATCH_FRAMES, row_groups=[group], columns=["timestamp", EVENTS_COLUMN]
    ):
        rows_by_frame = batch.column(EVENTS_COLUMN).to_pylist()
        for frame_index, rows in enumerate(rows_by_frame, start=len(own_times)):
            events += [{**row, "frame_index": frame_index} for row in rows]
        own_times += scalars(batch.column("timestamp")).tolist()
    frame_of = {shortest_float32(time_s): index for index, time_s in enumerate(own_times)}
    relative = seconds_from_start(np.asarray(own_times, np.float64)).tolist()
    times = [shortest_float32(time_s) for time_s in relative]
    for row in persistent:
        row["frame_index"] = frame_of[shortest_float32(row["timestamp"])]
    table = pd.DataFrame(
        [_tidy(row) for row in (*persistent, *events)], columns=["frame_index", *_TIDY_COLUMNS]
    )
    table["episode_index"] = episode.episode_index
    table["start_s"] = [times[index] for index in table["frame_index"]]
    table["end_s"] = _end_times(table, len(persistent), [*times, round(times[-1] + 1 / fps, 6)])
    return table.sort_values("frame_index", kind="stable")[SCHEMA.names]


def _end_times(table: pd.DataFrame, persistent: int, edges_s: list[float]) -> list[float]:
    """Return when each row ends; the first `persistent` rows of `table` are persistent.

    `edges_s`: the time of every frame, and the end of the last.
    """
    end = table["frame_index"] + 1
    starts = table["frame_index"][:persistent]
    for _, rows in starts.groupby(table["style"][:persistent]):
        distinct = sorted(set(rows))
        following = dict(zip(distinct, [*distinct[1:], len(edges_s) - 1], strict=True))
        end[rows.index] = rows.map(following)
    return [edges_s[index] for index in end]


def _tidy(row: dict[str, Any]) -> dict[str, Any]:
    text, value, calls = row["content"], None, row["tool_calls"]
    if calls:
        value = json.dumps(calls, ensure_ascii=False)
        text = text or " ".join(call["function"]["arguments"]["text"] for call in calls)
    elif row["style"] == "vqa" and row["role"] == "assistant":
        value = text
    return {**row, "style": style_name(row["style"]), "text": text, "json": value}
