"""Checks of a dataset's metadata against its data and video files.

Nothing is decoded. Three columns of each data file are read. Of each video file the index of frames
is read, and packets of an episode only if that index is not conclusive.
"""

import bisect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.dataset.data_reader import episode_start_s, seconds_from_start
from cuesheet.dataset.file_forms import found_instead
from cuesheet.dataset.metadata import Dataset, Episode
from cuesheet.errors import CuesheetError
from cuesheet.media import packets

_COLUMNS = ("episode_index", "frame_index", "timestamp")
# Fraction of a frame by which float32 may change a timestamp. Language rows store times as float32.
_MAX_ROUNDING = 0.1


@dataclass(frozen=True)
class Problem:
    """A disagreement with a file; `episode_index` is None if the whole file is concerned."""

    file: str  # relative to the dataset's root
    episode_index: int | None
    message: str

    def __str__(self) -> str:
        episode = "" if self.episode_index is None else f"episode {self.episode_index}, "
        return f"{episode}{self.file}: {self.message}"


@dataclass(frozen=True)
class DataRows:
    """The rows of an episode in its data file, [row_from, row_to), and their timestamps."""

    row_from: int
    row_to: int
    timestamps: np.ndarray  # float32, seconds from the start of the episode
    start_s: float = 0.0  # what the data file's own timestamps say at that start


@dataclass
class DataFileCheck:
    """The episodes in a data file, and the problems found."""

    rows: dict[int, DataRows] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)  # episodes not listed for this file


@dataclass(frozen=True)
class VideoFileCheck:
    """Frame size and codec of a video file (None and "" if unreadable), and the problems found."""

    size: tuple[int, int] | None
    codec: str
    problems: list[Problem]


@dataclass(frozen=True)
class _Run:
    """Consecutive rows of one episode."""

    episode_index: int
    row_from: int
    frame_index: np.ndarray
    timestamps: np.ndarray  # float64


def check_metadata(dataset: Dataset) -> list[Problem]:
    """Check the metadata against itself: lengths, and ranges that overlap."""
    problems: list[Problem] = []
    for episode in dataset.episodes:
        span = episode.dataset_to_index - episode.dataset_from_index
        if span != episode.length or episode.length < 1:
            message = (
                f"length is {episode.length}, and dataset_from_index to dataset_to_index are "
                f"{span} frames; expected the same number, at least 1"
            )
            problems.append(Problem("meta/episodes", episode.episode_index, message))
    by_start = sorted(dataset.episodes, key=lambda episode: episode.dataset_from_index)
    for before, after in itertools.pairwise(by_start):
        if after.dataset_from_index < before.dataset_to_index:
            message = (
                f"starts at frame {after.dataset_from_index} of the dataset, inside episode "
                f"{before.episode_index} (which ends at {before.dataset_to_index})"
            )
            problems.append(Problem("meta/episodes", after.episode_index, message))
    return problems


def check_data_file(
    root: Path,
    data_file: str,
    episodes: Sequence[Episode],
    fps: float,
    image_cameras: Sequence[str] = (),
) -> DataFileCheck:
    """Check the rows of a data file, in which the metadata expects `episodes` in this order.

    `image_cameras` are the cameras whose images are columns of the file.
    """
    check = DataFileCheck()
    expected = {episode.episode_index: episode for episode in episodes}
    numbers = _numbers(expected)

    def problem(episode_index: int | None, message: str) -> None:
        check.problems.append(Problem(data_file, episode_index, message))

    try:
        with pq.ParquetFile(root / data_file) as file:
            if wrong := _check_columns(file.schema_arrow.names, [*_COLUMNS, *image_cameras]):
                problem(None, f"{wrong} ({numbers})")
                return check
            check.problems += [
                Problem(data_file, None, f"{wrong} ({numbers})")
                for wrong in _wrong_images(file.schema_arrow, image_cameras)
            ]
            for run in _runs(file):
                episode = expected.get(run.episode_index)
                if episode is None:
                    check.unknown.append(run.episode_index)
                elif run.episode_index in check.rows:
                    problem(run.episode_index, "its rows are not contiguous")
                else:
                    check.rows[run.episode_index] = _check_run(run, episode, check, data_file, fps)
    except FileNotFoundError:
        problem(None, _missing(root / data_file, numbers))
        return check
    except CuesheetError as error:
        problem(None, f"{error} ({numbers})")
        return check
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        instead = found_instead(root / data_file)
        problem(None, f"the parquet file cannot be read ({numbers}): {instead or reason}")
        return check
    for episode_index in expected:
        if episode_index not in check.rows:
            problem(episode_index, "the file has no rows of it")
    if not check.problems and list(check.rows) != list(expected):
        problem(
            None, f"its episodes are in the order {list(check.rows)}; expected {list(expected)}"
        )
    return check


