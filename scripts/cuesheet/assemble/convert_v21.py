"""Converts an annotated v2.1 dataset to v3.0: data files, metadata and videos.

In: the merged data files, one per episode. Out: files of many episodes with one row group per
episode, meta/episodes and tasks as parquet, meta/stats.json, and info.json of v3.0. Every data file
has one schema, that of the source files of its episodes: LeRobot loads files that differ.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.language import LANGUAGE_COLUMNS
from cuesheet.assemble import concat_videos, subtask_numbers
from cuesheet.assemble.episode_writer import EpisodeWriter
from cuesheet.assemble.finalize import annotated_info, copy_other_files, prepare, publish
from cuesheet.assemble.statistics import EpisodeStatistics, aggregate, complete_statistics
from cuesheet.dataset import v21
from cuesheet.dataset.data_reader import SourceLanguage, episode_tables, open_data_file
from cuesheet.dataset.metadata import Dataset, Episode
from cuesheet.dataset.task_table import TASK_LINES, read_task_lines
from cuesheet.dataset.tasks import read_task_runs
from cuesheet.errors import CuesheetError
from cuesheet.files import atomic_path

DATA_FILE_MB = 100
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_FILE = "meta/episodes/chunk-000/file-000.parquet"
TASKS_FILE = "meta/tasks.parquet"
STATISTICS_FILE = "meta/stats.json"

_MB = 1 << 20
_LEGACY = {Path(v21.EPISODES), Path(v21.STATISTICS), Path(TASK_LINES)}


def convert_dataset(
    dataset: Dataset,
    merged: Path,
    annotated: Path,
    extra_files: Sequence[str] = (),
    subtasks: Path | None = None,
) -> None:
    """Create the annotated dataset from the source, of format v2.1, and the merged data files.

    Paths in `merged` are those of the source. `extra_files` and `subtasks`: see `finalize_dataset`.
    Raises CuesheetError if a file cannot be read, or the joined videos are not exact.
    """
    prepare(dataset, annotated)
    columns: dict[str, list[Any]] = {"episode_index": [e.episode_index for e in dataset.episodes]}
    groups = list(_files_of(dataset.episodes, merged))
    files = []
    for number, episodes in enumerate(groups):
        chunk_index, file_index = divmod(number, concat_videos.CHUNK_FILES)
        file = DATA_PATH.format(chunk_index=chunk_index, file_index=file_index)
        _join_data(episodes, merged, annotated / file)
        files.append(file)
        for name, value in (("chunk_index", chunk_index), ("file_index", file_index)):
            columns.setdefault(f"data/{name}", []).extend([value] * len(episodes))
    columns["dataset_from_index"] = [e.dataset_from_index for e in dataset.episodes]
    columns["dataset_to_index"] = [e.dataset_to_index for e in dataset.episodes]
    placed = concat_videos.concat_videos(dataset, annotated)
    for camera in sorted(placed):
        columns |= concat_videos.as_columns(camera, placed[camera])
    known = {}
    if dataset.has_file(v21.STATISTICS):
        known = v21.read_statistics(dataset.root, dataset.name)
    _write_metadata(dataset, columns, complete_statistics(dataset, known), annotated)
    made = {*files, *concat_videos.video_files(placed)}
    made |= {EPISODES_FILE, TASKS_FILE, STATISTICS_FILE}
    if subtasks is not None:
        made.add(subtask_numbers.TABLE)
        with atomic_path(annotated / subtask_numbers.TABLE) as temporary:
            temporary.write_bytes(subtasks.read_bytes())
    kept = {Path(file) for file in made}
    kept |= copy_other_files(dataset, annotated, _LEGACY | kept, extra_files)
    # LeRobot's converter gives every feature except videos the key `fps`, new features too.
    publish(annotated, kept, info_v30(annotated_info(dataset, subtasks is not None)))


def info_v30(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return info.json in the form of v3.0; keys that do not concern the file layout stay."""
    changed = {key: info[key] for key in info if key not in ("total_chunks", "total_videos")}
    fps = info["fps"]
    fps = int(fps) if float(fps).is_integer() else fps
    has_videos = any(feature.get("dtype") == "video" for feature in info["features"].values())
    changed |= {
        "codebase_version": "v3.0",
        "fps": fps,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": concat_videos.VIDEO_FILE_MB,
        "data_path": DATA_PATH,
        "video_path": concat_videos.VIDEO_PATH if has_videos else None,
        "features": {
            key: feature if feature.get("dtype") == "video" else {**feature, "fps": fps}
            for key, feature in info["features"].items()
        },
    }
    return changed


