"""One episode as the annotation stages see it: its times and its decoded keyframes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cuesheet.artifacts.sampling import nearest_index
from cuesheet.errors import CuesheetError


@dataclass(frozen=True)
class Keyframe:
    """One decoded frame. `timestamp_s` counts from the episode's start."""

    camera: str
    frame_index: int
    timestamp_s: float
    path: Path
    width: int
    height: int


@dataclass(frozen=True)
class Episode:
    """One time per frame, the decoded frames of every camera, and which of them stages show.

    `grid` and `vqa` are the frame indices of `cuesheet.artifacts.sampling.KeyframeSelection`.
    """

    dataset: str
    episode_index: int
    task: str
    fps: float
    timestamps_s: Sequence[float]
    keyframes: dict[str, list[Keyframe]]
    grid: Sequence[int] = ()
    vqa: Sequence[int] = ()

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.episode_index:06d}"

    @property
    def length(self) -> int:
        return len(self.timestamps_s)

    @property
    def end_s(self) -> float:
        """End of the last frame: its timestamp and one frame period."""
        return round(self.timestamps_s[-1] + 1 / self.fps, 6)

    def nearest_frame(self, time_s: float) -> int:
        """Index of the frame whose timestamp is nearest (the earlier one in a tie)."""
        return nearest_index(self.timestamps_s, time_s)

    def frames_at(self, camera: str, indices: Sequence[int]) -> list[Keyframe]:
        """The keyframes of `indices`. Raises CuesheetError where one was not decoded."""
        by_index = {frame.frame_index: frame for frame in self.keyframes[camera]}
        missing = [index for index in indices if index not in by_index]
        if missing:
            raise CuesheetError(
                f"episode {self.name}, camera {camera}: frames {missing[:5]} were not decoded "
                f"({len(by_index)} keyframes are there); delete its keyframes folder and run again"
            )
        return [by_index[index] for index in indices]


def read_episode(folder: Path | str) -> Episode:
    """Read `keyframes.json` of a keyframes folder and check that its pictures are there.

    Raises CuesheetError that names what is missing.
    """
    folder = Path(folder)
    path = folder / "keyframes.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        keyframes = {
            camera: [
                Keyframe(
                    camera=camera,
                    frame_index=frame["frame_index"],
                    timestamp_s=frame["timestamp_s"],
                    path=folder / frame["file"],
                    width=frame["width"],
                    height=frame["height"],
                )
                for frame in frames
            ]
            for camera, frames in data["keyframes"].items()
        }
        episode = Episode(
            dataset=data["dataset"],
            episode_index=data["episode_index"],
            task=data["task"] or "",
            fps=data["fps"],
            timestamps_s=data["timestamps_s"],
            keyframes=keyframes,
            grid=data["grid"],
            vqa=data["vqa"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CuesheetError(
            f"{path} is missing or damaged ({error}); delete the folder and run again"
        ) from error
    for frames in keyframes.values():
        for frame in frames:
            if not frame.path.is_file():
                raise CuesheetError(
                    f"{frame.path} is listed in {path} but is not there; delete the folder "
                    "and run again"
                )
    return episode
