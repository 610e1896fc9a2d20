"""What the Snakefile knows while it is parsed: the configuration and the datasets it names.

Only metadata is read here. Paths in the results folder are relative to the working directory.
"""

import functools
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuesheet.artifacts.corrections import Correction
from cuesheet.artifacts.layout import RESULTS, Layout, episode_name
from cuesheet.artifacts.stage_files import STAGES
from cuesheet.config.models import Config
from cuesheet.dataset.index_state import file_state, is_current
from cuesheet.dataset.metadata import Dataset, Episode
from cuesheet.dataset.subtask_labels import LABELS_FILE
from cuesheet.errors import CuesheetError
from cuesheet.files import remove_leftovers
from cuesheet.text import describe_range, did_you_mean
from demo_vlm import MODEL_ID as DEMO_MODEL

# Part of the rerun trigger: raised when the answers of the stages change by our code.
ANSWER_VERSION = 1

# Episodes that one run plans job by job; beyond, planning takes minutes and gigabytes.
MOST_UNSHARDED = 2000


@dataclass(frozen=True)
class RunDataset:
    """One dataset of a run and the files that the run makes of it."""

    name: str
    source: Dataset
    selected: Sequence[int]  # episode indices to work on
    default_camera: str | None  # None: the dataset has no camera
    vqa_cameras: Sequence[str]
    prompts_dir: Path  # folder of the prompt files
    left_out: frozenset[int] = frozenset()  # failed before, and on_missing: leave_unannotated
    corrections: Mapping[int, Correction] = field(default_factory=dict)  # by episode
    kept: frozenset[int] = frozenset()  # have rows in the source, and existing: keep
    output_format: str = "source"
    subtask_column: str | None = None  # of labels that the dataset brings along and that are used

    @property
    def root(self) -> Path:
        return self.source.root

    @property
    def results(self) -> Path:
        return RESULTS / self.name

    @property
    def layout(self) -> Layout:
        """Paths of what the run makes of this dataset."""
        return Layout(self.results)

    @property
    def cameras(self) -> list[str]:
        return list(self.source.cameras)

    def episode(self, episode_index: int) -> Episode:
        return self.source.episode(episode_index)

    @functools.cached_property
    def metadata_files(self) -> list[str]:
        meta = self.root / "meta"
        found = [meta / "info.json", *sorted((meta / "episodes").rglob("*.parquet"))]
        found += [meta / "tasks.parquet", *sorted(meta.glob("*.jsonl"))]
        return [str(path) for path in found if path.exists()]

    def picture_file(self, episode_index: int, camera: str) -> str:
        """The video file, or for a camera whose pictures are in the data files that data file."""
        episode = self.episode(episode_index)
        self.source.camera(camera)
        video = episode.videos.get(camera)
        return str(self.root / (video.file if video else episode.data_file))

    def picture_files(self, episode_index: int) -> list[str]:
        files = (self.picture_file(episode_index, camera) for camera in self.cameras)
        return list(dict.fromkeys(files))

    def clip_source(self, episode_index: int, camera: str) -> dict[str, Any]:
        """What `extract_clip` needs to know of its episode; changes when the episode does."""
        episode = self.episode(episode_index)
        video = episode.videos.get(camera)
        first = self.source.data_files[episode.data_file][0].dataset_from_index
        return {
            "kind": self.source.camera(camera).kind,
            "file": self.picture_file(episode_index, camera),
            "file_state": self._picture_state(episode_index, camera),
            "from_s": video.from_s if video else None,
            "to_s": video.to_s if video else None,
            "length": episode.length,
            "fps": self.source.fps,
            "row_from": episode.dataset_from_index - first,
            "row_to": episode.dataset_to_index - first,
            "fingerprint": episode.fingerprint,
        }

    def keyframes_source(self, episode_index: int) -> dict[str, Any]:
        """What changes when an episode's pictures or times do."""
        return {
            "fingerprint": self.episode(episode_index).fingerprint,
            "files": [self._picture_state(episode_index, camera) for camera in self.cameras],
        }

    def _picture_state(self, episode_index: int, camera: str) -> str:
        return self._file_state(self.picture_file(episode_index, camera))

    @functools.cached_property
    def _file_state(self) -> Callable[[str], str]:
        return functools.cache(file_state)

    def refresh_index(self) -> None:
        """Remove leftovers of killed runs; re-create an index that no longer fits the source.

        Raises CuesheetError if the source's files disagree with its metadata; the existing index
        is kept.
        """
        removed = remove_leftovers(self.results)
        if removed:
            print(
                f"Cuesheet: {self.name}: removed {removed} temporary files of a killed run",
                file=sys.stderr,
            )
        path = self.layout.index
        if path.exists() and not is_current(path, self.source, self.worked_on):
            from cuesheet.dataset.index import make_index  # imports a video library

            print(f"Cuesheet: {self.name}: the source changed; checking it", file=sys.stderr)
            from cuesheet.artifacts import source_changes

            before = source_changes.read_fingerprints(path)
            notices = make_index(path, self.source, self.worked_on)
            after = source_changes.read_fingerprints(path)
            if before is not None and (changes := source_changes.compare(before, after)):
                source_changes.record(self.results, changes)
                notices = [f"episodes: {source_changes.describe(vars(changes))}", *notices]
            for notice in notices:
                print(f"Cuesheet: {self.name}: {notice}", file=sys.stderr)

    def check_files(self) -> None:
        """Raise CuesheetError for files of the episodes to be worked on that are not there."""
        needed = self.source.files_of(self.worked_on)
        missing = [file for file in sorted(needed) if not self.source.is_there(file)]
        if missing:
            lines = [
                f"  {self.root / file}, needed by {describe_range(needed[file])}"
                for file in missing[:20]
            ]
            raise CuesheetError(
                f"{self.name}: files that meta/ names are not there ({len(missing)}):\n"
                + "\n".join(lines)
                + "\nCopy or download the dataset again, or leave these episodes out "
                "(episodes: [...])."
            )

    def given_subtasks(self, episode_index: int) -> dict[str, Any] | None:
        """Subtasks of an episode that the model is not asked for; None where it is."""
        correction = self.corrections.get(episode_index)
        if correction is not None and correction.subtasks is not None:
            return {"spans": [span.model_dump() for span in correction.subtasks]}
        if self.subtask_column is None:
            return None
        data_file = self.episode(episode_index).data_file
        return {
            "root": str(self.root),
            "data_file": data_file,
            "column": self.subtask_column,
            "states": [self._file_state(str(self.root / f)) for f in (data_file, LABELS_FILE)],
        }

    def vqa_corrections(self, episode_index: int) -> list[dict[str, Any]]:
        correction = self.corrections.get(episode_index)
        return [entry.model_dump() for entry in (correction and correction.vqa) or ()]

    def verdict(self, episode_index: int) -> str | None:
        """What a person said of the episode: good, bad, or nothing."""
        correction = self.corrections.get(episode_index)
        return correction.verdict if correction else None

    @property
    def clips(self) -> list[str]:
        return [
            str(self.layout.clip(camera, index))
            for camera in self.cameras
            for index in self.worked_on
        ]

    @property
    def keyframe_folders(self) -> list[str]:
        return [str(self.layout.keyframes(index)) for index in self.worked_on]

    @functools.cached_property
    def _chosen(self) -> frozenset[int]:
        return frozenset(self.selected)

    @property
    def worked_on(self) -> list[int]:
        """The chosen episodes, those left out or kept as they are apart."""
        apart = self.left_out | self.kept
        return [index for index in self.selected if index not in apart]

    def validations(self, episodes: Iterable[int]) -> list[str]:
        return [str(self.layout.validation(index)) for index in episodes]

    def stage_files(self, episodes: Collection[int], stages: Collection[str]) -> list[str]:
        return [str(self.layout.stage_file(stage, index)) for stage in stages for index in episodes]

    def selected_in(self, data_file: str) -> list[int]:
        """The episodes of one data file of the source that are worked on."""
        chosen = self._chosen - self.left_out - self.kept
        return [index for index in self._episodes_in(data_file) if index in chosen]

    def others_in(self, data_file: str) -> list[int]:
        """Episodes of a data file that are not chosen now but were annotated before: they stay."""
        return [
            index
            for index in self._episodes_in(data_file)
            if index not in self._chosen and index in self._validated
        ]

    @functools.cached_property
    def _validated(self) -> frozenset[int]:
        names = (path.stem for path in self.layout.stage_folder("validation").glob("*.json"))
        return frozenset(int(name) for name in names if name.isdigit())

    @property
    def is_laid_out_anew(self) -> bool:
        """Whether the output has another format than the source."""
        return self.output_format != "source" and self.output_format != self.source.version

    @property
    def merged_data_files(self) -> list[str]:
        """Data files with language, of the output or, before they are laid out anew, beside it.

        Files that are not there (they hold no chosen episode) are left out.
        """
        tree = self.layout.merged if self.is_laid_out_anew else self.layout.annotated
        present = (file for file in self.source.data_files if self.source.is_there(file))
        return [str(tree / file) for file in present]

    def _episodes_in(self, data_file: str) -> list[int]:
        try:
            return [episode.episode_index for episode in self.source.data_files[data_file]]
        except KeyError:
            raise CuesheetError(
                f"{self.name}: the dataset has no data file {data_file}; it has "
                f"{', '.join(list(self.source.data_files)[:5])}"
            ) from None


