"""A run: its validated configuration and its datasets, as the rules see them.

Only metadata is read here, because every job parses the Snakefile. Paths below the results folder
are relative to the working directory.
"""

import functools
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuesheet.artifacts.corrections import Correction
from cuesheet.artifacts.failures import failed_episodes
from cuesheet.artifacts.layout import RESULTS, Layout, episode_name
from cuesheet.artifacts.signals_file import read_layout
from cuesheet.artifacts.stage_files import STAGES
from cuesheet.config.models import Config, PlanConfig, SignalsConfig
from cuesheet.dataset.index_state import file_state, is_current
from cuesheet.dataset.metadata import Dataset, Episode
from cuesheet.dataset.subtask_labels import labels_file
from cuesheet.errors import CuesheetError
from cuesheet.files import remove_leftovers, write_json
from cuesheet.text import describe_range, did_you_mean
from cuesheet.vlm.coordinates import default_relabeling, unknown_family_notice
from demo_vlm import MODEL_ID as DEMO_MODEL

# Part of the rerun trigger of the stages. Increase it when a code change alters their output.
ANSWER_VERSION = 2

# Keyframes per second that the second look shows.
SECOND_LOOK_PER_SECOND = 4.0

# Larger runs use shards: planning them job by job takes minutes and gigabytes.
MAX_UNSHARDED_EPISODES = 2000


