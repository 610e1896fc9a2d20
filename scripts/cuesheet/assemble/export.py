"""The annotations of a finished dataset as one tidy table, for those who do not use LeRobot.

One row a language row: episode, style, role, start_s, end_s, camera, text, json. A persistent row
lasts until the next one of its style, or to the episode's end; rephrasings of the task hold all
along; an event is an instant, without end_s. `text` is what is said; `json` holds what has a form:
the answer to a visual question, the tool calls of speech.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.language import EVENTS_COLUMN, PERSISTENT_COLUMN, style_name
from cuesheet.artifacts.sampling import shortest_float32
from cuesheet.dataset.data_reader import open_data_file
from cuesheet.dataset.metadata import Dataset, Episode
from cuesheet.errors import CuesheetError
from cuesheet.files import atomic_path

SCHEMA = pa.schema(
    [
        pa.field("episode", pa.int64(), nullable=False),
        pa.field("style", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64()),
        pa.field("camera", pa.string()),
        pa.field("text", pa.string()),
        pa.field("json", pa.string()),
    ]
)
_BATCH_FRAMES = 512
_ROWS_AT_ONCE = 10_000

TidyRow = dict[str, Any]


def write_exports(dataset: Dataset, parquet: Path, jsonl: Path) -> int:
    """Writes both files, each whole or not at all; returns the number of rows.

    In the JSON lines `json` is the value itself, in the parquet file its text.
    """
    count = 0
    held: list[TidyRow] = []
    with ExitStack() as stack:
        table_path = stack.enter_context(atomic_path(parquet))
        lines_path = stack.enter_context(atomic_path(jsonl))
        writer = stack.enter_context(pq.ParquetWriter(table_path, SCHEMA))
        lines = stack.enter_context(lines_path.open("w", encoding="utf-8"))
        for row in tidy_rows(dataset):
            held.append(row)
            value = {**row, "json": None if row["json"] is None else json.loads(row["json"])}
            lines.write(json.dumps(value, ensure_ascii=False) + "\n")
            count += 1
            if len(held) == _ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(held, SCHEMA))
                held = []
        writer.write_table(pa.Table.from_pylist(held, SCHEMA))
    return count


def tidy_rows(dataset: Dataset) -> Iterator[TidyRow]:
    """The rows of an annotated dataset, by episode in the order of its data files, then by time.

    Raises CuesheetError for a dataset without language columns, or a file that cannot be read.
    """
    for data_file, episodes in dataset.data_files.items():
        if not dataset.is_there(data_file):
            continue
        path = dataset.root / data_file
        try:
            with open_data_file(path) as file:
                missing = {PERSISTENT_COLUMN, EVENTS_COLUMN} - set(file.schema_arrow.names)
                if missing:
                    raise CuesheetError(f"{path} has no {min(missing)}: it is not annotated.")
                for group, episode in enumerate(episodes):
                    yield from _episode_rows(file, group, episode, dataset.fps)
        except (OSError, pa.ArrowException) as error:
            raise CuesheetError(f"{path} cannot be read: {error}") from None


def _episode_rows(
    file: pq.ParquetFile, group: int, episode: Episode, fps: float
) -> Iterator[TidyRow]:
    """The rows of one episode; an annotated file has one row group an episode."""
    first = next(file.iter_batches(1, row_groups=[group], columns=[PERSISTENT_COLUMN]))
    persistent = first.column(0)[0].as_py()
    times: list[float] = []
    events: list[tuple[float, dict[str, Any]]] = []
    for batch in file.iter_batches(
        _BATCH_FRAMES, row_groups=[group], columns=["timestamp", EVENTS_COLUMN]
    ):
        at = batch.column("timestamp").to_pylist()
        times += at
        for time_s, rows in zip(at, batch.column(EVENTS_COLUMN).to_pylist(), strict=True):
            events += [(time_s, row) for row in rows]
    end_s = round(times[-1] + 1 / fps, 6)
    starts: dict[str, list[float]] = {}
    for row in persistent:
        starts.setdefault(row["style"], []).append(row["timestamp"])
    found = []
    for row in persistent:
        later = [t for t in starts[row["style"]] if t > row["timestamp"]]
        holds_on = row["style"] == "task_aug" or not later
        until = end_s if holds_on else shortest_float32(min(later))
        found.append(_tidy(episode, row, row["timestamp"], until))
    found += [_tidy(episode, row, time_s, None) for time_s, row in events]
    yield from sorted(found, key=lambda row: row["start_s"])


def _tidy(episode: Episode, row: dict[str, Any], start_s: float, end_s: float | None) -> TidyRow:
    calls = row["tool_calls"]
    text, form = row["content"], None
    if calls:
        form = json.dumps(calls, ensure_ascii=False)
        text = text or " ".join(call["function"]["arguments"]["text"] for call in calls)
    elif row["style"] == "vqa" and row["role"] == "assistant":
        form = row["content"]
    return {
        "episode": episode.episode_index,
        "style": style_name(row["style"]),
        "role": row["role"],
        "start_s": shortest_float32(start_s),
        "end_s": end_s,
        "camera": row["camera"],
        "text": text,
        "json": form,
    }
