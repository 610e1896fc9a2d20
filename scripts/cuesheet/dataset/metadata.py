"""The metadata of a LeRobot dataset: info.json and the episodes' metadata.

Only the metadata that is needed is read, and no frames or videos, so the Snakefile can call this
while it is parsed. Supported formats: v3.0, as written by lerobot 0.4, and v2.1.

Paths in the results are relative to the dataset's root and use forward slashes. Times are in
seconds.
"""

import functools
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cuesheet.dataset import v21, v30
from cuesheet.dataset.data_placement import resolve_data_files
from cuesheet.dataset.file_forms import found_instead
from cuesheet.dataset.models import Camera, Episode, VideoRange
from cuesheet.dataset.task_table import check_task_files
from cuesheet.errors import CuesheetError
from cuesheet.text import describe_range, did_you_mean

__all__ = ["Camera", "Dataset", "Episode", "VideoRange", "read_dataset"]

SUPPORTED_VERSIONS = ("v3.0", "v2.1")
_CAMERA_KEY = re.compile(r"[^/\\{}\x00-\x1f]+")


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
    excluded_cameras: Mapping[str, Camera] = field(default_factory=dict)  # copied, not used

    @functools.cached_property
    def data_files(self) -> dict[str, list[Episode]]:
        """Episodes by data file, both in the order of the dataset's frames."""
        files: dict[str, list[Episode]] = {}
        for episode in sorted(self.episodes, key=lambda e: (e.dataset_from_index, e.episode_index)):
            files.setdefault(episode.data_file, []).append(episode)
        return files

    @functools.cached_property
    def _by_index(self) -> dict[int, Episode]:
        return {episode.episode_index: episode for episode in self.episodes}

    def files_of(
        self, episode_indices: Iterable[int], *, include_excluded: bool = False
    ) -> dict[str, list[int]]:
        """Return the data and video files of some episodes, each with the episodes that need it.

        Videos of excluded cameras count only with `include_excluded`.
        """
        needed: dict[str, list[int]] = {}
        for index in episode_indices:
            episode = self.episode(index)
            videos = [*episode.videos.values()]
            videos += episode.excluded_videos.values() if include_excluded else ()
            for file in {episode.data_file, *(video.file for video in videos)}:
                needed.setdefault(file, []).append(index)
        return needed

    def with_cameras(self, cameras: Sequence[str]) -> "Dataset":
        """Return the same dataset with only these cameras in use, in this order."""
        rest = {key: camera for key, camera in self.cameras.items() if key not in cameras}
        episodes = (
            replace(
                episode,
                videos={key: video for key, video in episode.videos.items() if key in cameras},
                excluded_videos={
                    **{key: video for key, video in episode.videos.items() if key in rest},
                    **episode.excluded_videos,
                },
            )
            for episode in self.episodes
        )
        return replace(
            self,
            cameras={key: self.cameras[key] for key in cameras},
            excluded_cameras={**rest, **self.excluded_cameras},
            episodes=tuple(episodes),
        )

    def has_file(self, file: str) -> bool:
        """Return whether a file is on this disk; a partial copy or download lacks some."""
        return (self.root / file).is_file()

    def episode(self, episode_index: int) -> Episode:
        """Return the episode with that number. Raises CuesheetError that names the valid range."""
        try:
            return self._by_index[episode_index]
        except KeyError:
            raise CuesheetError(
                f"{self.name}: there is no episode {episode_index}; "
                f"the dataset at {self.root} has {describe_range(self._by_index)}."
            ) from None

    def camera(self, key: str) -> Camera:
        """Return the camera with that key. Raises CuesheetError that names the most similar one."""
        if key in self.cameras:
            return self.cameras[key]
        hint = "The dataset has no camera."
        if self.cameras:
            near = did_you_mean(key, self.cameras, cutoff=0.5)
            hint = f"Did you mean {near!r}? " if near else ""
            hint += f"The cameras are: {', '.join(self.cameras)}."
        raise CuesheetError(f"{self.name}: there is no camera {key!r}. {hint}")


