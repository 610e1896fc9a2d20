"""Reads what a LeRobot dataset says of itself: info.json and the episodes' metadata.

Only metadata is read (never frames or videos), and of it only the columns that are needed, so that
this can be called while a Snakefile is parsed. Format v3.0, as written by lerobot 0.4:
`meta/info.json` and `meta/episodes/chunk-*/file-*.parquet`, one row an episode.

Paths in the results are relative to the dataset's root, with forward slashes. Times are seconds.
"""

import functools
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.config_checks import as_ranges
from cuesheet.errors import CuesheetError
from cuesheet.fingerprint import STATISTICS, fingerprints
from cuesheet.nearest import nearest
from cuesheet.path_template import PathTemplate

SUPPORTED_VERSIONS = ("v3.0",)

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


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera of the dataset. Width and height in pixels, 0 where the metadata does not say."""

    key: str
    kind: str  # "video", or "image": encoded pictures inside the data files
    width: int
    height: int
    codec: str  # as info.json names it, "" for images or where it is silent


@dataclass(frozen=True, slots=True)
class VideoRange:
    """Where an episode's frames lie: [from_s, to_s) seconds of a video file that others share."""

    file: str
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode as the metadata describes it."""

    episode_index: int
    task: str  # the first task, "" where there is none
    tasks: tuple[str, ...]
    length: int  # frames
    data_file: str
    dataset_from_index: int  # first frame, counted over the whole dataset
    dataset_to_index: int  # one past the last frame
    videos: Mapping[str, VideoRange]  # by camera key; cameras of kind "image" are not in here
    fingerprint: str  # hash of tasks, length and statistics; not of its place in files


@dataclass(frozen=True)
class Dataset:
    """A dataset's metadata. `notices` are sentences for the person who runs the workflow."""

    name: str
    root: Path
    version: str
    fps: float
    info: Mapping[str, Any]
    cameras: Mapping[str, Camera]
    episodes: tuple[Episode, ...]  # by ascending episode_index
    notices: tuple[str, ...]

    @functools.cached_property
    def data_files(self) -> dict[str, list[Episode]]:
        """Episodes by data file, both in the order in which the dataset counts its frames."""
        files: dict[str, list[Episode]] = {}
        for episode in sorted(self.episodes, key=lambda e: (e.dataset_from_index, e.episode_index)):
            files.setdefault(episode.data_file, []).append(episode)
        return files

    @functools.cached_property
    def _by_index(self) -> dict[int, Episode]:
        return {episode.episode_index: episode for episode in self.episodes}

    def episode(self, episode_index: int) -> Episode:
        """The episode of that number.

        Raises:
            CuesheetError: there is none; names the valid range.
        """
        try:
            return self._by_index[episode_index]
        except KeyError:
            raise CuesheetError(
                f"{self.name}: there is no episode {episode_index}; "
                f"the dataset at {self.root} has {describe_range(self._by_index)}."
            ) from None

    def camera(self, key: str) -> Camera:
        """The camera of that key.

        Raises:
            CuesheetError: there is none; names the nearest key and all keys.
        """
        try:
            return self.cameras[key]
        except KeyError:
            raise CuesheetError(
                f"{self.name}: there is no camera {key!r}. {self._nearest_camera(key)}"
            ) from None

    def _nearest_camera(self, key: str) -> str:
        if not self.cameras:
            return "The dataset has no camera."
        near = nearest(key, self.cameras, cutoff=0.5)
        hint = f"Did you mean {near!r}? " if near else ""
        return f"{hint}The cameras are: {', '.join(self.cameras)}."


def describe_range(episode_indices: Iterable[int]) -> str:
    """Episode numbers in words: "episodes 0 to 11", or with gaps "episodes 0-3, 5, 7-9"."""
    numbers = sorted(episode_indices)
    if not numbers:
        return "no episodes"
    if len(numbers) > 1 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"episodes {numbers[0]} to {numbers[-1]}"
    return f"episode{'s' if len(numbers) > 1 else ''} {as_ranges(numbers)}"


def read_dataset(root: Path | str, name: str) -> Dataset:
    """Reads a dataset's metadata.

    Args:
        root: the folder that holds `meta/info.json`.
        name: what the workflow calls the dataset; used in messages.

    Raises:
        CuesheetError: the path is missing or no LeRobot dataset, a metadata file is broken, a
            needed key or column is missing, or the format's version is not supported.
    """
    root = Path(root).expanduser()
    info = _read_info(root, name)
    version = _checked_version(info, root, name)
    fps = _checked_fps(info, root, name)
    cameras, notices = _cameras(info)
    table = _read_episodes_table(root, name, cameras)
    if "tasks" not in table.column_names:
        notices.append("meta/episodes has no column 'tasks'; the episodes count as having no task.")
    episodes = _episodes(table, info, cameras, name)
    return Dataset(
        name=name,
        root=root,
        version=version,
        fps=fps,
        info=info,
        cameras=cameras,
        episodes=episodes,
        notices=tuple(notices),
    )


def _read_info(root: Path, name: str) -> dict[str, Any]:
    if not root.exists():
        raise CuesheetError(
            f"{name}: there is nothing at {root}. "
            "Give the folder of a LeRobot dataset (it holds meta/info.json)."
        )
    if not root.is_dir():
        raise CuesheetError(
            f"{name}: {root} is a file; expected the folder of a LeRobot dataset "
            "(it holds meta/info.json)."
        )
    path = root / "meta" / "info.json"
    if not path.is_file():
        below = sorted(p.parent.parent.name for p in root.glob("*/meta/info.json"))
        hint = f" Did you mean {root / below[0]}?" if below else ""
        raise CuesheetError(
            f"{name}: {root} is not a LeRobot dataset: it has no meta/info.json.{hint}"
        )
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CuesheetError(f"{name}: {path} is not valid JSON: {error}.") from None
    except OSError as error:
        raise CuesheetError(f"{name}: {path} cannot be read: {error.strerror}.") from None
    if not isinstance(info, dict):
        raise CuesheetError(f"{name}: {path} holds a {type(info).__name__}; expected an object.")
    return info


