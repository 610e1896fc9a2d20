"""Settings of keyframes and the annotation stages."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cuesheet.config.types import Expected, PositiveFloat, Section
from cuesheet.config.vocabulary import check_vocabulary


class KeyframesConfig(Section):
    """Frames that are decoded to PNG once, for all stages."""

    decoder: Literal["ffmpeg", "pyav", "torchcodec"] = "pyav"
    """Video decoder. All three return the same frames; pyav needs the least CPU time."""
    per_second: PositiveFloat = Field(default=2.0, le=1000)
    """Keyframes per second of video for contact sheets."""


class RephrasingsConfig(Section):
    """Rephrasings of the task, written as `task_aug` rows."""

    mode: Literal["free", "axes", "off"] = "free"
    """`free`: `count` rephrasings; `axes`: rephrasings along five named axes (synonym, omit_arm,
    omit_orientation, omit_grasp, combined); `off`: only the task itself.
    """
    count: int = Field(default=10, ge=1, le=64)
    """Number of rephrasings in mode `free`."""
    synonym: int = Field(default=3, ge=0, le=16)
    """Rephrasings that use other words and omit nothing."""
    omit_arm: int = Field(default=3, ge=0, le=16)
    """Rephrasings that do not say which arm to use."""
    omit_orientation: int = Field(default=2, ge=0, le=16)
    """Rephrasings without orientations."""
    omit_grasp: int = Field(default=2, ge=0, le=16)
    """Rephrasings that do not say how to grasp."""
    combined: int = Field(default=2, ge=0, le=16)
    """Rephrasings that combine several of these."""


class FramesConfig(Section):
    """How frames are sent to the model in the plan stage."""

    mode: Literal["contact_sheets", "single_frames", "clip"] = "contact_sheets"
    """`contact_sheets`: tiles with the time burned in; `single_frames`: one image per frame;
    `clip`: the H.264 clip as `video_url`.
    """
    columns: int = Field(default=5, ge=1, le=20)
    """Tiles per row of a contact sheet."""
    per_sheet: int = Field(default=20, ge=1, le=200)
    """Tiles per contact sheet."""
    tile_width: int = Field(default=224, ge=64, le=2048)
    """Width of a tile in pixels."""
    max_frames_per_call: int = Field(default=60, ge=2)
    """Maximum number of frames per request. Longer episodes are split into consecutive windows of
    equal density.
    """
    clip_fps: PositiveFloat = 2.0
    """Frames per second that the server should sample from a clip."""


class PlanConfig(Section):
    """Stage `annotate_plan`: subtasks, plans, memory and rephrasings of the task."""

    enabled: bool = True
    """Run the stage."""
    derive_task: Literal["off", "if_short", "always"] = "if_short"
    """Derive the task from the video. `if_short`: if the task is missing, has fewer than 3 words (4
    characters in scripts without spaces) or is a placeholder (debug, test, tbd, todo, n/a,
    untitled, default).
    """
    rephrasings: RephrasingsConfig = RephrasingsConfig()
    frames: FramesConfig = FramesConfig()
    subtasks_from: Literal["model", "dataset"] = "model"
    """`dataset`: use the per-frame labels of the dataset (`subtask_column`). Episodes without
    labels are annotated by the model.
    """
    subtask_column: str = "subtask_index"
    """Column with these labels: text, or whole numbers that refer to meta/subtasks.parquet,
    meta/tasks.parquet or meta/tasks_high_level.parquet.
    """
    describe_first: bool = True
    """First describe what is visible, then segment with that description as evidence."""
    samples: int = Field(default=1, ge=1, le=32)
    """Number of segmentation samples per window, merged by majority vote, with a measure of their
    agreement (docs/evaluation.md).
    """
    sample_temperature: float = Field(default=0.7, gt=0, le=2)
    """Temperature of the samples if there are several; it replaces `vlm.sampling.temperature`.
    Their seeds count up from `vlm.sampling.seed`.
    """
    granularity: Literal["events", "phases"] = "events"
    """`events`: a pick and the following place are two subtasks, with approach and withdrawal
    included. `phases`: reach, grasp, carry, place, release, withdraw.
    """
    min_subtask_s: float | None = Field(default=None, ge=0, le=3600)
    """Shorter subtasks are merged into a neighbor; null: 0.5 for `events`, 0.25 for `phases`."""
    max_subtasks: int | None = Field(default=None, ge=1, le=64)
    """Maximum number of subtasks per window; null: no limit."""
    propagate: Literal["off", "suggest", "apply"] = "off"
    """Transfer the subtasks of corrected episodes to the other episodes of their task by aligning
    the recorded states. `suggest`: show the result to the model. `apply`: use it without a
    segmentation request if its confidence is at least `propagate_above`.
    """
    propagate_above: float = Field(default=0.4, ge=0, le=1)
    """Confidence that `propagate: apply` requires. On the simulated datasets, episodes of different
    tasks reach at most 0.35, those of the same task 0.45 to 0.9.
    """
    second_look: bool | None = None
    """Examine each segment that is longer than 2 s again, at 4 frames per second, and divide it at
    every completed event. Keyframes are then decoded at 4 per second. null: on, except with the
    demo model.
    """
    relabel: Literal["auto", "off", "span", "neighbors"] = "auto"
    """Request the labels of the final segments again. `span`: with larger frames of the segment
    alone. `neighbors`: with one image each of what is before, the segment and what is after.
    `auto`: by model family (Qwen `span`, Gemini `neighbors`, others `off`).
    """
    relabel_frames: int = Field(default=4, ge=1, le=20)
    """Frames per segment in a relabel request."""
    label_candidates: int = Field(default=1, ge=1, le=8)
    """Labels per relabel request. With several, one more request per segment selects one of them.
    """
    vocabulary: Annotated[
        Literal["off", "auto"] | list[str] | dict[str, list[str]],
        Expected(
            "`off`, `auto`, a list of labels, or tasks with lists of labels `{task: [label, ...]}`"
        ),
    ] = "off"
    """Labels that the plan may use; the model cannot write others. Either one list for all
    episodes, or one per task (`{task: [label, ...]}`); episodes of other tasks are labeled freely.
    `auto`: the model drafts a list per task from a few episodes; a step that the list does not have
    keeps the model's own words. `off`: any labels.
    """
    vocabulary_episodes: int = Field(default=3, ge=1, le=20)
    """Episodes per task, those with the lowest numbers, from which `vocabulary: auto` drafts the
    list.
    """
    plans: bool = True
    """Write `plan` rows."""
    memory: bool = True
    """Write `memory` rows."""

    @property
    def shortest_s(self) -> float:
        """The shortest subtask (s)."""
        if self.min_subtask_s is not None:
            return self.min_subtask_s
        return 0.5 if self.granularity == "events" else 0.25

    @field_validator("vocabulary")
    @classmethod
    def _labels_are_usable(cls, value: Any) -> Any:
        return check_vocabulary(value)

    @property
    def drafts_vocabulary(self) -> bool:
        """Whether the model drafts a list of labels for each task."""
        return self.enabled and self.vocabulary == "auto"

    def labels_of(self, task: str) -> tuple[str, ...]:
        """Return the given labels of a task; an empty tuple for any, or if they are drafted."""
        if isinstance(self.vocabulary, str):
            return ()
        if isinstance(self.vocabulary, dict):
            return tuple(self.vocabulary.get(task, ()))
        return tuple(self.vocabulary)

    @model_validator(mode="after")
    def _labels_agree(self) -> "PlanConfig":
        if self.drafts_vocabulary and self.subtasks_from == "dataset":
            raise ValueError(
                "vocabulary is auto but subtasks_from is dataset, whose labels would not be in the "
                "drafted list; give plan.vocabulary the labels of the dataset, or set it to off"
            )
        if self.label_candidates > 1 and self.relabel == "off":
            raise ValueError(
                f"label_candidates is {self.label_candidates} but relabel is off; set plan.relabel "
                "to span or neighbors, or plan.label_candidates to 1"
            )
        return self


class InterjectionsConfig(Section):
    """Stage `annotate_interjections`: requests by the user, spoken replies by the robot."""

    enabled: bool = True
    """Run the stage."""
    max_per_episode: int = Field(default=3, ge=0, le=100)
    """Maximum number of interjections per episode."""
    not_before_s: float = Field(default=2.0, ge=0)
    """Earliest time of an interjection. Interjections are placed at subtask starts."""
    frames: int = Field(default=4, ge=1, le=32)
    """Frames around the boundary that the model sees."""


class VqaConfig(Section):
    """Stage `annotate_vqa`: questions and answers about single frames."""

    enabled: bool = True
    """Run the stage."""
    hz: PositiveFloat = Field(default=1.0, le=1000)
    """Ticks per second of video."""
    frames: int = Field(default=1, ge=1, le=100)
    """Consecutive frames per tick."""
    cameras: Annotated[
        Literal["all", "default"] | list[str],
        Expected("`all`, `default` or a list of camera keys"),
    ] = Field(default="all", min_length=1)
    """Cameras to ask about: `all`, `default` (only the default camera) or a list of camera keys."""
    types: list[Literal["bbox", "keypoint", "count", "attribute", "spatial"]] = Field(
        default=["bbox", "keypoint", "count", "attribute", "spatial"], min_length=1
    )
    """Question types; they are drawn equally often per episode and camera."""
    per_call: int = Field(default=1, ge=1, le=5)
    """Questions per request, each of a different type. The request shows the first of as many
    consecutive frames (`frames`), and each of them gets one question, so the image is sent only
    once.
    """
    max_invalid: float = Field(default=0.2, ge=0, le=1)
    """Maximum share of invalid replies per episode. If it is exceeded, the episode fails, and the
    next run requests them again.
    """

    @model_validator(mode="after")
    def _per_call_fits_types(self) -> "VqaConfig":
        if self.per_call > len(set(self.types)):
            raise ValueError(
                f"per_call is {self.per_call} but types has {len(set(self.types))}; the questions "
                "of a request are of different types: lower vqa.per_call or add types"
            )
        if self.per_call > self.frames:
            raise ValueError(
                f"per_call is {self.per_call} but frames is {self.frames}; a frame has one "
                f"question per camera, so set vqa.frames to at least {self.per_call}"
            )
        return self


class InspectConfig(Section):
    """Rule `inspect_episode`: checks of the recordings and of their subtasks."""

    enabled: bool = False
    """Ask whether each subtask is complete and whether the task was achieved (one request per
    subtask and one per episode), and look for black and frozen cameras. See `output.leave_out`.
    """