def _check_columns(names: Sequence[str], wanted: Sequence[str]) -> str:
    """Return what is wrong with the names of a data file's columns; "" if nothing is."""
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            return f"it has more than one column {name!r}; expected one"
    for name in wanted:
        if name not in names:
            return f"it has no column {name!r}, a feature in meta/info.json"
    return ""


def _wrong_images(schema: pa.Schema, cameras: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the types of the columns that hold images."""
    for camera in cameras:
        kind = schema.field(camera).type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            continue
        names = [field.name for field in kind] if pa.types.is_struct(kind) else []
        if not {"bytes", "path"} & set(names):
            yield (
                f"the images of {camera} are stored as {str(kind)[:80]}; expected encoded images "
                "(JPEG or PNG), each as bytes, a path, or both"
            )


def check_first_image(
    root: Path, data_file: str, camera: str, episode_index: int, row: int
) -> list[Problem]:
    """Decode the image in one row of a data file, such as one with 16 bits; return the problems."""
    from cuesheet.media.image_columns import read_images  # only these datasets need Pillow

    path = root / data_file
    label = f"camera {camera}"
    try:
        list(
            read_images(
                path, root=root, camera=camera, row_from=row, frame_indices=[0], label=label
            )
        )
    except CuesheetError as error:
        message = str(error).replace(f", {path}", "")
        return [Problem(data_file, episode_index, message)]
    return []


def _missing(path: Path, numbers: str) -> str:
    instead = found_instead(path)
    return f"the file is missing ({numbers})" + (f": {instead}" if instead else "")


def _numbers(episodes: Mapping[int, Episode]) -> str:
    listed = ", ".join(map(str, list(episodes)[:10]))
    more = f" and {len(episodes) - 10} more" if len(episodes) > 10 else ""
    return f"episode{'s' if len(episodes) > 1 else ''} {listed}{more}"


def _runs(file: pq.ParquetFile) -> Iterator[_Run]:
    table = file.read(columns=list(_COLUMNS))
    episode, frame, time = (_scalars(table.column(name), name) for name in _COLUMNS)
    cuts = np.flatnonzero(np.diff(episode)) + 1
    for start, end in itertools.pairwise([0, *cuts.tolist(), len(episode)]):
        if start < end:
            times = time[start:end].astype(np.float64)
            yield _Run(int(episode[start]), start, frame[start:end], times)


def _scalars(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """Return a column of numbers; features of shape [1] may be stored as lists of one."""
    rows = len(column)
    if pa.types.is_nested(column.type):
        column = column.combine_chunks().flatten()
        if len(column) != rows:
            raise CuesheetError(f"the column {name!r} holds lists; expected one number per row")
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise CuesheetError(f"the column {name!r} has no value in row {row}; expected a number")
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if not numeric:
        raise CuesheetError(f"the column {name!r} is of type {column.type}; expected numbers")
    values = column.to_numpy()
    if name != "timestamp" and pa.types.is_floating(column.type):
        if not np.all(np.isfinite(values)) or np.any(values != np.floor(values)):
            raise CuesheetError(f"the column {name!r} holds fractions; expected whole numbers")
        values = values.astype(np.int64)
    return values


def _check_run(
    run: _Run, episode: Episode, check: DataFileCheck, data_file: str, fps: float
) -> DataRows:
    frame_index, timestamps = run.frame_index, run.timestamps
    messages = []
    if len(frame_index) != episode.length:
        messages.append(
            f"the metadata says {episode.length} frames; the file has {len(frame_index)}"
        )
    wrong = np.flatnonzero(frame_index != np.arange(len(frame_index)))
    if len(wrong):
        at = int(wrong[0])
        messages.append(f"row {at} of it has frame_index {frame_index[at]}; expected {at}")
    infinite = np.flatnonzero(~np.isfinite(timestamps))
    if len(infinite):
        at = int(infinite[0])
        messages.append(f"frame {at} has the timestamp {timestamps[at]}; expected a finite number")
    else:
        back = np.flatnonzero(np.diff(timestamps) <= 0)
        if len(back):
            at = int(back[0])
            messages.append(
                f"timestamps do not increase: frame {at} is at {timestamps[at]} s, "
                f"frame {at + 1} at {timestamps[at + 1]} s"
            )
    start_s = episode_start_s(timestamps)
    if not messages and start_s and np.spacing(np.float32(timestamps[-1])) > _MAX_ROUNDING / fps:
        messages.append(
            f"its timestamps start at {timestamps[0]:.6g} s, which is so large that float32, the "
            "type of times in language rows, cannot tell its frames apart; subtract the first "
            "timestamp of each episode"
        )
    check.problems += [Problem(data_file, run.episode_index, message) for message in messages]
    row_to = run.row_from + len(frame_index)
    return DataRows(run.row_from, row_to, seconds_from_start(timestamps), start_s)


def check_video_file(
    root: Path, file: str, camera: str, episodes: Sequence[Episode], fps: float
) -> VideoFileCheck:
    """Check that the video range of every episode has at least as many frames as the episode."""
    problems: list[Problem] = []
    ordered = sorted(episodes, key=lambda episode: episode.videos[camera].from_s)
    for before, after in itertools.pairwise(ordered):
        end_s, start_s = before.videos[camera].to_s, after.videos[camera].from_s
        if start_s < end_s - 0.5 / fps:
            message = (
                f"starts at {start_s:.6f} s, inside the range of episode {before.episode_index}, "
                f"which ends at {end_s:.6f} s"
            )
            problems.append(Problem(file, after.episode_index, message))
    numbers = _numbers({episode.episode_index: episode for episode in ordered})
    path = root / file
    if not path.is_file():
        problems.append(Problem(file, None, _missing(path, numbers)))
        return VideoFileCheck(None, "", problems)
    try:
        times, size, codec = _contents(path, file)
    except (av.FFmpegError, OSError, CuesheetError) as error:
        cause = None if isinstance(error, CuesheetError) else error.strerror
        reason = found_instead(path) or cause or str(error)
        problems.append(Problem(file, None, f"the video cannot be read ({numbers}): {reason}"))
        return VideoFileCheck(None, "", problems)
    for episode in ordered:
        problem = _check_range(path, times, camera, episode, fps)
        if problem:
            problems.append(Problem(file, episode.episode_index, problem))
    return VideoFileCheck(size, codec, problems)


def _check_range(
    path: Path, times: list[float], camera: str, episode: Episode, fps: float
) -> str | None:
    """Return what is wrong with an episode's range of a video, or None."""
    video = episode.videos[camera]
    finite = math.isfinite(video.from_s) and math.isfinite(video.to_s)
    if not finite or video.to_s <= video.from_s:
        return f"its range is {video.from_s} s to {video.to_s} s; expected the end after the start"
    half_s = 0.5 / fps
    if video.from_s < -half_s:
        return f"its range starts at {video.from_s} s; expected 0 or later"
    begin = bisect.bisect_left(times, video.from_s - half_s)
    if bisect.bisect_left(times, video.to_s - half_s) - begin >= episode.length:
        return None
    # The index has decoding times; packets have presentation times.
    try:
        packets.locate_range(
            path,
            from_s=video.from_s,
            to_s=video.to_s,
            length=episode.length,
            fps=fps,
            label=f"camera {camera}",
        )
    except CuesheetError as error:
        return str(error).removeprefix(f"camera {camera}, {path}: ")
    return None


def _contents(path: Path, file: str) -> tuple[list[float], tuple[int, int], str]:
    """Return the frame times of a video (s from the first, sorted), its frame size and its codec.

    Frames whose bytes are beyond the end of a truncated file are left out.
    """
    end = path.stat().st_size
    with packets.open_video(path, file) as container:
        stream = packets.video_stream(container, file)
        entries = [e for e in stream.index_entries if e.pos + e.size <= end]
        first = entries[0].timestamp if entries else 0
        time_base = packets.time_base_of(stream, file)
        times = sorted(float((e.timestamp - first) * time_base) for e in entries)
        codec = stream.codec_context
        return times, (codec.width, codec.height), codec.codec.canonical_name