def _files_of(episodes: Sequence[Episode], merged: Path) -> Iterator[list[Episode]]:
    """Yield the episodes of each data file: at most DATA_FILE_MB before compression, one schema."""
    held: list[Episode] = []
    held_schema: pa.Schema | None = None
    size = 0
    for episode in episodes:
        footer = pq.read_metadata(merged / episode.data_file)
        schema = footer.schema.to_arrow_schema()
        more = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
        is_full = size + more >= DATA_FILE_MB * _MB
        if held and (is_full or not schema.equals(held_schema)):
            yield held
            held, size = [], 0
        held.append(episode)
        held_schema = schema
        size += more
    if held:
        yield held


def _join_data(episodes: Sequence[Episode], merged: Path, target: Path) -> None:
    with atomic_path(target) as temporary, contextlib.ExitStack() as stack:
        writer: EpisodeWriter | None = None
        for episode in episodes:
            path = merged / episode.data_file
            with open_data_file(path) as file:
                schema = file.metadata.schema.to_arrow_schema()
                writer = writer or stack.enter_context(EpisodeWriter(temporary, schema))
                plain = [name for name in schema.names if name not in LANGUAGE_COLUMNS]
                own = SourceLanguage(file)
                for _, table in episode_tables(file, plain, path, target.parent):
                    persistent, events, _ = own.take(0, table.num_rows)
                    writer.write(table, persistent, events)


def _task_names(dataset: Dataset) -> dict[int, str]:
    """Return task by task_index: from the table, or else from the frames and the episodes."""
    if dataset.has_file(TASK_LINES):
        return read_task_lines(dataset.root, dataset.name)
    found: dict[int, str] = {}
    for episode in dataset.episodes:
        runs = read_task_runs(dataset.root / episode.data_file).get(episode.episode_index, [])
        for (_, number), task in zip(runs, episode.tasks, strict=False):
            found.setdefault(number, task)
    return dict(sorted(found.items()))


def _write_metadata(
    dataset: Dataset,
    columns: Mapping[str, list[Any]],
    statistics: Sequence[EpisodeStatistics],
    annotated: Path,
) -> None:
    described: dict[str, Any] = {
        **columns,
        "tasks": pa.array(
            [list(episode.tasks) for episode in dataset.episodes],
            pa.list_(pa.field("element", pa.string())),
        ),
        "length": [episode.length for episode in dataset.episodes],
    }
    for feature in dict.fromkeys(key for one in statistics for key in one):
        for name in dict.fromkeys(key for one in statistics for key in one.get(feature, {})):
            values = [one.get(feature, {}).get(name) for one in statistics]
            described[f"stats/{feature}/{name}"] = values
    zeros = [0] * len(dataset.episodes)
    described |= {"meta/episodes/chunk_index": zeros, "meta/episodes/file_index": zeros}
    try:
        table = pa.table(described)
    except pa.ArrowException as error:
        raise CuesheetError(
            f"{dataset.name}: {dataset.root / v21.STATISTICS} has statistics of different shapes "
            f"for one feature: {error}"
        ) from None
    with atomic_path(annotated / EPISODES_FILE) as temporary:
        pq.write_table(table, temporary, compression="snappy")
    # LeRobot reads the task's text from the index.
    tasks = _task_names(dataset)
    with atomic_path(annotated / TASKS_FILE) as temporary:
        pd.DataFrame({"task_index": list(tasks)}, index=list(tasks.values())).to_parquet(temporary)
    with atomic_path(annotated / STATISTICS_FILE) as temporary:
        temporary.write_text(json.dumps(aggregate(statistics), indent=4), encoding="utf-8")
