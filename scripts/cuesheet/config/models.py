"""The settings, defined once.

The documented `config/config.yaml`, the JSON schema and the reference table in the docs are
generated from these models and their field descriptions (`cuesheet config`). Times are in seconds
(`_s`).
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cuesheet.config.cluster import ClusterConfig
from cuesheet.config.hub_address import parse_hub_address
from cuesheet.config.report import EvaluateConfig, ReportConfig
from cuesheet.config.signals import SignalsConfig
from cuesheet.config.stages import (
    InspectConfig,
    InterjectionsConfig,
    KeyframesConfig,
    PlanConfig,
    VqaConfig,
)
from cuesheet.config.types import Episodes, Expected, Section, Text
from cuesheet.config.vlm import VlmConfig


class DatasetEntry(Section):
    """One of several datasets."""

    path: str
    """Folder of the LeRobot dataset."""
    episodes: Episodes = None
    """Like the top-level `episodes`, for this dataset alone."""
    cameras: Annotated[
        Literal["all"] | list[str] | None, Expected("`all` or a list of camera keys")
    ] = None
    """Like the top-level `cameras`, for this dataset alone."""
    default_camera: Text = None
    """Like the top-level `default_camera`, for this dataset alone."""
    prompts_dir: Text = None
    """Like the top-level `prompts_dir`, for this dataset alone. To compare prompts, list one
    dataset under several names: only requests that differ are sent.
    """


DatasetSetting = Annotated[
    str | list[str] | dict[str, str | DatasetEntry],
    Expected("a folder, a list of folders, or names with folders `{name: path}`"),
]


class MediaConfig(Section):
    """Clips: one mp4 file per episode and camera, for the review page and `frames: clip`."""

    clip_codec: Literal["h264", "auto"] = "h264"
    """`h264`: always H.264, which every player and model server decodes. `auto`: copy AV1 if the
    source has it (saves about 2 CPU seconds per 30 s of 640x480 video; newer browsers play it),
    otherwise H.264. Clips that are sent to the model (`plan.frames.mode: clip`) are always H.264.
    """
    clip_copy: bool = True
    """Copy the stream instead of encoding it if the source has the clip's codec and the episode
    starts on an I-frame. The frames are counted either way.
    """
    clip_crf: int = Field(default=23, ge=0, le=51)
    """Quality of encoded clips (x264 CRF; lower is better)."""
    clip_preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"
    ] = "ultrafast"
    """Speed preset of encoded clips (x264)."""


class OutputConfig(Section):
    """The annotated dataset."""

    format: Literal["source", "v3.0"] = "source"
    """Format of the annotated dataset: that of the source (v2.1 or v3.0), or v3.0, which converts a
    v2.1 dataset.
    """
    videos: Literal["hardlink", "symlink", "copy"] = "hardlink"
    """How videos are added to the annotated dataset. If links are not possible, files are copied.
    """
    extra_files: list[str] = Field(default=[])
    """Patterns of files of the source that are copied although the LeRobot format does not define
    them, e.g. `[notes.txt, calibration/*]`. Paths are relative to the dataset, and `*` also matches
    `/`. All other such files are left out.
    """
    subtask_index: bool = False
    """Also write the active subtask of each frame as a number, in the column `subtask_index`, and
    the labels of the numbers to meta/subtasks.parquet, for policies that read these (LeRobot 0.4).
    """
    on_missing: Literal["fail", "leave_unannotated"] = "fail"
    """What happens to episodes whose last attempt failed. `fail`: try them again, and write no data
    file without them. `leave_unannotated`: write the others and list these in the summary.
    """
    leave_out: Literal["off", "failed", "doubtful"] = "off"
    """Episodes that get no rows because of their inspection (`inspect.enabled`), and are listed in
    the summary. `failed`: the task was not achieved. `doubtful`: these, and all others with a
    finding. `off`: none.
    """


class Config(Section):
    """Cuesheet: every setting with its default. Unknown keys are errors."""

    dataset: DatasetSetting = "data/demo_v3"
    """Folder of a LeRobot dataset or `hf://datasets/user/name@revision`, a list of these, or a
    mapping of names (`{name: path}` or `{name: {path: ..., episodes: ..., default_camera: ...}}`).
    Results are stored in results/{name}.
    """
    episodes: Episodes = None
    """Episodes to annotate, e.g. `[0, 3, 5-9]`, or `all`. Annotations of other episodes are not
    changed.
    """
    cameras: Annotated[Literal["all"] | list[str], Expected("`all` or a list of camera keys")] = (
        Field(default="all", min_length=1)
    )
    """Cameras to use: `all` color cameras or a list of camera keys. Other cameras are neither
    decoded nor shown to the model, and are copied unchanged.
    """
    default_camera: Text = None
    """Camera for the plan; null: the first of `cameras`."""
    existing: Literal["replace", "keep", "merge"] = "replace"
    """Language rows that the source already has. `replace`: replace those of the annotated
    episodes. `keep`: do not annotate episodes that have any. `merge`: replace the rows of the
    stages that run, and keep all other rows and styles.
    """
    seed: int = Field(default=0, ge=0)
    """Random seed for sampled frames and question types."""
    prompts_dir: str = "config/prompts"
    """Folder of the prompt files. To write your own, copy it; editing a file reruns its stage."""
    corrections_dir: str = "corrections"
    """Folder of manual corrections, `{dataset}/{episode}.json` or `.csv` (docs/corrections.md).
    They override the model.
    """
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
    def _stages_agree(self) -> "Config":
        if self.interjections.enabled and not self.plan.enabled:
            raise ValueError(
                "interjections.enabled is true but plan.enabled is false; interjections are "
                "placed at subtask starts of the plan: enable both, or disable interjections"
            )
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
        """Return name -> entry of every dataset, with the top-level settings filled in.

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
        # Snakemake takes such a value of a wildcard as the sign of an endless recursion.
        if repeated := re.search(r"(.+?)\1{19,}$", name):
            raise ValueError(
                f"dataset: the name {name if len(name) <= 40 else name[:37] + '...'!r} ends with "
                f"{repeated[1]!r} {len(repeated[0]) // len(repeated[1])} times in a row; Snakemake "
                "accepts fewer than 20. Give the dataset another name: {my_name: path}"
            )
        return DatasetEntry(
            path=entry.path,
            episodes=self.episodes if entry.episodes is None else entry.episodes,
            cameras=entry.cameras or self.cameras,
            default_camera=entry.default_camera or self.default_camera,
            prompts_dir=entry.prompts_dir or self.prompts_dir,
        )
