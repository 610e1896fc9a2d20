"""Episodes of format v2.1: meta/episodes.jsonl and episodes_stats.jsonl, one line per episode.

Each episode has its own data file and, per camera, its own video file.
"""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from cuesheet.dataset.fingerprint import fingerprints, leaves
from cuesheet.dataset.json_lines import as_whole, read_objects
from cuesheet.dataset.models import Camera, Episode, VideoRange
from cuesheet.dataset.paths import PathTemplate
from cuesheet.dataset.task_table import TASK_LINES, read_task_lines
from cuesheet.dataset.tasks import is_number, read_task_runs, task_tuple
from cuesheet.errors import CuesheetError

EPISODES = "meta/episodes.jsonl"
STATISTICS = "meta/episodes_stats.jsonl"

_DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
_VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_CHUNK = 1000
# The file holds only this episode. If the video is slightly slower than the data, its last frames
# are later than length / fps.
_SLACK = 1.01
_SLACK_S = 1.0


def read_episodes(
    root: Path,
    info: Mapping[str, Any],
    cameras: Mapping[str, Camera],
    excluded: Mapping[str, Camera],
    name: str,
) -> list[Episode]:
    """Return the episodes by ascending number, which is the order of the dataset's frames.

    Raises CuesheetError if a metadata file is missing or malformed, or an episode has no entry.
    """
    rows = _episode_rows(root, name)
    chunk_size = _chunk_size(info, name)
    data_path = PathTemplate(info, "data_path", _DATA_PATH, name)
    video_path = PathTemplate(info, "video_path", _VIDEO_PATH, name)
    files = [
        data_path.format(
            episode_chunk=row["episode_index"] // chunk_size, episode_index=row["episode_index"]
        )
        for row in rows
    ]
    tasks = _tasks(root, name, rows, files)
    lengths = [row["length"] for row in rows]
    hashes = fingerprints(_statistics(root, name, rows), tasks, lengths)
    ends = list(itertools.accumulate(lengths))
    episodes = []
    for number, row in enumerate(rows):
        index = row["episode_index"]
        place = {"episode_chunk": index // chunk_size, "episode_index": index}
        to_s = lengths[number] / info["fps"] * _SLACK + _SLACK_S
        videos, excluded_videos = (
            {
                key: VideoRange(video_path.format(video_key=key, **place), 0.0, to_s)
                for key, camera in some.items()
                if camera.kind == "video"
            }
            for some in (cameras, excluded)
        )
        episodes.append(
            Episode(
                episode_index=index,
                task=tasks[number][0] if tasks[number] else "",
                tasks=tasks[number],
                length=lengths[number],
                data_file=files[number],
                dataset_from_index=ends[number] - lengths[number],
                dataset_to_index=ends[number],
                videos=videos,
                fingerprint=hashes[number],
                excluded_videos=excluded_videos,
            )
        )
    return episodes


def _tasks(
    root: Path, name: str, rows: list[dict[str, Any]], files: list[str]
) -> list[tuple[str, ...]]:
    """Return the tasks of each episode: of its entry, otherwise by the task_index of its frames."""
    given = [row.get("tasks") or row.get("task") for row in rows]
    listed = (task for value in given for task in (value if isinstance(value, list) else [value]))
    known = (root / TASK_LINES).is_file()
    names = read_task_lines(root, name) if known or any(map(is_number, listed)) else {}
    found = [task_tuple(value, names) for value in given]
    for number, (row, file) in enumerate(zip(rows, files, strict=True)):
        if not found[number] and names:
            runs = read_task_runs(root / file).get(row["episode_index"], [])
            found[number] = task_tuple([names[task] for _, task in runs if task in names])
    return found


def _episode_rows(root: Path, name: str) -> list[dict[str, Any]]:
    """Return the entries of episodes.jsonl by ascending number, with whole lengths."""
    rows = sorted(_lines(root / EPISODES, name), key=lambda row: row["episode_index"])
    for row in rows:
        row["length"] = as_whole(row.get("length"))
        if not isinstance(row.get("length"), int):
            raise CuesheetError(
                f"{name}: {root / EPISODES} has no 'length' for episode {row['episode_index']}; "
                "expected its number of frames."
            )
    return rows


def _chunk_size(info: Mapping[str, Any], name: str) -> int:
    """Return the number of episodes per folder."""
    chunk_size = info.get("chunks_size") or _CHUNK
    if not isinstance(chunk_size, int | float) or not chunk_size >= 1 or chunk_size % 1:
        raise CuesheetError(
            f"{name}: meta/info.json has chunks_size = {chunk_size!r}; expected a whole number, at "
            "least 1."
        )
    return int(chunk_size)


def read_statistics(root: Path, name: str) -> dict[int, dict[str, dict[str, Any]]]:
    """Return feature -> statistic -> value by episode. Raises CuesheetError if malformed."""
    path = root / STATISTICS
    found = {}
    for row in _lines(path, name):
        statistics = row.get("stats") or {}
        if not isinstance(statistics, dict) or not all(
            isinstance(values, dict) for values in statistics.values()
        ):
            raise CuesheetError(
                f"{name}: {path}, episode {row['episode_index']}: 'stats' is not an object of "
                "objects; expected feature -> statistic -> value."
            )
        found[row["episode_index"]] = statistics
    return found


def _statistics(root: Path, name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Return the statistics as in v3.0: one row per episode, columns stats/feature/statistic."""
    by_episode = read_statistics(root, name) if (root / STATISTICS).is_file() else {}
    flat = [
        {
            f"stats/{feature}/{statistic}": value
            for feature, statistics in by_episode.get(row["episode_index"], {}).items()
            for statistic, value in statistics.items()
        }
        for row in rows
    ]
    columns = sorted({column for row in flat for column in row})
    try:
        # Flattened: shapes differ between recorders, and such a difference is not a change.
        arrays = {
            column: pa.array([list(leaves(row[column])) if column in row else None for row in flat])
            for column in columns
        }
    except pa.ArrowException as error:
        raise CuesheetError(
            f"{name}: {root / STATISTICS} has statistics of different forms: {error}"
        ) from None
    return pa.table({"episode_index": [row["episode_index"] for row in rows], **arrays})


def _lines(path: Path, name: str) -> Iterator[dict[str, Any]]:
    for number, row in read_objects(path, name):
        index = row["episode_index"] = as_whole(row.get("episode_index"))
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise CuesheetError(
                f"{name}: {path}, line {number}: 'episode_index' is {index!r}; expected a whole "
                "number, at least 0."
            )
        yield row