@dataclass(frozen=True)
class RunDataset:
    """A dataset of a run: its source, the selected episodes and the files that the run makes."""

    name: str
    source: Dataset
    selected: Sequence[int]  # episode indices
    default_camera: str | None  # None if the dataset has no camera
    vqa_cameras: Sequence[str]
    prompts_dir: Path
    left_out: frozenset[int] = frozenset()  # failed before, with on_missing: leave_unannotated
    corrections: Mapping[int, Correction] = field(default_factory=dict)  # by episode
    kept: frozenset[int] = frozenset()  # have language rows already, with existing: keep
    output_format: str = "source"
    subtask_column: str | None = None  # column of the dataset's own labels, if they are used
    results_root: Path = RESULTS

    @property
    def root(self) -> Path:
        return self.source.root

    @property
    def results(self) -> Path:
        return self.results_root / self.name

    @property
    def layout(self) -> Layout:
        return Layout(self.results)

    @property
    def cameras(self) -> list[str]:
        return list(self.source.cameras)

    def cameras_of(self, episode_index: int) -> list[str]:
        """Return the cameras that an episode has: all image cameras, and those with a video."""
        videos = self.episode(episode_index).videos
        cameras = self.source.cameras.values()
        return [camera.key for camera in cameras if camera.kind == "image" or camera.key in videos]

    def default_camera_of(self, episode_index: int) -> str | None:
        """Return the default camera, or the first one that the episode has; None if it has none."""
        cameras = self.cameras_of(episode_index)
        if self.default_camera in cameras:
            return self.default_camera
        return cameras[0] if cameras else None

    def vqa_cameras_of(self, episode_index: int) -> list[str]:
        """Return the cameras of an episode that visual questions are about."""
        cameras = self.cameras_of(episode_index)
        return [camera for camera in self.vqa_cameras if camera in cameras]

    # Selected episodes

    @property
    def worked_on(self) -> list[int]:
        """The selected episodes without those that are left out or keep their rows."""
        excluded = self.left_out | self.kept
        return [index for index in self.selected if index not in excluded]

    def selected_in(self, data_file: str) -> list[int]:
        """Return the episodes of one data file of the source that this run annotates."""
        wanted = frozenset(self.worked_on)
        return [index for index in self._episodes_in(data_file) if index in wanted]

    def others_in(self, data_file: str) -> list[int]:
        """Return the episodes of a data file that an earlier run annotated; their rows stay."""
        selected = frozenset(self.selected)
        return [
            index
            for index in self._episodes_in(data_file)
            if index not in selected and index in self._validated
        ]

    @property
    def others(self) -> list[int]:
        """The episodes that only an earlier run annotated; their rows stay."""
        return sorted(
            self._validated & {e.episode_index for e in self.source.episodes} - {*self.selected}
        )

    @functools.cached_property
    def _validated(self) -> frozenset[int]:
        names = (path.stem for path in self.layout.stage_folder("validation").glob("*.json"))
        found = {int(name) for name in names if name.isdigit()}
        return frozenset(found - failed_episodes(self.results, found))

    def _episodes_in(self, data_file: str) -> list[int]:
        try:
            return [episode.episode_index for episode in self.source.data_files[data_file]]
        except KeyError:
            raise CuesheetError(
                f"{self.name}: the dataset has no data file {data_file}; it has "
                f"{', '.join(list(self.source.data_files)[:5])}"
            ) from None

    # Source files

    def check_wildcards(self, wildcards: Mapping[str, str]) -> None:
        """Raise CuesheetError if the episode, camera or data file of a target does not exist."""
        if "episode" in wildcards:
            self.episode(int(wildcards["episode"]))
        if "camera" in wildcards:
            self.source.camera(wildcards["camera"])
        if "data_file" in wildcards:
            self._episodes_in(f"{wildcards['data_file']}.parquet")

    def episode(self, episode_index: int) -> Episode:
        return self.source.episode(episode_index)

    @functools.cached_property
    def metadata_files(self) -> list[str]:
        meta = self.root / "meta"
        found = [meta / "info.json", *sorted((meta / "episodes").rglob("*.parquet"))]
        found += [meta / "tasks.parquet", *sorted(meta.glob("*.jsonl"))]
        return [str(path) for path in found if path.exists()]

    def _image_file(self, episode_index: int, camera: str) -> str:
        """Return the video file of an episode, or for an image camera its data file."""
        episode = self.episode(episode_index)
        if camera not in self.cameras_of(episode_index):
            self.source.camera(camera)  # raises for a camera that the dataset does not have
            raise CuesheetError(f"{self.name}: episode {episode_index} has no video of {camera}.")
        video = episode.videos.get(camera)
        return video.file if video else episode.data_file

    def clip_source(self, episode_index: int, camera: str) -> dict[str, Any]:
        """Return what `extract_clip` needs to know; it changes if the episode changes.

        Paths are relative to the dataset's root: a dataset that moved is not a change.
        """
        episode = self.episode(episode_index)
        video = episode.videos.get(camera)
        return {
            "kind": self.source.camera(camera).kind,
            "file": self._image_file(episode_index, camera),
            "file_state": self._image_file_state(episode_index, camera),
            "from_s": video.from_s if video else None,
            "to_s": video.to_s if video else None,
            "length": episode.length,
            "fps": self.source.fps,
            "fingerprint": episode.fingerprint,
        }

    def keyframes_source(self, episode_index: int) -> dict[str, Any]:
        """Return a value that changes if the images or timestamps of an episode change."""
        return {
            "fingerprint": self.episode(episode_index).fingerprint,
            "files": [
                self._image_file_state(episode_index, camera)
                for camera in self.cameras_of(episode_index)
            ],
        }

    def _image_file_state(self, episode_index: int, camera: str) -> str:
        return self._file_state(str(self.root / self._image_file(episode_index, camera)))

    @functools.cached_property
    def _file_state(self) -> Callable[[str], str]:
        return functools.cache(file_state)

    def check_files(self) -> None:
        """Raise CuesheetError if source files of the selected episodes do not exist.

        A conversion to another format needs the files of all episodes and cameras.
        """
        source, advice = self.source, "leave these episodes out (episodes: [...])"
        needed = source.files_of(self.worked_on)
        if self.is_converted:
            advice = "set output.format to source, which needs only the selected episodes"
            every = (episode.episode_index for episode in source.episodes)
            needed = source.files_of(every, include_excluded=True)
        missing = [file for file in sorted(needed) if not source.has_file(file)]
        if missing:
            lines = [
                f"  {self.root / file}, needed by {describe_range(needed[file])}"
                for file in missing[:20]
            ]
            raise CuesheetError(
                f"{self.name}: {len(missing)} files that meta/ names do not exist:\n"
                + "\n".join(lines)
                + f"\nCopy or download the dataset again, or {advice}."
            )

    def refresh_index(self) -> bool:
        """Remove leftovers of killed runs; re-create an index that no longer matches the source.

        Returns whether the index was re-created. Raises CuesheetError if the source's files
        disagree with its metadata; the existing index is kept.
        """
        removed = remove_leftovers(self.results)
        if removed:
            print(
                f"Cuesheet: {self.name}: removed {removed} temporary files of a killed run",
                file=sys.stderr,
            )
        path = self.layout.index
        if not path.exists() or is_current(path, self.source, self.worked_on):
            return False
        # These import pyarrow and a video library, which jobs should not.
        from cuesheet.artifacts import source_changes
        from cuesheet.dataset.index import make_index

        print(f"Cuesheet: {self.name}: the source changed; checking it", file=sys.stderr)
        before = source_changes.read_fingerprints(path)
        notices = [  # those of the metadata are on the terminal already
            notice
            for notice in make_index(path, self.source, self.worked_on)
            if notice not in self.source.notices
        ]
        after = source_changes.read_fingerprints(path)
        if before is not None and (changes := source_changes.compare(before, after)):
            source_changes.record(self.results, changes)
            notices = [f"episodes: {source_changes.describe(vars(changes))}", *notices]
        for notice in notices:
            print(f"Cuesheet: {self.name}: {notice}", file=sys.stderr)
        return True

    def refresh_signals_layout(self, settings: SignalsConfig, *, source_changed: bool) -> None:
        """Detect arms and grippers again if the source or the settings changed.

        The layout is written only if other arms or grippers are found, so that added, removed or
        replaced episodes do not change the signals of the others.
        """
        path = self.layout.signals_layout
        if not settings.enabled or not path.exists() or not self.layout.index.exists():
            return
        before = read_layout(path)
        if before.wanted == settings.gripper and not source_changed:
            return
        from cuesheet.signals.detect import detect  # imports numpy and pyarrow

        found = detect(self.root, self.layout.index, self.name, **settings.detection)
        if found.is_same_robot(before):
            return
        write_json(path, found.model_dump())
        if source_changed:
            print(
                f"Cuesheet: {self.name}: the source changed; {found.describe()} (before: "
                f"{before.describe()}). The next run measures all episodes again",
                file=sys.stderr,
            )

    def signals_source(self, episode_index: int) -> str:
        """Return a value that changes if the state or action of an episode changes."""
        return self.episode(episode_index).fingerprint

    # What people decided

    def given_subtasks(self, episode_index: int) -> dict[str, Any] | None:
        """Return the subtasks that replace the model's; None if the model is asked."""
        correction = self.corrections.get(episode_index)
        if correction is not None and correction.subtasks is not None:
            return {"spans": [span.model_dump() for span in correction.subtasks]}
        if self.subtask_column is None:
            return None
        data_file = self.episode(episode_index).data_file
        labels = labels_file(self.root, self.subtask_column)
        return {
            "data_file": data_file,
            "column": self.subtask_column,
            "states": [self._file_state(str(f)) for f in (self.root / data_file, labels) if f],
        }

    def vqa_corrections(self, episode_index: int) -> list[dict[str, Any]]:
        correction = self.corrections.get(episode_index)
        return [entry.model_dump() for entry in (correction and correction.vqa) or ()]

    def verdict(self, episode_index: int) -> str | None:
        """Return a person's verdict on an episode: good, bad, or None."""
        correction = self.corrections.get(episode_index)
        return correction.verdict if correction else None

    # Files of the run

    @property
    def clips(self) -> list[str]:
        return [
            str(self.layout.clip(camera, index))
            for index in self.worked_on
            for camera in self.cameras_of(index)
        ]

    @property
    def keyframe_folders(self) -> list[str]:
        return [str(self.layout.keyframes(index)) for index in self.worked_on]

    def stage_files(self, episodes: Collection[int], stages: Collection[str]) -> list[str]:
        return [str(self.layout.stage_file(stage, index)) for stage in stages for index in episodes]

    def validations(self, episodes: Iterable[int]) -> list[str]:
        return [str(self.layout.validation(index)) for index in episodes]

    @property
    def is_converted(self) -> bool:
        """Whether the output has another format than the source."""
        return self.output_format != "source" and self.output_format != self.source.version

    @property
    def merged_data_files(self) -> list[str]:
        """Data files with language columns. If the output is converted, these are its input.

        Files of the source that do not exist (they hold no selected episode) are left out.
        """
        tree = self.layout.merged if self.is_converted else self.layout.annotated
        present = (file for file in self.source.data_files if self.source.has_file(file))
        return [str(tree / file) for file in present]