def read_dataset(root: Path | str, name: str) -> Dataset:
    """Read the metadata of the dataset in the folder `root`; `name` is for messages.

    Raises CuesheetError if the path does not exist or is not a LeRobot dataset, a metadata file is
    malformed, a needed key or column is missing, or the format version is not supported.
    """
    root = Path(root).expanduser()
    info = _read_info(root, name)
    version = _checked_version(info, root, name)
    fps = _checked_fps(info, root, name)
    cameras, excluded, notices = _cameras(info)
    if info["codebase_version"] != version:
        notices.append(
            f"meta/info.json says format {info['codebase_version']!r}, which is read as {version}."
        )
    if version == "v2.1":
        episodes = v21.read_episodes(root, info, cameras, excluded, name)
    else:
        check_task_files(root, name)
        table = v30.read_table(root, name, cameras, excluded)
        episodes = v30.read_episodes(root, table, info, cameras, excluded, name)
        episodes, notice = resolve_data_files(root, episodes)
        notices += [*([notice] if notice else []), *v30.layout_notices(root)]
    if not episodes:
        raise CuesheetError(
            f"{name}: the metadata at {root / 'meta'} lists no episode; was the recording "
            "interrupted before the first one was saved?"
        )
    notices += _total_notices(info, episodes) + _task_notices(episodes)
    return Dataset(
        name=name,
        root=root,
        version=version,
        fps=fps,
        info=info,
        cameras=cameras,
        episodes=_in_order(episodes, name),
        notices=tuple(notices),
        excluded_cameras=excluded,
    )


