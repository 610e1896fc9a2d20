"""The inspection of an episode: `inspection/{episode}.json`, which `inspect_episode` writes."""

from typing import Literal

from pydantic import Field

from cuesheet.artifacts.stage_files import File, Provenance

Verdict = Literal["ok", "doubtful", "failed"]
Judgement = Literal["yes", "no", "cannot_tell"]


class SubtaskInspection(File):
    """Whether a subtask is complete at its end; `why` is what the model saw."""

    label: str
    start_s: float
    end_s: float
    why: str = ""
    complete: Judgement


class EpisodeInspection(File):
    """Whether the task was achieved, and whether the robot failed at first and tried again."""

    why: str = ""
    achieved: Judgement
    retried: bool


class CameraDefect(File):
    """A defect of the recording that its pixels show."""

    camera: str
    defect: Literal["black", "frozen"]
    share: float = Field(ge=0, le=1)  # of the sampled frames


class InspectionFile(File):
    """All findings about one episode."""

    format: Literal[1]
    stage: Literal["inspection"]
    dataset: str
    episode_index: int
    episode: EpisodeInspection | None = None  # None if the model gave no usable reply
    subtasks: list[SubtaskInspection] = Field(default_factory=list)
    cameras: list[CameraDefect] = Field(default_factory=list)
    missing_acts: list[str] = Field(default_factory=list)  # in the task, but in no subtask
    warnings: list[str] = Field(default_factory=list)
    provenance: Provenance = Field(default_factory=Provenance)

    @property
    def verdict(self) -> Verdict:
        """`failed` if the task was not achieved; `doubtful` if something else is wrong."""
        if self.episode is not None and self.episode.achieved == "no":
            return "failed"
        return "doubtful" if self.doubt > 0 else "ok"

    @property
    def doubt(self) -> float:
        """Return how doubtful the episode is: 0 if nothing is wrong."""
        weights = {"yes": 0.0, "cannot_tell": 0.5, "no": 1.0}
        doubt = 2 * weights[self.episode.achieved] if self.episode else 1.0
        if any(subtask.complete == "no" for subtask in self.subtasks):
            doubt += sum(weights[subtask.complete] for subtask in self.subtasks) / len(
                self.subtasks
            )
        return doubt + len(self.cameras) + 0.5 * len(self.missing_acts)

    def findings(self) -> list[tuple[str, str, str]]:
        """Return (code, place, message) of everything that is wrong."""
        found = [
            (f"camera_{one.defect}", one.camera, f"{one.share:.0%} of its frames are {one.defect}.")
            for one in self.cameras
        ]
        if self.episode is None:
            found.append(("not_inspected", "episode", "the model gave no usable reply."))
        elif self.episode.achieved != "yes":
            said = "was not" if self.episode.achieved == "no" else "was perhaps not"
            found.append(("task_not_achieved", "episode", f"the task {said} achieved: {self.why}"))
        found += [
            (
                "subtask_incomplete",
                f"subtask at {subtask.start_s:.2f} s",
                f"{subtask.label!r} is not complete at {subtask.end_s:.2f} s: {subtask.why}",
            )
            for subtask in self.subtasks
            if subtask.complete == "no"
        ]
        found += [
            ("act_without_subtask", "task", f"the task says {act!r}, but no subtask does.")
            for act in self.missing_acts
        ]
        return found

    @property
    def why(self) -> str:
        return self.episode.why if self.episode else ""
