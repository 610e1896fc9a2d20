"""Cameras, episodes and video ranges of a dataset, independent of the format version.

Paths are relative to the dataset's root and use forward slashes. Times are in seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera of the dataset. Width and height in pixels, 0 if the metadata does not say."""

    key: str
    kind: str  # "video", or "image": encoded images inside the data files
    width: int
    height: int
    codec: str  # as info.json names it; "" for images or if it is not given


@dataclass(frozen=True, slots=True)
class VideoRange:
    """The part of a video file that shows an episode: [from_s, to_s) in seconds."""

    file: str
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode as the metadata describes it."""

    episode_index: int
    task: str  # the first task, "" if there is none
    tasks: tuple[str, ...]
    length: int  # frames
    data_file: str
    dataset_from_index: int  # first frame, counted over the whole dataset
    dataset_to_index: int  # one past the last frame
    videos: Mapping[str, VideoRange]  # by camera key; cameras of kind "image" are not in here
    fingerprint: str  # hash of tasks, length and statistics, not of the position in files
    # Videos of cameras that are not used (depth, or not selected); they are only carried over.
    excluded_videos: Mapping[str, VideoRange] = field(default_factory=dict, repr=False)