@dataclass(frozen=True)
class Run:
    """A run of the workflow. `shard` is set in the inner run of a shard's job."""

    config: Config
    datasets: dict[str, RunDataset]
    references: Mapping[str, str] = field(default_factory=dict)  # for scores, by dataset
    shard: str | None = None
    results_root: Path = RESULTS

    def is_sharded(self, remote: bool) -> bool:
        """Whether there is one job per shard. `remote`: jobs run on a cluster."""
        if self.shard is not None or self.config.cluster.shards == "never":
            return False
        if remote or self.config.cluster.shards == "always":
            return True
        episodes = sum(len(dataset.selected) for dataset in self.datasets.values())
        return episodes > MAX_UNSHARDED_EPISODES

    def check_judge(self, remote: bool) -> None:
        """Raise CuesheetError if labels are to be judged but the run has no model server."""
        if self.config.evaluate.judge and self.references and self.is_sharded(remote):
            raise CuesheetError(
                "config: evaluate.judge: found true in a run with one job per shard, whose model "
                "servers end with their shards; set it to false here. When the shards are done, "
                "run once more on one machine that has the model, with evaluate.judge: true and "
                "cluster.shards: never; only the judge is asked then"
            )

    @property
    def gpus(self) -> int:
        """GPUs that the run's model servers need."""
        vlm = self.config.vlm
        if vlm.serve != "managed":
            return 0
        return vlm.replicas * (vlm.managed.gpus_per_replica or vlm.managed.tensor_parallel_size)

    @property
    def stages(self) -> list[str]:
        """The annotation stages that are enabled."""
        return [stage for stage in STAGES if getattr(self.config, stage).enabled]

    @functools.cached_property
    def plan(self) -> PlanConfig:
        """The settings of the plan, with the defaults that depend on the model filled in."""
        plan, is_demo = self.config.plan, self.model.startswith(DEMO_MODEL.rpartition("-")[0])
        changes: dict[str, Any] = {}
        if plan.second_look is None:
            changes["second_look"] = not is_demo
        if plan.relabel == "auto":
            changes["relabel"] = "off" if is_demo else default_relabeling(self.model)
            if plan.label_candidates > 1 and changes["relabel"] == "off":
                changes["relabel"] = "span"
        return plan.model_copy(update=changes)

    @property
    def fine_per_second(self) -> float | None:
        """Keyframes per second for the second look; None without it."""
        if not (self.config.plan.enabled and self.plan.second_look):
            return None
        return max(SECOND_LOOK_PER_SECOND, self.config.keyframes.per_second)

    @property
    def asking_stages(self) -> list[str]:
        """The enabled stages that ask the model about each episode; `inspection` writes no rows."""
        return [*self.stages, *(["inspection"] if self.config.inspect.enabled else [])]

    @property
    def model(self) -> str:
        """Name of the model, as its server lists it."""
        return served_model(self.config)

    @property
    def model_settings(self) -> dict[str, Any]:
        """Everything that determines a response of the model, whichever stage asks."""
        vlm = self.config.vlm
        return {
            "version": ANSWER_VERSION,
            "serve": vlm.serve,
            "model": self.model,
            "sampling": vlm.sampling.model_dump(),
            "images": vlm.images.model_dump(exclude={"transport"}),
        }

    @property
    def clip_settings(self) -> dict[str, Any]:
        """Settings of `extract_clip`. Clips that are sent to a model are always H.264.

        Model servers often cannot decode AV1 (vLLM with the wheel of OpenCV cannot).
        """
        settings = self.config.media.model_dump()
        if self.config.plan.frames.mode == "clip":
            settings["clip_codec"] = "h264"
        return settings

    @property
    def media_settings(self) -> dict[str, Any]:
        """Everything that determines the clips and keyframes of an episode, besides its source."""
        config = self.config
        return {
            "clips": config.media.model_dump(),
            "keyframes": config.keyframes.model_dump(),
            "vqa": [config.vqa.enabled, config.vqa.hz, config.vqa.frames],
            **({"fine_per_second": fine} if (fine := self.fine_per_second) else {}),
        }

    @property
    def annotation_settings(self) -> dict[str, Any]:
        """Everything that determines the annotations of an episode, besides its media."""
        config = self.config
        return {
            "model_settings": self.model_settings,
            "signals": config.signals.model_dump(),
            "stages": {
                stage: (self.plan if stage == "plan" else getattr(config, stage)).model_dump()
                for stage in self.stages
            },
            "cameras": [
                [data.default_camera, *data.vqa_cameras] for data in self.datasets.values()
            ],
            "coordinates": config.vlm.coordinates,
            "seed": config.seed,
            **({"leave_out": config.output.leave_out} if config.inspect.enabled else {}),
        }

    def dataset(self, name: str) -> RunDataset:
        """Return the dataset called `name`. Raises CuesheetError with the most similar name."""
        if name not in self.datasets:
            near = did_you_mean(name, list(self.datasets))
            hint = f"; did you mean {near}?" if near else "."
            raise CuesheetError(
                f"there is no dataset called {name} in this run{hint} It has "
                f"{', '.join(self.datasets)} (the setting `dataset` names them)."
            )
        return self.datasets[name]

    @property
    def shared_folder(self) -> str | None:
        """Folder of media that are sent as file URLs; None if they are sent as data URLs."""
        if self.config.vlm.images.transport == "data_url":
            return None
        return str(Path(self.config.vlm.cache_dir) / "media")

    def coordinates_notice(self, root: str = "") -> str | None:
        """Return a notice if answers have coordinates in a convention that is only assumed.

        Args:
            root: the model behind the served name, as the server lists it, or "".
        """
        config = self.config
        if not config.vqa.enabled or not {"bbox", "keypoint"} & set(config.vqa.types):
            return None
        return unknown_family_notice(self.model, config.vlm.coordinates, root)

    def server_settings(self) -> dict[str, Any]:
        """Return what the supervisor needs to know."""
        return {
            **vlm_settings(self.config),
            "shared_folder": self.shared_folder,
            "shard": self.shard,
            "results_dir": str(self.results_root),
            "totals": self.totals(),
            "ends_run": True,
        }

    def totals(self) -> dict[str, dict[str, list[str]]]:
        """Return the episodes and stages to finish, by dataset, for the progress line."""
        return {
            name: {
                "episodes": [episode_name(index) for index in dataset.worked_on],
                "stages": ["keyframes", *self.asking_stages, "validation"],
            }
            for name, dataset in self.datasets.items()
        }


def served_model(config: Config) -> str:
    """Return the name of the model, as its server lists it."""
    return config.vlm.model or DEMO_MODEL


def vlm_settings(config: Config) -> dict[str, Any]:
    """Return the settings of the model servers and the gateway."""
    vlm = config.vlm
    names = (
        "serve",
        "base_urls",
        "api_key_env",
        "api_key_file",
        "concurrency",
        "timeout_s",
        "max_attempts",
        "max_restarts",
        "ready_timeout_s",
        "replicas",
        "cache_dir",
        "structured_output",
    )
    return {
        **{name: getattr(vlm, name) for name in names},
        "model": served_model(config),
        "budget": vlm.budget.model_dump(),
        "price": vlm.price.model_dump(),
        "managed": {**vlm.managed.model_dump(), "command": vlm.managed.words()},
    }
