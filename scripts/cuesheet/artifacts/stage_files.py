"""The annotation and validation files of an episode.

They may have been edited or truncated, so they are read through typed models.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from cuesheet.artifacts.language import LanguageRow
from cuesheet.errors import CuesheetError
from cuesheet.text import counted

StageName = Literal["plan", "interjections", "vqa", "inspection", "vocabulary"]
STAGES: tuple[StageName, ...] = ("plan", "interjections", "vqa")  # those that write rows


class File(BaseModel):
    """Base of the models of files: unknown keys are ignored, wrong types are errors.

    `advice` is the sentence that says how the user gets a valid file.
    """

    model_config = ConfigDict(extra="ignore", strict=True)
    advice: ClassVar[str] = "Delete it and run again."

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read the JSON file. Raises CuesheetError if it is missing, truncated or not valid."""
        try:
            return cls.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise CuesheetError(f"{path} does not exist; run the workflow to create it.") from None
        except OSError as error:
            raise CuesheetError(f"{path} cannot be read: {error.strerror}.") from None
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False)
            shown = "; ".join(f"{_place(p['loc'])}: {p['msg']}" for p in problems[:5])
            more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise CuesheetError(f"{path} is not valid: {shown}{more}. {cls.advice}") from None
        except (ValueError, RecursionError) as error:
            raise CuesheetError(f"{path} is not valid JSON: {error}. {cls.advice}") from None


def _place(location: tuple[int | str, ...]) -> str:
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in location]
    return "".join(steps).lstrip(".") or "the file"


class SubtaskRecord(File):
    """A subtask in a file: frames [start_frame, end_frame), seconds [start_s, end_s).

    `artifacts.subtasks.Subtask.as_json` writes it.
    """

    start_frame: int
    end_frame: int
    start_s: FiniteFloat
    end_s: FiniteFloat
    label: str
    agreement: float | None = None  # of the segmentation samples, 0 to 1


class Sample(File):
    """One of the segmentation samples from which the subtasks were merged."""

    temperature: float
    seed: int
    subtasks: list[SubtaskRecord]


class VqaPair(File):
    frame_index: int
    camera: str
    type: str
    question: str
    answer: dict[str, Any]


class Call(File):
    """One request to the model, as recorded in the provenance of a file."""

    name: str = ""
    prompt: str = ""
    cache_hit: bool = False
    latency_s: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    attempts: int = 1
    outcome: Literal["ok", "retried", "invalid", "failed"] = "ok"
    error: str | None = None
    key: str | None = None  # of the response in the cache
    correction_key: str | None = None
    stored: bool = True  # whether the responses could be cached


class Provenance(File):
    model: str | None = None
    served_by: str | None = None
    prompts: dict[str, str] = Field(default_factory=dict)  # sha256 of each prompt file
    sampling: dict[str, Any] = Field(default_factory=dict)
    finished_at: str | None = None
    calls: list[Call] = Field(default_factory=list)


class Task(File):
    """The task of the episode; `source` is `dataset` or `video`."""

    text: str = ""
    source: str = "dataset"


class PropagationUsed(File):
    """The origin of propagated subtasks, and whether they replaced the model's."""

    source_episode: int
    confidence: float
    is_confident: bool = False  # at least `plan.propagate_above`
    applied: bool


class SignalsUsed(File):
    """Recorded strokes per gripper, and how the recorded events were used.

    `boundaries_near_events` is the share of the model's boundaries that have an event nearby; None
    if the model was not asked or found no boundary.
    """

    strokes: dict[str, int] = Field(default_factory=dict)
    boundaries_near_events: float | None = None
    snapped: bool = False


class MotionSpan(File):
    """What one arm does in frames [start_frame, end_frame), for rows of style `motion`."""

    arm: str
    start_frame: int
    end_frame: int
    text: str


class VocabularyUsed(File):
    """The labels that the plan might use; `is_drafted` if the model drafted them for the task."""

    task: str
    labels: list[str]
    is_drafted: bool = False


