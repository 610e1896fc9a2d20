"""The settings, defined once.

The documented `config/config.yaml`, the JSON schema and the reference table in the docs are
generated from these models and their field descriptions (`cuesheet config`). Times are in seconds
(`_s`).
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cuesheet.config.cluster import ClusterConfig
from cuesheet.config.hub_address import parse_hub_address
from cuesheet.config.report import EvaluateConfig, ReportConfig
from cuesheet.config.types import Episodes, Expected, PositiveFloat, Section, Text
from cuesheet.config.vlm import VlmConfig


class DatasetEntry(Section):
    """One of several datasets."""

    path: str = Field(description="Folder of the LeRobot dataset.")
    episodes: Episodes = Field(
        default=None, description="Like the top-level `episodes`, for this dataset alone."
    )
    cameras: Annotated[
        Literal["all"] | list[str] | None, Expected("`all` or a list of camera keys")
    ] = Field(default=None, description="Like the top-level `cameras`, for this dataset alone.")
    default_camera: Text = Field(
        default=None, description="Like the top-level `default_camera`, for this dataset alone."
    )
    prompts_dir: Text = Field(
        default=None,
        description=(
            "Like the top-level `prompts_dir`, for this dataset alone. To compare prompts, list "
            "one dataset under several names: only requests that differ are sent."
        ),
    )


DatasetSetting = Annotated[
    str | list[str] | dict[str, str | DatasetEntry],
    Expected("a folder, a list of folders, or names with folders `{name: path}`"),
]


class MediaConfig(Section):
    """Clips: one mp4 file per episode and camera, for the review page and `frames: clip`."""

    clip_codec: Literal["h264", "auto"] = Field(
        default="h264",
        description=(
            "`h264`: always H.264, which every player and model server decodes. `auto`: copy AV1 "
            "if the source has it (saves about 2 CPU seconds per 30 s of 640x480 video; newer "
            "browsers play it), otherwise H.264. Clips that are sent to the model "
            "(`plan.frames.mode: clip`) are always H.264."
        ),
    )
    clip_copy: bool = Field(
        default=True,
        description=(
            "Copy the stream instead of encoding it if the source has the clip's codec and the "
            "episode starts on an I-frame. The frames are counted either way."
        ),
    )
    clip_crf: int = Field(
        default=23, ge=0, le=51, description="Quality of encoded clips (x264 CRF; lower is better)."
    )
    clip_preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"
    ] = Field(default="ultrafast", description="Speed preset of encoded clips (x264).")


class KeyframesConfig(Section):
    """Frames that are decoded to PNG once, for all stages."""

    decoder: Literal["ffmpeg", "pyav", "torchcodec"] = Field(
        default="pyav",
        description="All three decode the same frames; pyav needs the least CPU time.",
    )
    per_second: PositiveFloat = Field(
        default=2.0, le=1000, description="Keyframes per second of video for contact sheets."
    )


class RephrasingsConfig(Section):
    """Rephrasings of the task, written as `task_aug` rows."""

    mode: Literal["free", "axes", "off"] = Field(
        default="free",
        description=(
            "`free`: `count` rephrasings; `axes`: rephrasings along five named axes (synonym, "
            "omit_arm, omit_orientation, omit_grasp, combined); `off`: only the task itself."
        ),
    )
    count: int = Field(default=10, ge=1, le=64, description="Number of rephrasings in mode `free`.")
    synonym: int = Field(
        default=3, ge=0, le=16, description="Rephrasings that use other words and omit nothing."
    )
    omit_arm: int = Field(
        default=3, ge=0, le=16, description="Rephrasings that do not say which arm to use."
    )
    omit_orientation: int = Field(
        default=2, ge=0, le=16, description="Rephrasings without orientations."
    )
    omit_grasp: int = Field(
        default=2, ge=0, le=16, description="Rephrasings that do not say how to grasp."
    )
    combined: int = Field(
        default=2, ge=0, le=16, description="Rephrasings that combine several of these."
    )


class FramesConfig(Section):
    """How frames are sent to the model in the plan stage."""

    mode: Literal["contact_sheets", "single_frames", "clip"] = Field(
        default="contact_sheets",
        description=(
            "`contact_sheets`: tiles with the time burned in; `single_frames`: one image per "
            "frame; `clip`: the H.264 clip as `video_url`."
        ),
    )
    columns: int = Field(default=5, ge=1, le=20, description="Tiles per row of a contact sheet.")
    per_sheet: int = Field(default=20, ge=1, le=200, description="Tiles per contact sheet.")
    tile_width: int = Field(default=224, ge=64, le=2048, description="Width of a tile in pixels.")
    max_frames_per_call: int = Field(
        default=60,
        ge=2,
        description=(
            "Most frames per request. Longer episodes are split into consecutive windows of "
            "equal density."
        ),
    )
    clip_fps: PositiveFloat = Field(
        default=2.0, description="Frames per second that the server should sample from a clip."
    )


class PlanConfig(Section):
    """Stage `annotate_plan`: subtasks, plans, memory and rephrasings of the task."""

    enabled: bool = Field(default=True, description="Run the stage.")
    derive_task: Literal["off", "if_short", "always"] = Field(
        default="if_short",
        description=(
            "Derive the task from the video. `if_short`: if the task is missing, has fewer than "
            "3 words (4 characters in scripts without spaces) or is a placeholder (debug, test, "
            "tbd, todo, n/a, untitled, default)."
        ),
    )
    rephrasings: RephrasingsConfig = RephrasingsConfig()
    frames: FramesConfig = FramesConfig()
    subtasks_from: Literal["model", "dataset"] = Field(
        default="model",
        description=(
            "`dataset`: use the per-frame labels of the dataset (`subtask_column`). Episodes "
            "without labels are annotated by the model."
        ),
    )
    subtask_column: str = Field(
        default="subtask_index",
        description=(
            "Column with these labels: text, or whole numbers that refer to "
            "meta/subtasks.parquet, meta/tasks.parquet or meta/tasks_high_level.parquet."
        ),
    )
    describe_first: bool = Field(
        default=True,
        description=(
            "First describe what is visible, then segment with that description as evidence."
        ),
    )
    samples: int = Field(
        default=1,
        ge=1,
        le=32,
        description=(
            "Number of segmentation samples per window, merged by majority vote, with a measure "
            "of their agreement (docs/evaluation.md)."
        ),
    )
    sample_temperature: float = Field(
        default=0.7,
        gt=0,
        le=2,
        description=(
            "Temperature of the samples if there are several; it replaces "
            "`vlm.sampling.temperature`. Their seeds count up from `vlm.sampling.seed`."
        ),
    )
    granularity: Literal["events", "phases"] = Field(
        default="events",
        description=(
            "`events`: a pick and the following place are two subtasks, with approach and "
            "withdrawal included. `phases`: reach, grasp, carry, place, release, withdraw."
        ),
    )
    min_subtask_s: float | None = Field(
        default=None,
        ge=0,
        le=3600,
        description=(
            "Shorter subtasks are merged into a neighbor; null: 0.5 for `events`, 0.25 for "
            "`phases`."
        ),
    )
    max_subtasks: int | None = Field(
        default=None, ge=1, le=64, description="Most subtasks per window; null: no limit."
    )
    propagate: Literal["off", "suggest", "apply"] = Field(
        default="off",
        description=(
            "Carry corrected episodes over to the others of their task by aligning the recorded "
            "states. `suggest`: show the result to the model. `apply`: use it without a "
            "segmentation request if its confidence is at least `propagate_above`."
        ),
    )
    propagate_above: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description=(
            "Confidence that `propagate: apply` requires. On the simulated datasets, episodes of "
            "different tasks reach at most 0.35, those of the same task 0.45 to 0.9."
        ),
    )
    second_look: bool | None = Field(
        default=None,
        description=(
            "Look again into each segment that is longer than 2 s, at 4 frames per second, and "
            "divide it at every completed event. Keyframes are decoded at 4 per second then. "
            "null: yes, except with the demo model."
        ),
    )
    relabel: Literal["auto", "off", "span", "neighbors"] = Field(
        default="auto",
        description=(
            "Request the labels of the final segments again. `span`: with larger frames of the "
            "segment alone. `neighbors`: with one image each of what is before, the segment and "
            "what is after. `auto`: by model family (Qwen `span`, Gemini `neighbors`, others "
            "`off`)."
        ),
    )
    relabel_frames: int = Field(
        default=4, ge=1, le=20, description="Frames per segment in a relabel request."
    )
    label_candidates: int = Field(
        default=1,
        ge=1,
        le=8,
        description=(
            "Labels per relabel request. With several, one more request per segment selects one "
            "of them."
        ),
    )
    plans: bool = Field(default=True, description="Write `plan` rows.")
    memory: bool = Field(default=True, description="Write `memory` rows.")

    @property
    def shortest_s(self) -> float:
        """The shortest subtask (s)."""
        if self.min_subtask_s is not None:
            return self.min_subtask_s
        return 0.5 if self.granularity == "events" else 0.25

    @model_validator(mode="after")
    def _candidates_need_relabel(self) -> "PlanConfig":
        if self.label_candidates > 1 and self.relabel == "off":
            raise ValueError(
                f"label_candidates is {self.label_candidates} but relabel is off; set plan.relabel "
                "to span or neighbors, or plan.label_candidates to 1"
            )
        return self


class SignalsConfig(Section):
    """What the robot itself recorded: gripper strokes, rests and motion (docs/better-labels.md)."""

    enabled: bool = Field(
        default=True,
        description="Read state and action. Datasets without them are annotated from images alone.",
    )
    state: list[str] = Field(
        default=["observation.state"],
        description="Columns of the state; those that the dataset does not have are skipped.",
    )
    action: list[str] = Field(
        default=["action"],
        description="Columns of the action; those that the dataset does not have are skipped.",
    )
    gripper: Annotated[
        Literal["auto", "none"] | list[str], Expected("`auto`, `none` or a list of dimension names")
    ] = Field(
        default="auto",
        description=(
            "Dimensions that are grippers. `auto`: by name (gripper, finger, hand, ...) if the "
            "dataset names its dimensions, otherwise by behavior. Without names, a dimension is "
            "called `observation.state[6]`. Check the result with `cuesheet signals`."
        ),
    )
    snap_s: float = Field(
        default=0.5,
        ge=0,
        le=10,
        description="Boundaries are moved to a recorded event that is at most this far away.",
    )
    min_snapped: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description=(
            "An episode is snapped only if at least this share of its own boundaries has an event "
            "within `snap_s`."
        ),
    )
    motion: bool = Field(
        default=False,
        description=(
            "Write `motion` rows (strokes, standing still, direction of movement) with the plan."
        ),
    )

    @property
    def detection(self) -> dict[str, Any]:
        """The settings that determine which arms and grippers are found."""
        return self.model_dump(include={"state", "action", "gripper"})


class InterjectionsConfig(Section):
    """Stage `annotate_interjections`: requests by the user, spoken replies by the robot."""

    enabled: bool = Field(default=True, description="Run the stage.")
    max_per_episode: int = Field(
        default=3, ge=0, le=100, description="Most interjections per episode."
    )
    not_before_s: float = Field(
        default=2.0,
        ge=0,
        description=("Earliest time of an interjection; they are placed at subtask starts."),
    )
    frames: int = Field(default=4, ge=1, le=32, description="Frames around the boundary.")


class VqaConfig(Section):
    """Stage `annotate_vqa`: questions and answers about single frames."""

    enabled: bool = Field(default=True, description="Run the stage.")
    hz: PositiveFloat = Field(default=1.0, le=1000, description="Ticks per second of video.")
    frames: int = Field(default=1, ge=1, le=100, description="Consecutive frames per tick.")
    cameras: Annotated[
        Literal["all", "default"] | list[str],
        Expected("`all`, `default` or a list of camera keys"),
    ] = Field(
        default="all",
        min_length=1,
        description=(
            "Cameras to ask about: `all`, `default` (only the default camera) or a list of "
            "camera keys."
        ),
    )
    types: list[Literal["bbox", "keypoint", "count", "attribute", "spatial"]] = Field(
        default=["bbox", "keypoint", "count", "attribute", "spatial"],
        min_length=1,
        description="Question types; they are drawn equally often per episode and camera.",
    )
    per_call: int = Field(
        default=1,
        ge=1,
        le=5,
        description=(
            "Questions per request, each of another type. The request shows the first of as many "
            "consecutive frames (`frames`), and each of them gets one question, so the tokens of "
            "the image are paid once."
        ),
    )
    max_invalid: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description=(
            "Largest share of invalid replies per episode; with more of them the episode fails, "
            "and the next run requests them again."
        ),
    )

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

    enabled: bool = Field(
        default=False,
        description=(
            "Ask whether each subtask is complete and whether the task was achieved (one request "
            "per subtask and one per episode), and look for black and frozen cameras. See "
            "`output.leave_out`."
        ),
    )


class OutputConfig(Section):
    """The annotated dataset."""

    format: Literal["source", "v3.0"] = Field(
        default="source",
        description=(
            "Format of the annotated dataset: that of the source (v2.1 or v3.0), or v3.0, which "
            "converts a v2.1 dataset."
        ),
    )
    videos: Literal["hardlink", "symlink", "copy"] = Field(
        default="hardlink",
        description=(
            "How videos get into the annotated dataset. If links are not possible, files are "
            "copied."
        ),
    )
    extra_files: list[str] = Field(
        default=[],
        description=(
            "Patterns of files of the source that are copied although the LeRobot format does "
            "not define them, e.g. `[notes.txt, calibration/*]`. Paths are relative to the "
            "dataset, and `*` also matches `/`. All other such files are left out."
        ),
    )
    subtask_index: bool = Field(
        default=False,
        description=(
            "Also write the active subtask of each frame as a number, in the column "
            "`subtask_index`, and the labels of the numbers to meta/subtasks.parquet, for policies "
            "that read these (LeRobot 0.4)."
        ),
    )
    on_missing: Literal["fail", "leave_unannotated"] = Field(
        default="fail",
        description=(
            "What happens to episodes whose last attempt failed. `fail`: try them again, and "
            "write no data file without them. `leave_unannotated`: write the others and list "
            "these in the summary."
        ),
    )
    leave_out: Literal["off", "failed", "doubtful"] = Field(
        default="off",
        description=(
            "Episodes that get no rows because of their inspection (`inspect.enabled`), and are "
            "listed in the summary. `failed`: the task was not achieved. `doubtful`: these, and "
            "all others with a finding. `off`: none."
        ),
    )


class Config(Section):
    """Cuesheet: every setting with its default. Unknown keys are errors."""

    dataset: DatasetSetting = Field(
        default="data/demo_v3",
        description=(
            "Folder of a LeRobot dataset or `hf://datasets/user/name@revision`, a list of these, "
            "or a mapping of names (`{name: path}` or `{name: {path: ..., episodes: ..., "
            "default_camera: ...}}`). Results are stored in results/{name}."
        ),
    )
    episodes: Episodes = Field(
        default=None,
        description=(
            "Episodes to annotate, e.g. `[0, 3, 5-9]`, or `all`. Annotations of other episodes "
            "are not changed."
        ),
    )
    cameras: Annotated[Literal["all"] | list[str], Expected("`all` or a list of camera keys")] = (
        Field(
            default="all",
            min_length=1,
            description=(
                "Cameras to use: `all` color cameras or a list of camera keys. Other cameras are "
                "neither decoded nor shown to the model, and are copied unchanged."
            ),
        )
    )
    default_camera: Text = Field(
        default=None, description="Camera for the plan; null: the first of `cameras`."
    )
    existing: Literal["replace", "keep", "merge"] = Field(
        default="replace",
        description=(
            "Language rows that the source already has. `replace`: replace those of the "
            "annotated episodes. `keep`: do not annotate episodes that have any. `merge`: "
            "replace the rows of the stages that run, and keep all other rows and styles."
        ),
    )
    seed: int = Field(
        default=0, ge=0, description="Random seed for sampled frames and question types."
    )
    prompts_dir: str = Field(
        default="config/prompts",
        description=(
            "Folder of the prompt files. To write your own, copy it; editing a file reruns its "
            "stage."
        ),
    )
    corrections_dir: str = Field(
        default="corrections",
        description=(
            "Folder of manual corrections, `{dataset}/{episode}.json` or `.csv` "
            "(docs/corrections.md). They override the model."
        ),
    )
    media: MediaConfig = MediaConfig()
    keyframes: KeyframesConfig = KeyframesConfig()
    signals: SignalsConfig = SignalsConfig()
    plan: PlanConfig = PlanConfig()
    interjections: InterjectionsConfig = InterjectionsConfig()
    vqa: VqaConfig = VqaConfig()
    inspect: InspectConfig = InspectConfig()
    vlm: VlmConfig = VlmConfig()
    output: OutputConfig = OutputConfig()
    report: ReportConfig = ReportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _interjections_need_plan(self) -> "Config":
        if self.interjections.enabled and not self.plan.enabled:
            raise ValueError(
                "interjections.enabled is true but plan.enabled is false; interjections are "
                "placed at subtask starts of the plan: enable both, or disable interjections"
            )
        return self

    @model_validator(mode="after")
    def _inspection_fits(self) -> "Config":
        if self.inspect.enabled and not self.plan.enabled:
            raise ValueError(
                "inspect.enabled is true but plan.enabled is false; the inspection is about the "
                "subtasks of the plan: enable both, or disable the inspection"
            )
        if self.output.leave_out != "off" and not self.inspect.enabled:
            raise ValueError(
                f"output.leave_out is {self.output.leave_out} but inspect.enabled is false; "
                "enable the inspection, or set output.leave_out to off"
            )
        return self

    def dataset_entries(self) -> dict[str, DatasetEntry]:
        """Name -> entry of every dataset, with the top-level settings filled in.

        Raises ValueError if two datasets would share a name.
        """
        if isinstance(self.dataset, dict):
            named = {
                name: DatasetEntry(path=entry) if isinstance(entry, str) else entry
                for name, entry in self.dataset.items()
            }
        else:
            paths = [self.dataset] if isinstance(self.dataset, str) else self.dataset
            named = {}
            for path in paths:
                place = parse_hub_address(path)
                name = place.name if place else Path(path).expanduser().resolve().name
                if name in named:
                    raise ValueError(
                        f"dataset: {named[name].path} and {path} would both be called {name!r}; "
                        "give them names: {first: ..., second: ...}"
                    )
                named[name] = DatasetEntry(path=path)
        return {name: self._filled_in(name, entry) for name, entry in named.items()}

    def _filled_in(self, name: str, entry: DatasetEntry) -> DatasetEntry:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(
                f"dataset: the name {name!r} is not usable as a folder; name the dataset with "
                "letters, digits, dot, dash and underscore: {my_name: path}"
            )
        return DatasetEntry(
            path=entry.path,
            episodes=self.episodes if entry.episodes is None else entry.episodes,
            cameras=entry.cameras or self.cameras,
            default_camera=entry.default_camera or self.default_camera,
            prompts_dir=entry.prompts_dir or self.prompts_dir,
        )
