"""Episodes of format v3.0: meta/episodes/chunk-*/file-*.parquet, one row per episode.

Only the needed columns are read.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.dataset.file_forms import found_instead
from cuesheet.dataset.fingerprint import STATISTICS, fingerprints
from cuesheet.dataset.json_lines import as_whole
from cuesheet.dataset.models import Camera, Episode, VideoRange
from cuesheet.dataset.paths import PathTemplate
from cuesheet.dataset.task_table import TASKS_FILE, read_task_names, task_files
from cuesheet.dataset.tasks import is_number, task_tuple, tasks_by_index
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
    root: Path, name: str, cameras: Mapping[str, Camera], excluded: Mapping[str, Camera]
) -> pa.Table:
    """Read the needed columns of meta/episodes. Raises CuesheetError if one is missing.

    Columns of `excluded` cameras may be missing.
    """
    paths = _files(root)
    if not paths:
        raise CuesheetError(
            f"{name}: {root / 'meta/episodes'} has no parquet file (expected "
            "chunk-000/file-000.parquet and so on, one row per episode)."
        )
    required = [
        *_EPISODE_COLUMNS,
        *(column for key in _videos(cameras) for column in _video_columns(key)),
    ]
    optional = ["tasks", *(column for key in _videos(excluded) for column in _video_columns(key))]
    tables = []
    for path in paths:
        try:
            file = pq.ParquetFile(path)
            names = file.schema_arrow.names
            present = set(names)
            if len(present) < len(names):
                twice = next(column for column in names if names.count(column) > 1)
                raise CuesheetError(
                    f"{name}: {path} has more than one column {twice!r}, a file of meta/episodes; "
                    "expected every column once."
                )
            missing = [column for column in required if column not in present]
            if missing:
                raise CuesheetError(
                    f"{name}: {path} has no column {missing[0]!r}"
                    f"{f' (and {len(missing) - 1} more are missing)' if missing[1:] else ''}; "
                    "expected the episode metadata of LeRobot v3.0."
                )
            statistics = [c for c in file.schema_arrow.names if STATISTICS.fullmatch(c)]
            wanted = [*required, *(c for c in optional if c in present), *statistics]
            tables.append(file.read(columns=wanted, use_threads=False))
        except (OSError, pa.ArrowInvalid) as error:
            raise CuesheetError(
                f"{name}: {path} is not a readable parquet file: {found_instead(path) or error}"
            ) from None
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise CuesheetError(
            f"{name}: the files of {root / 'meta/episodes'} have columns of different types: "
            f"{error}"
        ) from None


def layout_notices(root: Path) -> list[str]:
    """Return a notice for each metadata file whose place LeRobot does not know."""
    notices = []
    if any(path.parent.name == "episodes" for path in _files(root)):
        notices.append(
            "the files of meta/episodes are not in chunk folders; LeRobot expects "
            "meta/episodes/chunk-000/file-000.parquet and so on."
        )
    if not (root / TASKS_FILE).is_file() and (tasks := task_files(root)):
        notices.append(
            f"tasks are read from {tasks[0].relative_to(root)}; LeRobot expects {TASKS_FILE}."
        )
    return notices


def _files(root: Path) -> list[Path]:
    """Return the files of meta/episodes. Some writers make no chunk folders."""
    folder = root / "meta" / "episodes"
    # Hidden files, such as ._file-000.parquet of macOS, are not the dataset's.
    return sorted(folder.glob("[!.]*/[!.]*.parquet")) or sorted(folder.glob("[!.]*.parquet"))


def read_episodes(
    root: Path,
    table: pa.Table,
    info: Mapping[str, Any],
    cameras: Mapping[str, Camera],
    excluded: Mapping[str, Camera],
    name: str,
) -> list[Episode]:
    """Return the episodes of `read_table`'s table. Raises CuesheetError for a missing value."""
    columns = {key: _whole_numbers(table, key, name) for key in _EPISODE_COLUMNS}
    data_path = PathTemplate(info, "data_path", _DEFAULT_DATA_PATH, name)
    data_files = [
        data_path.format(chunk_index=chunk, file_index=file)
        for chunk, file in zip(columns["data/chunk_index"], columns["data/file_index"], strict=True)
    ]
    tasks = _tasks(root, table, data_files, name)
    videos = _by_episode(table, info, _videos(cameras), name)
    described = [
        key for key in _videos(excluded) if set(_video_columns(key)) <= set(table.column_names)
    ]
    excluded_videos = _by_episode(table, info, described, name)
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
            excluded_videos=excluded_videos[row],
        )
        for row in range(len(table))
    ]


