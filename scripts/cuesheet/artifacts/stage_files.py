"""The files that pass between stages: keyframes.json and the annotation files of an episode.

They may have been edited by hand or cut off, so they are read through typed models.
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from cuesheet.errors import CuesheetError

STAGES = ("plan", "interjections", "vqa")

_Model = TypeVar("_Model", bound=BaseModel)


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Arguments(_Exact):
    text: str


class Function(_Exact):
    name: str
    arguments: Arguments


class ToolCall(_Exact):
    type: str
    function: Function


class LanguageRow(_Exact):
    """A row of either column; `timestamp` in seconds from the episode's start."""

    role: str
    content: str | None
    style: str | None
    timestamp: FiniteFloat
    camera: str | None
    tool_calls: list[ToolCall] | None


class Subtask(_File):
    """Frames [start_frame, end_frame), seconds [start_s, end_s)."""

    start_frame: int
    end_frame: int
    start_s: FiniteFloat
    end_s: FiniteFloat
    label: str
    agreement: float | None = None  # of the samples it is made of, 0 to 1


class Sample(_File):
    """One of several segmentations that the subtasks are made of."""

    temperature: float
    seed: int
    subtasks: list[Subtask]


class VqaPair(_File):
    frame_index: int
    camera: str
    type: str
    question: str
    answer: dict[str, Any]


class Call(_File):
    """One call to a model, as the provenance of a file records it."""

    name: str = ""
    prompt: str = ""
    cache_hit: bool = False
    latency_s: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    attempts: int = 1
    outcome: Literal["ok", "repaired", "given_up", "failed"] = "ok"
    error: str | None = None


class Provenance(_File):
    model: str | None = None
    served_by: str | None = None
    prompts: dict[str, str] = Field(default_factory=dict)  # sha256 of each prompt file
    sampling: dict[str, Any] = Field(default_factory=dict)
    finished_at: str | None = None
    calls: list[Call] = Field(default_factory=list)


class Task(_File):
    """What the episode is about; `source` is `dataset` or `video`."""

    text: str = ""
    source: str = "dataset"


class StageFile(_File):
    """An annotation file. `task` and `subtasks` are filled by the plan, `pairs` by VQA."""

    format: Literal[1]
    stage: Literal["plan", "interjections", "vqa"]
    dataset: str
    episode_index: int
    persistent: list[LanguageRow]
    events: list[LanguageRow]
    warnings: list[str] = Field(default_factory=list)
    task: Task = Field(default_factory=Task)
    subtasks: list[Subtask] = Field(default_factory=list)
    subtasks_from: Literal["model", "correction", "dataset"] = "model"
    agreement: float | None = None  # of the samples, over the episode
    samples: list[Sample] = Field(default_factory=list)
    pairs: list[VqaPair] = Field(default_factory=list)
    corrected: list[dict[str, Any]] = Field(default_factory=list)
    provenance: Provenance = Field(default_factory=Provenance)

    @property
    def is_corrected(self) -> bool:
        """Whether a person's correction is in it."""
        return self.subtasks_from == "correction" or bool(self.corrected)


class FrameSize(_File):
    width: int
    height: int


class Keyframe(_File):
    frame_index: int


class KeyframesFile(_File):
    """What the later stages need of keyframes.json."""

    format: Literal[1]
    dataset: str
    episode_index: int
    task: str | None = None
    fps: float = Field(gt=0)
    length: int
    timestamps_s: list[FiniteFloat]
    cameras: dict[str, FrameSize]
    keyframes: dict[str, list[Keyframe]]


class ValidationFile(_File):
    """What the merge and the summary need of validation/{episode}.json."""

    class Finding(_File):
        code: str
        where: str
        message: str

    format: Literal[1]
    episode_index: int
    errors: list[Finding]
    warnings: list[Finding]
    counts: dict[str, int]
    stage_files: dict[str, str]
    verdict: Literal["good", "bad"] | None = None


def read_stage_file(path: Path | str, stage: str) -> StageFile:
    """Reads plan/, interjections/ or vqa/{episode}.json.

    Raises:
        CuesheetError: the file is missing, cut off, of another form, or another stage's.
    """
    advice = (
        "Correct it, or delete it and run again (answers already given come from the call cache)."
    )
    data = _read(Path(path), StageFile, advice)
    if data.stage != stage:
        raise CuesheetError(f"{path} is of the stage {data.stage!r}; expected {stage!r}. {advice}")
    return data


def digest(path: Path | str) -> str | None:
    """The sha256 of a stage's file, which says that it is the very one that was checked."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def read_keyframes_file(folder: Path | str) -> KeyframesFile:
    """Reads keyframes.json of a keyframes folder.

    Raises:
        CuesheetError: the file is missing, cut off or of another form.
    """
    path = Path(folder) / "keyframes.json"
    advice = "Delete the folder and run again."
    data = _read(path, KeyframesFile, advice)
    if data.length != len(data.timestamps_s) or data.length < 1:
        raise CuesheetError(
            f"{path} says that the episode has {data.length} frames and lists "
            f"{len(data.timestamps_s)} timestamps; expected as many. {advice}"
        )
    return data


def read_validation_file(path: Path | str) -> ValidationFile:
    """Reads validation/{episode}.json.

    Raises:
        CuesheetError: the file is missing, cut off or of another form.
    """
    return _read(Path(path), ValidationFile, "Delete it and run again.")


def _read(path: Path, model: type[_Model], advice: str) -> _Model:
    try:
        return model.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CuesheetError(f"{path} is not there. Run the workflow again to make it.") from None
    except OSError as error:
        raise CuesheetError(f"{path} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        shown = "; ".join(f"{_place(p['loc'])}: {p['msg']}" for p in problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CuesheetError(f"{path} is not as expected: {shown}{more}. {advice}") from None
    except ValueError as error:
        raise CuesheetError(f"{path} is not valid JSON (cut off?): {error}. {advice}") from None


def _place(location: tuple[int | str, ...]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).lstrip(".") or "the file"


def to_float32(value: float) -> float | None:
    """The float32 nearest to a value, as the dataset stores timestamps; None beyond its range."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return None


def frames_by_timestamp(timestamps_s: list[float]) -> dict[float, int]:
    """The frame of each timestamp, the timestamps taken as float32."""
    frames = {}
    for frame_index, timestamp_s in enumerate(timestamps_s):
        value = to_float32(timestamp_s)
        if value is not None:
            frames[value] = frame_index
    return frames