@dataclass(frozen=True)
class Run:
    config: Config
    datasets: dict[str, RunDataset]
    references: Mapping[str, str] = field(default_factory=dict)  # to score against, by dataset
    shard: str | None = None  # of the inner run of a shard's job

    def is_sharded(self, remote: bool) -> bool:
        """Whether there is one job a shard; `remote`: jobs go to a cluster."""
        if self.shard is not None or self.config.cluster.shards == "never":
            return False
        episodes = sum(len(dataset.selected) for dataset in self.datasets.values())
        return remote or self.config.cluster.shards == "always" or episodes > MOST_UNSHARDED

    def check_judge(self, remote: bool) -> None:
        """Raise CuesheetError where labels are to be judged and the run has no model server."""
        if self.config.evaluate.judge and self.references and self.is_sharded(remote):
            raise CuesheetError(
                "config: evaluate.judge: found true in a run with one job a shard, whose model "
                "servers end with their shards; set it to false here. When the shards are done, "
                "run once more on one machine that has the model, with evaluate.judge: true and "
                "cluster.shards: never; only the judge is asked then"
            )

    @property
    def gpus(self) -> int:
        """GPUs that the run's model servers want."""
        vlm = self.config.vlm
        if vlm.serve != "managed":
            return 0
        return vlm.replicas * (vlm.managed.gpus_per_replica or vlm.managed.tensor_parallel_size)

    @property
    def stages(self) -> list[str]:
        """The annotation stages that are switched on."""
        return [stage for stage in STAGES if getattr(self.config, stage).enabled]

    def dataset(self, name: str) -> RunDataset:
        """The dataset called `name`. Raises CuesheetError with the nearest name."""
        if name not in self.datasets:
            near = did_you_mean(name, list(self.datasets))
            hint = f"; did you mean {near}?" if near else "."
            raise CuesheetError(
                f"there is no dataset called {name} in this run{hint} It has "
                f"{', '.join(self.datasets)} (the setting `dataset` names them)."
            )
        return self.datasets[name]

    @property
    def model(self) -> str:
        """The model that is asked, as its server lists it."""
        return self.config.vlm.model or DEMO_MODEL

    @property
    def shared_folder(self) -> str | None:
        """Folder of media that are sent as file URLs; None where they are sent as data URLs."""
        if self.config.vlm.images.transport == "data_url":
            return None
        return str(Path(self.config.vlm.cache_dir) / "media")

    def server_settings(self) -> dict[str, Any]:
        """What the supervisor needs to know."""
        vlm = self.config.vlm
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
            "model": self.model,
            "managed": {**vlm.managed.model_dump(), "command": vlm.managed.words()},
            "shared_folder": self.shared_folder,
            "shard": self.shard,
            "results_dir": str(RESULTS),
            "totals": self.totals(),
        }

    def totals(self) -> dict[str, dict[str, list[str]]]:
        """Episodes and stages to be done by dataset, as the progress line wants them."""
        return {
            name: {
                "episodes": [episode_name(index) for index in dataset.worked_on],
                "stages": ["keyframes", *self.stages, "validation"],
            }
            for name, dataset in self.datasets.items()
        }
