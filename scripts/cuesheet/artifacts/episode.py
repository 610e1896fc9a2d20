"""One episode for the annotation stages and everything after them: its times and keyframes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, FiniteFloat

from cuesheet.artifacts.layout import KEYFRAMES_FILE, episode_name
from cuesheet.artifacts.sampling import nearest_index
from cuesheet.artifacts.stage_files import File
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
    fine: Sequence[int] = ()  # denser grid for the second look; empty without it
    task_starts: Sequence[tuple[int, str]] = ()  # frame_index and task, if there are several

    @property
    def cameras(self) -> dict[str, Keyframe]:
        """The first keyframe of every camera, whose size is that of all its frames."""
        return {camera: frames[0] for camera, frames in self.keyframes.items()}

    @property
    def name(self) -> str:
        return f"{self.dataset}/{episode_name(self.episode_index)}"

    @property
    def length(self) -> int:
        return len(self.timestamps_s)

    @property
    def end_s(self) -> float:
        """End of the last frame: its timestamp and one frame period."""
        return round(self.timestamps_s[-1] + 1 / self.fps, 6)

    def nearest_frame(self, time_s: float) -> int:
        """Return the index of the frame with the nearest timestamp (the earlier in a tie)."""
        return nearest_index(self.timestamps_s, time_s)

    def frames_at(self, camera: str, indices: Sequence[int]) -> list[Keyframe]:
        """Return the keyframes of `indices`. Raises CuesheetError if one was not decoded."""
        by_index = {frame.frame_index: frame for frame in self.keyframes[camera]}
        missing = [index for index in indices if index not in by_index]
        if missing:
            raise CuesheetError(
                f"episode {self.name}, camera {camera}: frames {missing[:5]} are not among the "
                f"{len(by_index)} decoded keyframes; delete its keyframes folder and run again"
            )
        return [by_index[index] for index in indices]


class _Entry(File):
    frame_index: int
    timestamp_s: FiniteFloat
    file: str
    width: int
    height: int


class _TaskStart(File):
    frame_index: int
    task: str


class KeyframesFile(File):
    """keyframes.json, which `media.keyframes` writes."""

    advice: ClassVar[str] = "Delete the folder and run again."

    format: Literal[1]
    dataset: str
    episode_index: int
    task: str | None = None
    task_starts: list[_TaskStart] = Field(default_factory=list)
    fps: float = Field(gt=0)
    timestamps_s: list[FiniteFloat] = Field(min_length=1)
    grid: list[int]
    vqa: list[int]
    fine: list[int] = Field(default_factory=list)
    keyframes: dict[str, Annotated[list[_Entry], Field(min_length=1)]]

    def episode(self, folder: Path) -> Episode:
        """Return the episode whose keyframes are in `folder`."""
        return Episode(
            dataset=self.dataset,
            episode_index=self.episode_index,
            task=self.task or "",
            fps=self.fps,
            timestamps_s=self.timestamps_s,
            keyframes={
                camera: [
                    Keyframe(
                        camera, e.frame_index, e.timestamp_s, folder / e.file, e.width, e.height
                    )
                    for e in entries
                ]
                for camera, entries in self.keyframes.items()
            },
            grid=self.grid,
            vqa=self.vqa,
            fine=self.fine,
            task_starts=[(start.frame_index, start.task) for start in self.task_starts],
        )


def read_episode(folder: Path | str, *, needs_images: bool = True) -> Episode:
    """Read `keyframes.json` of a keyframes folder; with `needs_images`, check that images exist.

    Raises CuesheetError if the file is missing, truncated or not valid, or an image is missing.
    """
    folder = Path(folder)
    path = folder / KEYFRAMES_FILE
    episode = KeyframesFile.read(path).episode(folder)
    frames = (frame for listed in episode.keyframes.values() for frame in listed)
    for frame in frames if needs_images else ():
        if not frame.path.is_file():
            raise CuesheetError(
                f"{frame.path} does not exist, but {path} lists it; delete the folder and run again"
            )
    return episode
