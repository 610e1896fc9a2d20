"""The annotations of one episode, read from its files, for the report and the review page."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuesheet.artifacts.episode import Episode, read_episode
from cuesheet.artifacts.failures import failed_episodes
from cuesheet.artifacts.inspection import InspectionFile
from cuesheet.artifacts.language import LanguageRow
from cuesheet.artifacts.layout import Layout
from cuesheet.artifacts.source_changes import read_fingerprints
from cuesheet.artifacts.stage_files import (
    STAGES,
    Call,
    MotionSpan,
    Provenance,
    Sample,
    SubtaskRecord,
    ValidationFile,
    VqaPair,
    read_stage_file,
)
from cuesheet.errors import CuesheetError


@dataclass(frozen=True)
class EpisodeView:
    """One annotated episode. Times in seconds, boxes in pixels of the source frame."""

    results: Path
    episode_index: int
    keyframes: Episode
    validation: ValidationFile
    subtasks: list[SubtaskRecord] = field(default_factory=list)
    agreement: float | None = None  # of the segmentation samples
    samples: list[Sample] = field(default_factory=list)
    persistent: list[LanguageRow] = field(default_factory=list)
    events: list[LanguageRow] = field(default_factory=list)
    motion: list[MotionSpan] = field(default_factory=list)
    pairs: list[VqaPair] = field(default_factory=list)
    inspection: InspectionFile | None = None
    made_by: dict[str, Provenance] = field(default_factory=dict)  # by stage

    @property
    def task(self) -> str:
        return self.keyframes.task

    @property
    def cameras(self) -> list[str]:
        return list(self.keyframes.cameras)

    @property
    def duration_s(self) -> float:
        """End of the last frame."""
        return self.keyframes.end_s

    @property
    def calls(self) -> Iterator[tuple[str, Call]]:
        """Yield (stage, call) for every request whose reply is in the episode's files."""
        for stage, made in self.made_by.items():
            for call in made.calls:
                yield stage, call

    def keyframe_file(self, camera: str, frame_index: int) -> Path | None:
        """Return the file of a keyframe, or None if it was not decoded or has been removed."""
        for frame in self.keyframes.keyframes.get(camera, ()):
            if frame.frame_index == frame_index:
                return frame.path if frame.path.is_file() else None
        return None


def annotated_episodes(results: Path) -> list[int]:
    """Return the annotated episodes that the source still has, in order."""
    validated = [number for number, _ in episode_files(results, "validation")]
    failed = failed_episodes(results, validated)
    return [number for number in validated if number not in failed]


def episode_files(results: Path, folder: str) -> list[tuple[int, Path]]:
    """Return (episode, path) of the JSON files of a folder below `results`, in order.

    Files of episodes that the source no longer has are left out.
    """
    known = read_fingerprints(Layout(results).index)
    paths = {int(path.stem): path for path in Layout(results).stage_folder(folder).glob("*.json")}
    return [(n, path) for n, path in sorted(paths.items()) if known is None or n in known]


def read_view(results: Path, episode_index: int) -> EpisodeView:
    """Read an annotated episode. Raises CuesheetError if one of its files is broken."""
    layout = Layout(results)
    parts: dict[str, list[Any]] = {
        part: [] for part in ("subtasks", "samples", "persistent", "events", "motion", "pairs")
    }
    agreement = None
    made_by: dict[str, Provenance] = {}
    for stage in STAGES:
        path = layout.stage_file(stage, episode_index)
        if not path.is_file():
            continue
        data = read_stage_file(path, stage)
        made_by[stage] = data.provenance
        agreement = data.agreement if stage == "plan" else agreement
        for part, rows in parts.items():
            rows += getattr(data, part)
    validation = ValidationFile.read(layout.validation(episode_index))
    inspection = None
    if validation.inspection:
        inspection = InspectionFile.read(layout.inspection(episode_index))
        made_by["inspection"] = inspection.provenance
    folder = layout.keyframes(episode_index)
    keyframes = read_episode(folder, needs_images=False)
    if keyframes.episode_index != episode_index:
        raise CuesheetError(
            f"{folder} belongs to episode {keyframes.episode_index}; delete it and run again"
        )
    return EpisodeView(
        results,
        episode_index,
        keyframes,
        validation,
        **parts,
        agreement=agreement,
        inspection=inspection,
        made_by=made_by,
    )