def _checked_version(info: Mapping[str, Any], root: Path, name: str) -> str:
    version = _required(info, "codebase_version", root, name)
    if version not in SUPPORTED_VERSIONS:
        raise CuesheetError(
            f"{name}: {root} is a LeRobot dataset of format {version!r}; "
            f"supported: {', '.join(SUPPORTED_VERSIONS)}. "
            "lerobot can convert older datasets (lerobot.datasets.v30.convert_dataset_v21_to_v30)."
        )
    return version


def _checked_fps(info: Mapping[str, Any], root: Path, name: str) -> float:
    fps = _required(info, "fps", root, name)
    ok = isinstance(fps, int | float) and not isinstance(fps, bool)
    if not ok or not math.isfinite(fps) or fps <= 0:
        raise CuesheetError(
            f"{name}: {root / 'meta/info.json'} says fps = {fps!r}; expected a number above 0."
        )
    return float(fps)


def _required(info: Mapping[str, Any], key: str, root: Path, name: str) -> Any:
    if key not in info:
        raise CuesheetError(
            f"{name}: {root / 'meta/info.json'} has no key {key!r}; "
            "every LeRobot dataset has one. Is the file complete?"
        )
    return info[key]


def _cameras(info: Mapping[str, Any]) -> tuple[dict[str, Camera], list[str]]:
    features = info.get("features")
    if not isinstance(features, dict):
        raise CuesheetError(
            "meta/info.json has no 'features' (an object with one entry a column); "
            "every LeRobot dataset has them. Is the file complete?"
        )
    cameras: dict[str, Camera] = {}
    notices: list[str] = []
    for key, feature in features.items():
        kind = feature.get("dtype") if isinstance(feature, dict) else None
        if kind not in ("video", "image"):
            continue
        details = {**(feature.get("video_info") or {}), **(feature.get("info") or {})}
        if details.get("video.is_depth_map") or details.get("is_depth_map"):
            notices.append(f"Camera {key} records depth, not color: it is left out.")
            continue
        width, height = _frame_size(feature, details)
        codec = str(details.get("video.codec") or "") if kind == "video" else ""
        cameras[key] = Camera(key=key, kind=kind, width=width, height=height, codec=codec)
    return cameras, notices


def _frame_size(feature: Mapping[str, Any], details: Mapping[str, Any]) -> tuple[int, int]:
    """(width, height): by the names of the shape's axes, else as height, width, channels."""
    shape = feature.get("shape") or []
    axes = feature.get("names") or []
    if isinstance(axes, list) and len(axes) == len(shape):
        sizes = dict(zip(axes, shape, strict=True))
        if "width" in sizes and "height" in sizes:
            return int(sizes["width"]), int(sizes["height"])
    if len(shape) == 3:
        channels_first = shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4)
        height, width = (shape[1], shape[2]) if channels_first else (shape[0], shape[1])
        return int(width), int(height)
    return int(details.get("video.width") or 0), int(details.get("video.height") or 0)


def _read_episodes_table(root: Path, name: str, cameras: Mapping[str, Camera]) -> pa.Table:
    paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        raise CuesheetError(
            f"{name}: {root / 'meta/episodes'} has no parquet file (expected "
            "chunk-000/file-000.parquet and so on, one row an episode)."
        )
    required = list(_EPISODE_COLUMNS)
    for camera in cameras.values():
        if camera.kind == "video":
            required += [f"videos/{camera.key}/{column}" for column in _VIDEO_COLUMNS]
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
            wanted = [*required, *(["tasks"] if "tasks" in present else []), *statistics]
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


def _episodes(
    table: pa.Table, info: Mapping[str, Any], cameras: Mapping[str, Camera], name: str
) -> tuple[Episode, ...]:
    columns = {key: _values(table, key, name) for key in _EPISODE_COLUMNS}
    tasks_column = (
        table.column("tasks").to_pylist() if "tasks" in table.column_names else [None] * len(table)
    )
    tasks = [_task_tuple(value) for value in tasks_column]
    data_path = PathTemplate(info, "data_path", _DEFAULT_DATA_PATH, name)
    data_files = [
        data_path.format(chunk_index=chunk, file_index=file)
        for chunk, file in zip(columns["data/chunk_index"], columns["data/file_index"], strict=True)
    ]
    videos: list[dict[str, VideoRange]] = [{} for _ in range(len(table))]
    for camera in cameras.values():
        if camera.kind == "video":
            for entry, video in zip(
                videos, _video_ranges(table, info, camera.key, name), strict=True
            ):
                entry[camera.key] = video
    hashes = fingerprints(table, tasks, columns["length"])
    episodes = [
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
        )
        for row in range(len(table))
    ]
    episodes.sort(key=lambda episode: episode.episode_index)
    for before, after in itertools.pairwise(episodes):
        if before.episode_index == after.episode_index:
            raise CuesheetError(
                f"{name}: episode {after.episode_index} is in meta/episodes twice; "
                "expected one row an episode."
            )
    return tuple(episodes)


def _video_ranges(
    table: pa.Table, info: Mapping[str, Any], key: str, name: str
) -> list[VideoRange]:
    template = PathTemplate(info, "video_path", _DEFAULT_VIDEO_PATH, name)
    chunk, file, from_s, to_s = (
        _values(table, f"videos/{key}/{column}", name) for column in _VIDEO_COLUMNS
    )
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


def _task_tuple(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(task) for task in value)