def _read_info(root: Path, name: str) -> dict[str, Any]:
    if not root.exists():
        raise CuesheetError(
            f"{name}: {root} does not exist. "
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
        info = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = found_instead(path) or error
        raise CuesheetError(f"{name}: {path} is not valid JSON: {reason}.") from None
    except OSError as error:
        raise CuesheetError(f"{name}: {path} cannot be read: {error.strerror}.") from None
    try:
        json.dumps(info, allow_nan=False)
    except ValueError:
        raise CuesheetError(
            f"{name}: {path} holds NaN or Infinity, which JSON does not have; write null instead."
        ) from None
    if not isinstance(info, dict):
        raise CuesheetError(f"{name}: {path} holds a {type(info).__name__}; expected an object.")
    return info


def _checked_version(info: Mapping[str, Any], root: Path, name: str) -> str:
    """Return the format to read the dataset as. Raises CuesheetError for one that is too old."""
    given = _required(info, "codebase_version", root, name)
    numbers = re.fullmatch(r"v?(\d+)(?:\.(\d+))?(?:\.\d+)?", str(given).strip())
    parts = (int(numbers[1]), int(numbers[2] or 0)) if numbers else (0, 0)
    version = f"v{parts[0]}.{parts[1]}"
    if version in SUPPORTED_VERSIONS:
        return version
    label = f"{name}: {root} is a LeRobot dataset of format {given!r}"
    if numbers is None:
        raise CuesheetError(f"{label}; supported: {', '.join(SUPPORTED_VERSIONS)}.")
    if parts > (3, 0):
        if (root / "meta" / "episodes").is_dir():
            return "v3.0"
        raise CuesheetError(
            f"{label}, which is newer than this version of Cuesheet supports "
            f"({', '.join(SUPPORTED_VERSIONS)}), and its layout is not that of v3.0."
        )
    if version == "v2.0" and (root / v21.EPISODES).is_file():
        return "v2.1"
    raise CuesheetError(
        f"{label}; supported: {', '.join(SUPPORTED_VERSIONS)}. Convert it with LeRobot's scripts, "
        "one version after the other: v1.x with convert_dataset_v1_to_v2, then "
        "convert_dataset_v20_to_v21, then convert_dataset_v21_to_v30."
    )


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


def _cameras(
    info: Mapping[str, Any],
) -> tuple[dict[str, Camera], dict[str, Camera], list[str]]:
    """Return the color cameras, the depth cameras, and notices about the latter."""
    features = info.get("features")
    if not isinstance(features, dict):
        raise CuesheetError(
            "meta/info.json has no 'features' (an object with one entry per column); "
            "every LeRobot dataset has them. Is the file complete?"
        )
    cameras: dict[str, Camera] = {}
    excluded: dict[str, Camera] = {}
    notices: list[str] = []
    for key, feature in features.items():
        if not isinstance(feature, dict):
            raise CuesheetError(
                f"meta/info.json: the feature {key!r} is {feature!r}; expected an object with "
                "dtype and shape."
            )
        dtype = feature.get("dtype")
        if dtype not in ("video", "image"):
            continue
        if not _CAMERA_KEY.fullmatch(key):
            raise CuesheetError(
                f"meta/info.json: the camera is called {key!r}; a camera name may not contain "
                "slashes, braces or control characters, because it is used as a folder name."
            )
        details = _video_details(feature)
        width, height = _frame_size(key, feature, details)
        codec = str(details.get("video.codec") or "") if dtype == "video" else ""
        camera = Camera(key=key, kind=dtype, width=width, height=height, codec=codec)
        if _is_depth(key, feature, details):
            notices.append(f"Camera {key} records depth, not color, and is not used.")
            excluded[key] = camera
        else:
            cameras[key] = camera
    return cameras, excluded, notices


def _video_details(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a camera's feature says about its video; older writers call it video_info."""
    found: dict[str, Any] = {}
    for key in ("video_info", "info"):
        found |= feature[key] if isinstance(feature.get(key), dict) else {}
    return found


def _is_depth(key: str, feature: Mapping[str, Any], details: Mapping[str, Any]) -> bool:
    """Return what the metadata says; else whether it has one channel and "depth" in its name."""
    for name in ("video.is_depth_map", "is_depth_map"):
        if details.get(name) is not None:
            return bool(details[name])
    shape = feature.get("shape") or []
    if not isinstance(shape, list):
        return False
    one_channel = len(shape) == 2 or 1 in (shape[:1] + shape[-1:])
    return one_channel and "depth" in key.lower()


def _frame_size(
    key: str, feature: Mapping[str, Any], details: Mapping[str, Any]
) -> tuple[int, int]:
    """Return (width, height): by the names of the shape's axes, else as height, width, channels."""
    shape = feature.get("shape") or []
    sizes = [*shape] if isinstance(shape, list | tuple) else [shape]
    if not all(isinstance(size, int | float) and not isinstance(size, bool) for size in sizes):
        raise CuesheetError(
            f"meta/info.json: the shape of {key} is {shape!r}; expected whole numbers, such as "
            "[480, 640, 3]."
        )
    axes = feature.get("names") or []
    if isinstance(axes, list) and len(axes) == len(sizes):
        by_name = {str(axis): size for axis, size in zip(axes, sizes, strict=True)}
        if "width" in by_name and "height" in by_name:
            return int(by_name["width"]), int(by_name["height"])
    if len(sizes) == 3:
        channels_first = sizes[0] in (1, 3, 4) and sizes[2] not in (1, 3, 4)
        height, width = (sizes[1], sizes[2]) if channels_first else (sizes[0], sizes[1])
        return int(width), int(height)
    return _size(details, "video.width"), _size(details, "video.height")


def _size(details: Mapping[str, Any], key: str) -> int:
    value = details.get(key)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _total_notices(info: Mapping[str, Any], episodes: Sequence[Episode]) -> list[str]:
    """Return notices about totals in info.json that the episodes' metadata does not add up to.

    A recorder that crashed leaves such totals; the episodes that are described are complete.
    """
    frames = sum(episode.length for episode in episodes)
    notices = []
    for key, found in (("total_episodes", len(episodes)), ("total_frames", frames)):
        said = info.get(key)
        try:
            same = said is None or float(said) == found
        except (TypeError, ValueError):
            same = False
        if not same:
            notices.append(
                f"meta/info.json says {key} = {said}; meta/episodes describes {found}, and these "
                "are annotated."
            )
    return notices


def _task_notices(episodes: Sequence[Episode]) -> list[str]:
    """Return one notice about episodes with several tasks."""
    several = [episode for episode in episodes if len(episode.tasks) > 1]
    if not several:
        return []
    first = several[0]
    quoted = ", ".join(repr(task) for task in first.tasks)
    which = describe_range(episode.episode_index for episode in several)
    return [
        f"{which}: more than one task (episode {first.episode_index}: {quoted}); each one applies "
        "from the frame on that task_index says."
    ]


def _in_order(episodes: list[Episode], name: str) -> tuple[Episode, ...]:
    """Return the episodes by number. Raises CuesheetError if a number occurs twice."""
    ordered = tuple(sorted(episodes, key=lambda episode: episode.episode_index))
    for before, after in itertools.pairwise(ordered):
        if before.episode_index == after.episode_index:
            raise CuesheetError(
                f"{name}: episode {after.episode_index} is in the metadata twice; "
                "expected one row per episode."
            )
    return ordered
