"""Writes an annotated v2.1 dataset as v3.0: data files, metadata and videos laid out anew.

In: the merged data files of single episodes. Out: files of many episodes, one row group an episode,
meta/episodes and tasks as parquet, meta/stats.json, and info.json of v3.0.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.language import LANGUAGE_COLUMNS
from cuesheet.assemble import concat_videos
from cuesheet.assemble.episode_writer import EpisodeWriter
from cuesheet.assemble.finalize import copy_other_files, extended_info, prepare, publish
from cuesheet.dataset import v21
from cuesheet.dataset.data_reader import SourceLanguage, episode_tables, open_data_file
from cuesheet.dataset.metadata import Dataset, Episode
from cuesheet.errors import CuesheetError
from cuesheet.files import atomic_path

DATA_FILE_MB = 100
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_FILE = "meta/episodes/chunk-000/file-000.parquet"
TASKS_FILE = "meta/tasks.parquet"
STATISTICS_FILE = "meta/stats.json"

_MB = 1 << 20
_INDEX_COLUMN = "__index_level_0__"
_LEGACY = {Path(v21.EPISODES), Path(v21.STATISTICS), Path(v21.TASKS)}


def convert_dataset(
    dataset: Dataset, merged: Path, annotated: Path, extra_files: Sequence[str] = ()
) -> None:
    """Create the annotated dataset from the source and the merged data files.

    Args:
        dataset: the source, of format v2.1.
        merged: the folder with the merged data files, whose paths are those of the source.
        annotated: the folder of the new dataset.
        extra_files: patterns of files to take over that the LeRobot format does not define.

    Raises:
        CuesheetError: a file cannot be read, or the joined videos are not exact.
    """
    absent = [file for file in dataset.data_files if not dataset.is_there(file)]
    if absent:
        raise CuesheetError(
            f"{dataset.name}: output.format is v3.0, and {len(absent)} data files of the source "
            f"are not here, such as {absent[0]}; choose all episodes, or set it to source"
        )
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
    statistics = v21.read_statistics(dataset.root, dataset.name)
    _write_metadata(dataset, columns, statistics, annotated)
    made = {*files, *concat_videos.video_files(placed), EPISODES_FILE, TASKS_FILE}
    if any(statistics.values()):
        made.add(STATISTICS_FILE)
    kept = {Path(file) for file in made}
    kept |= copy_other_files(dataset, annotated, _LEGACY | kept, extra_files)
    # The converter of LeRobot gives every feature but videos the key `fps`, new ones as well.
    publish(annotated, kept, info_v30(extended_info(dataset.info)))


def info_v30(info: Mapping[str, Any]) -> dict[str, Any]:
    """info.json as v3.0 has it; keys that are not about the layout stay."""
    changed = {key: info[key] for key in info if key not in ("total_chunks", "total_videos")}
    fps = info["fps"]
    fps = int(fps) if float(fps).is_integer() else fps
    has_videos = info.get("video_path") is not None
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


def aggregate(statistics: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Statistics of the whole dataset from those of its episodes (`stats`, by feature).

    Means are weighted by count; variances add the spread of the means (Chan et al., 1979).
    """
    whole: dict[str, dict[str, Any]] = {}
    for feature in dict.fromkeys(key for one in statistics for key in one):
        parts = [one[feature] for one in statistics if feature in one]
        arrays = {name: np.stack([np.asarray(p[name]) for p in parts]) for name in parts[0]}
        mean, std, count = arrays["mean"], arrays["std"], arrays["count"]
        weights = count.reshape(count.shape + (1,) * (mean.ndim - count.ndim))
        total = count.sum(axis=0)
        whole_mean = (mean * weights).sum(axis=0) / total
        variance = ((std**2 + (mean - whole_mean) ** 2) * weights).sum(axis=0) / total
        found = {
            "min": arrays["min"].min(axis=0),
            "max": arrays["max"].max(axis=0),
            "mean": whole_mean,
            "std": np.sqrt(variance),
            "count": total,
        }
        for name in arrays.keys() - found.keys():  # quantiles
            found[name] = (arrays[name] * weights).sum(axis=0) / total
        whole[feature] = {name: value.tolist() for name, value in found.items()}
    return whole


def _files_of(episodes: Sequence[Episode], merged: Path) -> Iterator[list[Episode]]:
    """Episodes by data file: at most DATA_FILE_MB before compression."""
    held: list[Episode] = []
    size = 0
    for episode in episodes:
        footer = pq.read_metadata(merged / episode.data_file)
        more = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
        if held and size + more >= DATA_FILE_MB * _MB:
            yield held
            held, size = [], 0
        held.append(episode)
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


def _write_metadata(
    dataset: Dataset,
    columns: Mapping[str, list[Any]],
    statistics: Mapping[int, Mapping[str, Mapping[str, Any]]],
    annotated: Path,
) -> None:
    by_episode = [statistics.get(episode.episode_index, {}) for episode in dataset.episodes]
    features = dict.fromkeys(key for one in by_episode for key in one)
    described: dict[str, Any] = {
        **columns,
        "tasks": pa.array(
            [list(episode.tasks) for episode in dataset.episodes],
            pa.list_(pa.field("element", pa.string())),
        ),
        "length": [episode.length for episode in dataset.episodes],
    }
    for feature in features:
        for name in dict.fromkeys(key for one in by_episode for key in one.get(feature, {})):
            values = [one.get(feature, {}).get(name) for one in by_episode]
            described[f"stats/{feature}/{name}"] = values
    zeros = [0] * len(dataset.episodes)
    described |= {"meta/episodes/chunk_index": zeros, "meta/episodes/file_index": zeros}
    with atomic_path(annotated / EPISODES_FILE) as temporary:
        pq.write_table(pa.table(described), temporary, compression="snappy")
    with atomic_path(annotated / TASKS_FILE) as temporary:
        pq.write_table(_tasks_table(v21.read_tasks(dataset.root, dataset.name)), temporary)
    if features:
        with atomic_path(annotated / STATISTICS_FILE) as temporary:
            text = json.dumps(aggregate(by_episode), indent=4)
            temporary.write_text(text, encoding="utf-8")


def _tasks_table(tasks: Mapping[int, str]) -> pa.Table:
    """meta/tasks.parquet, whose index for pandas is the task's text, as LeRobot reads it."""
    pandas = {
        "index_columns": [_INDEX_COLUMN],
        "column_indexes": [],
        "columns": [
            {
                "name": "task_index",
                "field_name": "task_index",
                "pandas_type": "int64",
                "numpy_type": "int64",
                "metadata": None,
            },
            {
                "name": None,
                "field_name": _INDEX_COLUMN,
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": None,
            },
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
    }
    table = pa.table(
        {
            "task_index": pa.array(list(tasks), pa.int64()),
            _INDEX_COLUMN: pa.array(list(tasks.values()), pa.string()),
        }
    )
    return table.replace_schema_metadata({b"pandas": json.dumps(pandas).encode()})
