"""Episodes of format v3.0: meta/episodes/chunk-*/file-*.parquet, one row an episode.

Only the columns that are needed are read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.dataset.fingerprint import STATISTICS, fingerprints
from cuesheet.dataset.models import Camera, Episode, VideoRange, task_tuple
from cuesheet.dataset.paths import PathTemplate
from cuesheet.errors import CuesheetError

_DEFAULT_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_DEFAULT_VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_EPISODE_COLUMNS = (
    "episode_index",
    "length",
    "data/chunk_index",
    "data/file_index",
    "dataset_from_index",
    "dataset_to_index",
)
_VIDEO_COLUMNS = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


def read_table(
    root: Path, name: str, cameras: Mapping[str, Camera], unseen: Mapping[str, Camera]
) -> pa.Table:
    """The needed columns of meta/episodes. Raises CuesheetError where one is not there.

    Those of `unseen` cameras may be missing.
    """
    paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        raise CuesheetError(
            f"{name}: {root / 'meta/episodes'} has no parquet file (expected "
            "chunk-000/file-000.parquet and so on, one row an episode)."
        )
    required = [*_EPISODE_COLUMNS, *(column for key in _videos(cameras) for column in _lies(key))]
    welcome = ["tasks", *(column for key in _videos(unseen) for column in _lies(key))]
    tables = []
    for path in paths:
        try:
            file = pq.ParquetFile(path)
            present = set(file.schema_arrow.names)
            missing = [column for column in required if column not in present]
            if missing:
                raise CuesheetError(
                    f"{name}: {path} has no column {missing[0]!r}"
                    f"{f' (and {len(missing) - 1} more are missing)' if missing[1:] else ''}; "
                    "expected the episode metadata of LeRobot v3.0."
                )
            statistics = [c for c in file.schema_arrow.names if STATISTICS.fullmatch(c)]
            wanted = [*required, *(c for c in welcome if c in present), *statistics]
            tables.append(file.read(columns=wanted, use_threads=False))
        except (OSError, pa.ArrowInvalid) as error:
            raise CuesheetError(f"{name}: {path} is not a readable parquet file: {error}") from None
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise CuesheetError(
            f"{name}: the files of {root / 'meta/episodes'} have columns of different types: "
            f"{error}"
        ) from None


def read_episodes(
    table: pa.Table,
    info: Mapping[str, Any],
    cameras: Mapping[str, Camera],
    unseen: Mapping[str, Camera],
    name: str,
) -> list[Episode]:
    """The episodes that `read_table` found. Raises CuesheetError for a missing value."""
    columns = {key: _values(table, key, name) for key in _EPISODE_COLUMNS}
    tasks_column = (
        table.column("tasks").to_pylist() if "tasks" in table.column_names else [None] * len(table)
    )
    tasks = [task_tuple(value) for value in tasks_column]
    data_path = PathTemplate(info, "data_path", _DEFAULT_DATA_PATH, name)
    data_files = [
        data_path.format(chunk_index=chunk, file_index=file)
        for chunk, file in zip(columns["data/chunk_index"], columns["data/file_index"], strict=True)
    ]
    videos = _by_episode(table, info, _videos(cameras), name)
    described = [key for key in _videos(unseen) if set(_lies(key)) <= set(table.column_names)]
    unseen_videos = _by_episode(table, info, described, name)
    hashes = fingerprints(table, tasks, columns["length"])
    return [
        Episode(
            episode_index=columns["episode_index"][row],
            task=tasks[row][0] if tasks[row] else "",
            tasks=tasks[row],
            length=columns["length"][row],
            data_file=data_files[row],
            dataset_from_index=columns["dataset_from_index"][row],
            dataset_to_index=columns["dataset_to_index"][row],
            videos=videos[row],
            fingerprint=hashes[row],
            unseen_videos=unseen_videos[row],
        )
        for row in range(len(table))
    ]


def _videos(cameras: Mapping[str, Camera]) -> list[str]:
    return [camera.key for camera in cameras.values() if camera.kind == "video"]


def _lies(key: str) -> list[str]:
    return [f"videos/{key}/{column}" for column in _VIDEO_COLUMNS]


def _by_episode(
    table: pa.Table, info: Mapping[str, Any], keys: Sequence[str], name: str
) -> list[dict[str, VideoRange]]:
    videos: list[dict[str, VideoRange]] = [{} for _ in range(len(table))]
    for key in keys:
        for entry, video in zip(videos, _video_ranges(table, info, key, name), strict=True):
            entry[key] = video
    return videos


def _video_ranges(
    table: pa.Table, info: Mapping[str, Any], key: str, name: str
) -> list[VideoRange]:
    template = PathTemplate(info, "video_path", _DEFAULT_VIDEO_PATH, name)
    chunk, file, from_s, to_s = (_values(table, column, name) for column in _lies(key))
    return [
        VideoRange(template.format(video_key=key, chunk_index=c, file_index=f), float(a), float(b))
        for c, f, a, b in zip(chunk, file, from_s, to_s, strict=True)
    ]


def _values(table: pa.Table, column: str, name: str) -> list[Any]:
    values = table.column(column)
    if values.null_count:
        row = values.to_pylist().index(None)
        which = table.column("episode_index")[row].as_py()
        raise CuesheetError(
            f"{name}: meta/episodes has no {column!r} for episode {which}; "
            "expected a value for every episode."
        )
    return values.to_pylist()