class StageFile(File):
    """An annotation file. Only the plan sets `task` and `subtasks`, only VQA sets `pairs`."""

    advice: ClassVar[str] = "Correct it, or delete it and run again (cached responses are reused)."

    format: Literal[1]
    stage: Literal["plan", "interjections", "vqa"]
    dataset: str
    episode_index: int
    persistent: list[LanguageRow]
    events: list[LanguageRow]
    warnings: list[str] = Field(default_factory=list)
    task: Task = Field(default_factory=Task)
    subtasks: list[SubtaskRecord] = Field(default_factory=list)
    subtasks_from: Literal["model", "correction", "dataset", "propagation"] = "model"
    agreement: float | None = None  # of the segmentation samples, over the episode
    samples: list[Sample] = Field(default_factory=list)
    propagation: PropagationUsed | None = None
    signals: SignalsUsed | None = None
    vocabulary: VocabularyUsed | None = None
    motion: list[MotionSpan] = Field(default_factory=list)
    pairs: list[VqaPair] = Field(default_factory=list)
    corrected: list[dict[str, Any]] = Field(default_factory=list)
    provenance: Provenance = Field(default_factory=Provenance)

    @property
    def own_labels(self) -> list[str]:
        """Return the model's labels that are not in its drafted list."""
        known = set(self.vocabulary.labels) if self.vocabulary else set()
        if not known or self.subtasks_from != "model":
            return []
        return [subtask.label for subtask in self.subtasks if subtask.label not in known]

    @property
    def is_corrected(self) -> bool:
        """Tell whether the file contains a person's correction."""
        return self.subtasks_from == "correction" or bool(self.corrected)


class Finding(File):
    """One problem: a stable code, a place such as "vqa event 4", a sentence."""

    code: str
    where: str
    message: str


class ValidationFile(File):
    """The findings about one episode; an episode with errors has no such file."""

    format: Literal[1]
    episode_index: int
    errors: list[Finding]
    warnings: list[Finding]
    counts: dict[str, int]  # rows by style
    stage_files: dict[str, str]  # sha256 of each checked file
    verdict: Literal["good", "bad"] | None = None  # of a person
    inspection: Literal["ok", "doubtful", "failed"] | None = None
    left_out: bool = False  # because of the inspection (output.leave_out)

    @classmethod
    def empty(cls, episode_index: int) -> Self:
        """Return a report without findings."""
        return cls(
            format=1,
            episode_index=episode_index,
            errors=[],
            warnings=[],
            counts={},
            stage_files={},
        )

    @property
    def has_rows(self) -> bool:
        """Whether the merge writes the rows of the episode."""
        return self.verdict != "bad" and not self.left_out

    def error(self, code: str, where: str, message: str) -> None:
        self.errors.append(Finding(code=code, where=where, message=message))

    def warn(self, code: str, where: str, message: str) -> None:
        self.warnings.append(Finding(code=code, where=where, message=message))

    def as_text(self) -> str:
        """Return the report as text with one finding per line."""
        rows = ", ".join(f"{style} {count}" for style, count in self.counts.items()) or "none"
        errors = counted(len(self.errors), "error")
        lines = [
            f"Episode {self.episode_index}: {errors}, {counted(len(self.warnings), 'warning')}",
            f"Rows: {rows}",
            *([f"Verdict: {self.verdict}"] if self.verdict else []),
            *([f"Inspection: {self.inspection}"] if self.inspection else []),
        ]
        for kind, findings in (("ERROR", self.errors), ("WARNING", self.warnings)):
            lines += [f"{kind} {f.code} at {f.where}: {f.message}" for f in findings]
        return "\n".join(lines) + "\n"


def read_stage_file(path: Path | str, stage: str) -> StageFile:
    """Read plan/, interjections/ or vqa/{episode}.json.

    Raises CuesheetError as `File.read` does, and if the file belongs to another stage.
    """
    data = StageFile.read(path)
    if data.stage != stage:
        raise CuesheetError(
            f"{path} belongs to the stage {data.stage!r}; expected {stage!r}. {data.advice}"
        )
    return data


def digest(path: Path | str) -> str | None:
    """Return the sha256 of a stage's file, or None if it does not exist.

    The merge compares it with the hash of the file that was validated.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def to_float32(value: float) -> float | None:
    """Return the nearest float32, which the dataset stores; None if it is out of range."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return None


def frames_by_timestamp(timestamps_s: Sequence[float]) -> dict[float, int]:
    """Return the frame index of each timestamp; the timestamps are rounded to float32."""
    frames = {}
    for frame_index, timestamp_s in enumerate(timestamps_s):
        value = to_float32(timestamp_s)
        if value is not None:
            frames[value] = frame_index
    return frames
