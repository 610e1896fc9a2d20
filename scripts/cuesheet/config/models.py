"""The configuration, defined once.

The documented `config/config.yaml`, the JSON schema and the reference table in the docs are
generated from these models (`cuesheet config`); the field descriptions are their
text. Times are in seconds (`_s`).
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cuesheet.config.cluster import ClusterConfig
from cuesheet.config.hub_address import parse_hub_address
from cuesheet.config.report import EvaluateConfig, ReportConfig
from cuesheet.config.types import Episodes, Expected, PositiveFloat, Section, Text
from cuesheet.config.vlm import VlmConfig


class DatasetEntry(Section):
    """One dataset of several."""

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
            "Like the top-level `prompts_dir`, for this dataset alone; one dataset under several "
            "names tries several prompts in one run, and only calls that differ are asked."
        ),
    )


DatasetSetting = Annotated[
    str | list[str] | dict[str, str | DatasetEntry],
    Expected("a folder, a list of folders, or names with folders `{name: path}`"),
]


class MediaConfig(Section):
    """Clips: one mp4 a camera and episode, for looking at and for `frames: clip`."""

    clip_codec: Literal["h264", "auto"] = Field(
        default="h264",
        description=(
            "`h264`: always H.264, which everything plays and every model server decodes; `auto`: "
            "AV1 where the source's AV1 can be copied, which saves about 2 CPU seconds for 30 s of "
            "640x480 (newer browsers play it), else H.264. Clips that are sent to the model "
            "(`plan.frames.mode: clip`) are always H.264."
        ),
    )
    clip_copy: bool = Field(
        default=True,
        description=(
            "Copy the stream instead of encoding it where the source has the clip's codec and the "
            "episode starts on a keyframe; the frames are counted either way."
        ),
    )
    clip_crf: int = Field(default=23, ge=0, le=51, description="Quality of encoded clips (x264).")
    clip_preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"
    ] = Field(default="ultrafast", description="Speed of encoded clips (x264).")


class KeyframesConfig(Section):
    """Frames decoded to PNG, once, for every stage."""

    decoder: Literal["ffmpeg", "pyav", "torchcodec"] = Field(
        default="pyav",
        description="All three give the same frames; pyav needs the least CPU time.",
    )
    per_second: PositiveFloat = Field(
        default=2.0, le=1000, description="Density of the grid that contact sheets are made of."
    )


class RephrasingsConfig(Section):
    """Other ways to say the task, written as `task_aug` rows."""

    mode: Literal["free", "axes", "off"] = Field(
        default="free",
        description=(
            "`free`: `count` rephrasings; `axes`: along five named axes (synonym, omit_arm, "
            "omit_orientation, omit_grasp, combined); `off`: the task alone."
        ),
    )
    count: int = Field(default=10, ge=1, le=64, description="How many in mode `free`.")
    synonym: int = Field(default=3, ge=0, le=16, description="Other words, nothing left out.")
    omit_arm: int = Field(default=3, ge=0, le=16, description="Without saying which arm.")
    omit_orientation: int = Field(default=2, ge=0, le=16, description="Without orientations.")
    omit_grasp: int = Field(default=2, ge=0, le=16, description="Without how to grasp.")
    combined: int = Field(default=2, ge=0, le=16, description="Several of these at once.")


class FramesConfig(Section):
    """How frames reach the model in the plan stage."""

    mode: Literal["contact_sheets", "single_frames", "clip"] = Field(
        default="contact_sheets",
        description=(
            "`contact_sheets`: tiles with the time burned in; `single_frames`: one image a frame; "
            "`clip`: the H.264 clip as `video_url`."
        ),
    )
    columns: int = Field(default=5, ge=1, le=20, description="Tiles in a row of a sheet.")
    per_sheet: int = Field(default=20, ge=1, le=200, description="Tiles in a sheet.")
    tile_width: int = Field(default=224, ge=64, le=2048, description="Width of a tile in pixels.")
    max_frames_per_call: int = Field(
        default=60,
        ge=2,
        description="More frames than this are asked in consecutive windows of equal density.",
    )
    clip_fps: PositiveFloat = Field(
        default=2.0, description="Frames per second that the server is to sample from a clip."
    )


class PlanConfig(Section):
    """Stage `annotate_plan`: subtasks, plans, memory, rephrasings of the task."""

    enabled: bool = Field(default=True, description="Run the stage.")
    derive_task: Literal["off", "if_short", "always"] = Field(
        default="if_short",
        description=(
            "Derive the task from the video; `if_short`: where it is missing, has fewer than 3 "
            "words (4 characters, in scripts without spaces) or is a placeholder (debug, test, "
            "tbd, todo, n/a, untitled, default)."
        ),
    )
    rephrasings: RephrasingsConfig = RephrasingsConfig()
    frames: FramesConfig = FramesConfig()
    subtasks_from: Literal["model", "dataset"] = Field(
        default="model",
        description=(
            "`dataset`: take the subtasks from labels that the dataset brings along, one a frame; "
            "an episode without any is asked about."
        ),
    )
    subtask_column: str = Field(
        default="subtask_index",
        description=(
            "Column of these labels: text, or whole numbers that count into meta/subtasks.parquet."
        ),
    )
    describe_first: bool = Field(
        default=True, description="Describe what is visible, then segment with that as evidence."
    )
    samples: int = Field(
        default=1,
        ge=1,
        le=32,
        description=(
            "So many segmentations of each window, of which one is made by vote, with a measure "
            "of how far they agree (docs/evaluation.md); 1: a single one."
        ),
    )
    sample_temperature: float = Field(
        default=0.7,
        gt=0,
        le=2,
        description=(
            "Where there are several samples: their temperature in place of "
            "`vlm.sampling.temperature`; their seeds count up from `vlm.sampling.seed`."
        ),
    )
    min_subtask_s: float = Field(
        default=1.5, ge=0, le=3600, description="Shorter subtasks are merged into a neighbor."
    )
    max_subtasks: int = Field(
        default=8, ge=1, le=64, description="At most so many subtasks in a window."
    )
    relabel: bool = Field(
        default=False,
        description="Ask once more for each label, with frames of the span and its neighbors.",
    )
    relabel_frames: int = Field(
        default=4, ge=1, le=20, description="Frames of each of the three spans of a relabel call."
    )
    plans: bool = Field(default=True, description="Write `plan` rows.")
    memory: bool = Field(default=True, description="Write `memory` rows.")


class InterjectionsConfig(Section):
    """Stage `annotate_interjections`: requests by the user, spoken replies by the robot."""

    enabled: bool = Field(default=True, description="Run the stage.")
    max_per_episode: int = Field(default=3, ge=0, le=100, description="At most so many.")
    not_before_s: float = Field(
        default=2.0, ge=0, description="Only at subtask starts later than this."
    )
    frames: int = Field(default=4, ge=1, le=32, description="Frames around the boundary.")


class VqaConfig(Section):
    """Stage `annotate_vqa`: questions and answers about single frames."""

    enabled: bool = Field(default=True, description="Run the stage.")
    hz: PositiveFloat = Field(default=1.0, le=1000, description="Ticks per second of video.")
    frames: int = Field(default=1, ge=1, le=100, description="Consecutive frames at every tick.")
    cameras: Annotated[
        Literal["all", "default"] | list[str],
        Expected("`all`, `default` or a list of camera keys"),
    ] = Field(
        default="all",
        min_length=1,
        description=(
            "Cameras that are asked about: `all`, `default` (the default camera alone) or a list "
            "of camera keys."
        ),
    )
    types: list[Literal["bbox", "keypoint", "count", "attribute", "spatial"]] = Field(
        default=["bbox", "keypoint", "count", "attribute", "spatial"],
        min_length=1,
        description="Question types; one is drawn for every frame and camera.",
    )


class OutputConfig(Section):
    """The annotated dataset."""

    format: Literal["source", "v3.0"] = Field(
        default="source",
        description=(
            "Format of the annotated dataset: that of the source (v2.1 or v3.0), or v3.0, in which "
            "a v2.1 dataset is laid out anew."
        ),
    )
    videos: Literal["hardlink", "symlink", "copy"] = Field(
        default="hardlink",
        description="How its videos come about; where a link is not possible they are copied.",
    )
    extra_files: list[str] = Field(
        default=[],
        description=(
            "Patterns of files of the source that are copied although the LeRobot format does not "
            "define them, e.g. `[notes.txt, calibration/*]`. Paths are relative to the dataset, "
            "and `*` also matches `/`. All other such files are left out."
        ),
    )
    on_missing: Literal["fail", "leave_unannotated"] = Field(
        default="fail",
        description=(
            "Episodes whose last attempt failed: `fail` tries them again and writes no data file "
            "without them; `leave_unannotated` writes the rest and lists them in the summary."
        ),
    )


class Config(Section):
    """Cuesheet: every setting with its default. Unknown keys are errors."""

    dataset: DatasetSetting = Field(
        default="data/demo_v3",
        description=(
            "Folder of a LeRobot dataset or `hf://datasets/user/name@revision`, a list of these, "
            "or names with them "
            "(`{name: path}` or `{name: {path: ..., episodes: ..., default_camera: ...}}`). "
            "Results go to results/{name}."
        ),
    )
    episodes: Episodes = Field(
        default=None,
        description=(
            "Episodes to work on, e.g. `[0, 3, 5-9]`, or `all`. The annotations of all others "
            "stay as they are."
        ),
    )
    cameras: Annotated[Literal["all"] | list[str], Expected("`all` or a list of camera keys")] = (
        Field(
            default="all",
            min_length=1,
            description=(
                "Cameras that are looked at: `all` color cameras or a list of their keys. The "
                "others are neither decoded nor asked about, and stay in the dataset as they are."
            ),
        )
    )
    default_camera: Text = Field(
        default=None, description="Camera of the plan; null: the first of `cameras`."
    )
    existing: Literal["replace", "keep", "merge"] = Field(
        default="replace",
        description=(
            "Language rows that the source already has: `replace` those of the episodes worked "
            "on; `keep`: leave episodes that have any alone; `merge`: rows of the stages that run "
            "replace theirs, all other rows and styles stay."
        ),
    )
    seed: int = Field(
        default=0, ge=0, description="Of the choices Cuesheet draws (moments, question types)."
    )
    prompts_dir: str = Field(
        default="config/prompts",
        description=(
            "Folder of the prompt files. Copy it to write your own; editing one reruns its stage."
        ),
    )
    corrections_dir: str = Field(
        default="corrections",
        description=(
            "Folder of corrections by people, `{dataset}/{episode}.json` or `.csv` below it "
            "(docs/corrections.md). They override the model."
        ),
    )
    media: MediaConfig = MediaConfig()
    keyframes: KeyframesConfig = KeyframesConfig()
    plan: PlanConfig = PlanConfig()
    interjections: InterjectionsConfig = InterjectionsConfig()
    vqa: VqaConfig = VqaConfig()
    vlm: VlmConfig = VlmConfig()
    output: OutputConfig = OutputConfig()
    report: ReportConfig = ReportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _interjections_need_plan(self) -> "Config":
        if self.interjections.enabled and not self.plan.enabled:
            raise ValueError(
                "interjections.enabled is true but plan.enabled is false; interjections happen "
                "at the plan's subtask starts: enable both or disable interjections"
            )
        return self

    def dataset_entries(self) -> dict[str, DatasetEntry]:
        """Name -> entry of every dataset, with the top-level settings filled in.

        Raises ValueError where two datasets would share a name.
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
                        "name them: {first: ..., second: ...}"
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
