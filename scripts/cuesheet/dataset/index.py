"""The index of a dataset: episodes.parquet, one row per episode, made from checked metadata.

`artifacts.index` lists the columns. A row group holds 64 episodes, so a job that needs one episode
reads little.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.index import SCHEMA
from cuesheet.dataset.index_checks import (
    DataRows,
    Problem,
    VideoFileCheck,
    check_data_file,
    check_first_image,
    check_metadata,
    check_video_file,
)
from cuesheet.dataset.index_state import NOTICES_KEY, STATE_KEY, source_state
from cuesheet.dataset.metadata import Dataset, Episode
from cuesheet.dataset.task_index import check_tasks, describe_undivided, read_task_starts
from cuesheet.dataset.timing_checks import check_times, contradicted_fps, timing_notices
from cuesheet.errors import CuesheetError
from cuesheet.files import atomic_path
from cuesheet.text import counted, describe_range

_ROW_GROUP = 64
_SHOWN_PROBLEMS = 30

Progress = Callable[[Sequence[Any]], Iterator[Any]]


def build_index(
    dataset: Dataset, progress: Progress = iter, selected: Collection[int] | None = None
) -> tuple[pa.Table, list[str]]:
    """Return the index of a dataset, and notices for the person who runs the workflow.

    Any episode that is not `selected` (None: all are) and has problems is left out, with a notice.
    `progress` wraps the list of files, as `tqdm` does. Raises CuesheetError if metadata and files
    disagree; the message names file and episode of the first thirty problems.
    """
    every = {episode.episode_index for episode in dataset.episodes}
    needed = every if selected is None else set(selected)
    absent, elsewhere = _missing_files(dataset, needed)
    found = _check_files(dataset, absent, progress)
    concerned = {problem: found.concerned(problem) for problem in found.problems}
    errors = [p for p, episodes in concerned.items() if episodes & needed or not episodes & every]
    if errors:
        # A wrong fps makes every video look too short.
        wrong_fps = contradicted_fps(dataset, found.rows)
        advice = [f"{wrong_fps} Correct `fps` in that file and run again."] if wrong_fps else []
        raise CuesheetError("\n".join([_problem_text(dataset, errors), *advice]))
    task_starts = read_task_starts(dataset)
    left_out = elsewhere.union(*concerned.values())
    entries = [
        _entry(
            dataset,
            episode,
            found.rows[episode.episode_index],
            found.videos,
            task_starts.get(episode.episode_index, ()),
        )
        for episode in dataset.episodes
        if episode.episode_index not in left_out
    ]
    notices = [*dataset.notices, *_size_notices(dataset, found)]
    if absent:
        notices.append(
            f"{counted(len(absent), 'file')} missing: the index and the annotated dataset leave "
            f"out {describe_range(elsewhere)}."
        )
    notices += timing_notices(dataset, found.rows)
    alike = [index for index, starts in task_starts.items() if not starts]
    if alike:
        notices.append(describe_undivided(dataset, alike))
    if found.unknown - every:
        notices.append(
            f"the data files hold rows of {describe_range(found.unknown - every)}, which "
            "meta/episodes does not describe (was the recording interrupted?); they are not "
            "annotated."
        )
    notices += [f"left out of the index: {problem}" for problem in found.problems]
    return pa.Table.from_pylist(entries, schema=SCHEMA), notices


@dataclass
class _Findings:
    """What the checks of all files found."""

    episodes: dict[str, set[int]]  # of each file
    problems: list[Problem]
    rows: dict[int, DataRows] = field(default_factory=dict)  # by episode
    videos: dict[str, VideoFileCheck] = field(default_factory=dict)  # by file
    cameras: dict[str, str] = field(default_factory=dict)  # by video file
    unknown: set[int] = field(default_factory=set)  # episodes that only the data files have

    def concerned(self, problem: Problem) -> set[int]:
        """Return the episodes that a problem concerns."""
        if problem.episode_index is not None:
            return {problem.episode_index}
        return self.episodes.get(problem.file, set())


def _check_files(dataset: Dataset, absent: Collection[str], progress: Progress) -> _Findings:
    """Check all files but the `absent` ones against the metadata."""
    videos = _video_files(dataset)
    holds = {file: episodes for file, (_, episodes) in videos.items()} | dataset.data_files
    found = _Findings(
        {file: {episode.episode_index for episode in held} for file, held in holds.items()},
        [*check_metadata(dataset), *check_tasks(dataset)],
    )
    image_cameras = [camera.key for camera in dataset.cameras.values() if camera.kind == "image"]
    for file in progress([f for f in (*dataset.data_files, *videos) if f not in absent]):
        if file in videos:
            camera, episodes = videos[file]
            check = check_video_file(dataset.root, file, camera, episodes, dataset.fps)
            found.videos[file], found.cameras[file] = check, camera
            found.problems += check.problems
        else:
            data = check_data_file(
                dataset.root, file, dataset.data_files[file], dataset.fps, image_cameras
            )
            found.rows |= data.rows
            found.unknown |= {*data.unknown}
            found.problems += data.problems
            if not data.problems and data.rows:
                index, rows = next(iter(data.rows.items()))
                for camera in image_cameras:
                    found.problems += check_first_image(
                        dataset.root, file, camera, index, rows.row_from
                    )
                image_cameras = []  # one image of each camera shows its form
    found.problems += check_times(dataset, found.rows)
    return found


def _missing_files(dataset: Dataset, needed: Collection[int]) -> tuple[set[str], set[int]]:
    """Return missing files that no `needed` episode uses, and the episodes that use them."""
    files = dataset.files_of(episode.episode_index for episode in dataset.episodes)
    absent = {
        file
        for file, episodes in files.items()
        if not set(episodes) & set(needed) and not dataset.has_file(file)
    }
    return absent, {index for file in absent for index in files[file]}


def _video_files(dataset: Dataset) -> dict[str, tuple[str, list[Episode]]]:
    files: dict[str, tuple[str, list[Episode]]] = {}
    for episode in dataset.episodes:
        for camera, video in episode.videos.items():
            files.setdefault(video.file, (camera, []))[1].append(episode)
    return dict(sorted(files.items()))


def _problem_text(dataset: Dataset, problems: list[Problem]) -> str:
    concerned = {p.episode_index for p in problems if p.episode_index is not None}
    shown = "\n  ".join(str(problem) for problem in problems[:_SHOWN_PROBLEMS])
    more = len(problems) - _SHOWN_PROBLEMS
    rest = f"\n  and {more} more" if more > 0 else ""
    which = f" ({describe_range(concerned)})" if concerned else ""
    return (
        f"{dataset.name}: the metadata and the files at {dataset.root} disagree, "
        f"{len(problems)} problem{'s' if len(problems) > 1 else ''}{which}:\n  {shown}{rest}\n"
        "No index was written. Copy or download the dataset again, repair these files, or leave "
        "these episodes out (for example, episodes: [0, 3, 5-9] annotates only those)."
    )


def _entry(
    dataset: Dataset,
    episode: Episode,
    rows: DataRows,
    checks: dict[str, VideoFileCheck],
    task_starts: Sequence[tuple[int, str]],
) -> dict[str, Any]:
    cameras = []
    for camera in dataset.cameras.values():
        video = episode.videos.get(camera.key)
        if camera.kind == "video" and video is None:
            continue  # this episode was recorded without the camera
        check = checks[video.file] if video else None
        width, height = (check and check.size) or (camera.width, camera.height)
        cameras.append(
            {
                "camera": camera.key,
                "kind": camera.kind,
                "file": video.file if video else None,
                "from_s": video.from_s if video else None,
                "to_s": video.to_s if video else None,
                "width": width,
                "height": height,
                "codec": check.codec if check else camera.codec,
            }
        )
    return {
        "episode_index": episode.episode_index,
        "task": episode.task,
        "tasks": list(episode.tasks),
        "task_starts": [{"frame_index": frame, "task": task} for frame, task in task_starts],
        "length": episode.length,
        "fps": dataset.fps,
        "data_file": episode.data_file,
        "row_from": rows.row_from,
        "row_to": rows.row_to,
        "fingerprint": episode.fingerprint,
        "timestamps": rows.timestamps,
        "cameras": cameras,
    }


def _size_notices(dataset: Dataset, found: _Findings) -> list[str]:
    notices = []
    for file, key in found.cameras.items():
        camera, size = dataset.cameras[key], found.videos[file].size
        if size and camera.width and size != (camera.width, camera.height):
            notices.append(
                f"{file}: frames are {size[0]} x {size[1]} pixels; meta/info.json says "
                f"{camera.width} x {camera.height}. The size of the video is used."
            )
    return notices


def make_index(
    path: Path | str, dataset: Dataset, selected: Collection[int], progress: Progress = iter
) -> list[str]:
    """Build and write the index; return notices. Raises CuesheetError, see `build_index`."""
    state = source_state(dataset)
    table, notices = build_index(dataset, progress, selected)
    write_index(
        table.replace_schema_metadata({STATE_KEY: state, NOTICES_KEY: json.dumps(notices)}), path
    )
    return notices


def write_index(table: pa.Table, path: Path | str) -> None:
    """Write the index atomically, in row groups of 64 episodes."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, row_group_size=_ROW_GROUP, compression="snappy")