def _tasks(
    root: Path, table: pa.Table, data_files: Sequence[str], name: str
) -> list[tuple[str, ...]]:
    if "tasks" not in table.column_names:
        return tasks_by_index(root, name, table, data_files)
    try:
        values = table.column("tasks").to_pylist()
    except UnicodeDecodeError as error:
        raise CuesheetError(
            f"{name}: meta/episodes has tasks that are not valid UTF-8 ({error}); write them again."
        ) from None
    numbered = any(is_number(task) for value in values for task in _listed(value))
    names = read_task_names(root, name) if numbered else None
    found = [task_tuple(value, names) for value in values]
    if all(found):
        return found
    named = tasks_by_index(root, name, table, data_files)
    return [tasks or other for tasks, other in zip(found, named, strict=True)]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _videos(cameras: Mapping[str, Camera]) -> list[str]:
    return [camera.key for camera in cameras.values() if camera.kind == "video"]


def _video_columns(key: str) -> list[str]:
    return [f"videos/{key}/{column}" for column in _VIDEO_COLUMNS]


def _by_episode(
    table: pa.Table, info: Mapping[str, Any], keys: Sequence[str], name: str
) -> list[dict[str, VideoRange]]:
    """Return the videos of each row; a camera whose columns are all null has none in that row."""
    videos: list[dict[str, VideoRange]] = [{} for _ in range(len(table))]
    for key in keys:
        template = PathTemplate(info, "video_path", _DEFAULT_VIDEO_PATH, name)
        columns = [table.column(column).to_pylist() for column in _video_columns(key)]
        for row, (entry, values) in enumerate(zip(videos, zip(*columns, strict=True), strict=True)):
            if all(value is None for value in values):
                continue
            if None in values:
                missing = _video_columns(key)[values.index(None)]
                raise CuesheetError(_no_value(table, missing, row, name))
            chunk, file, from_s, to_s = values
            place = {
                "chunk_index": _whole(chunk, f"videos/{key}/chunk_index", name),
                "file_index": _whole(file, f"videos/{key}/file_index", name),
            }
            path = template.format(video_key=key, **place)
            times = (_number(from_s), _number(to_s))
            if not all(isinstance(time, int | float) for time in times):
                raise CuesheetError(
                    f"{name}: meta/episodes says that row {row} is at {times} of {key} "
                    "(from_timestamp, to_timestamp); expected two numbers, seconds."
                )
            entry[key] = VideoRange(path, float(times[0]), float(times[1]))
    return videos


def _whole_numbers(table: pa.Table, column: str, name: str) -> list[int]:
    values = table.column(column).to_pylist()
    if None in values:
        raise CuesheetError(_no_value(table, column, values.index(None), name))
    return [_whole(value, column, name) for value in values]


def _whole(value: Any, column: str, name: str) -> int:
    """Return a whole number, at least 0. Raises CuesheetError for anything else."""
    number = as_whole(_number(value))
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise CuesheetError(
            f"{name}: meta/episodes has {str(value)[:40]!r} in {column!r}; expected a whole "
            "number, at least 0."
        )
    return number


def _number(value: Any) -> Any:
    """Return a number that is stored as a decimal, a text or a list of one; else the value."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str | Decimal):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _no_value(table: pa.Table, column: str, row: int, name: str) -> str:
    which = table.column("episode_index")[row].as_py()
    label = f"row {row}" if which is None else f"episode {which}"
    return (
        f"{name}: meta/episodes has no {column!r} for {label}; expected a value for every episode."
    )
