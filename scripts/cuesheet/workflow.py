"""What the Snakefile knows while it is parsed: the configuration and the datasets it names.

Only metadata is read here. Paths in the results folder are relative to the working directory.
"""

import functools
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuesheet import prompts
from cuesheet.config import Config
from cuesheet.config_checks import check_cameras, check_episodes, check_folder
from cuesheet.config_errors import load_config
from cuesheet.dataset import Dataset, Episode, describe_range, read_dataset
from cuesheet.errors import CuesheetError
from cuesheet.index_state import file_state, is_current
from cuesheet.nearest import nearest
from cuesheet.offline_vlm import MODEL_ID as OFFLINE_MODEL

# Part of the rerun trigger: raised when the answers of the stages change by our code.
ANSWER_VERSION = 1

STAGES = ("plan", "interjections", "vqa")
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
    left_out: frozenset[int] = frozenset()  # failed before, and on_missing: leave_unannotated

    @property
    def root(self) -> Path:
        return self.source.root

    @property
    def results(self) -> Path:
        return Path("results") / self.name

    @property
    def cameras(self) -> list[str]:
        return list(self.source.cameras)

    def episode(self, episode_index: int) -> Episode:
        return self.source.episode(episode_index)

    @functools.cached_property
    def metadata_files(self) -> list[str]:
        meta = self.root / "meta"
        found = [meta / "info.json", *sorted((meta / "episodes").rglob("*.parquet"))]
        tasks = meta / "tasks.parquet"
        return [str(path) for path in [*found, *([tasks] if tasks.exists() else [])]]

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
        """Make the index anew if there is one that no longer fits the source.

        Raises CuesheetError where the source's files disagree with its metadata; the index that
        was there stays.
        """
        path = self.results / "episodes.parquet"
        if path.exists() and not is_current(path, self.source, self.worked_on):
            from cuesheet.episode_index import make_index  # imports a video library

            print(f"Cuesheet: {self.name}: the source changed; checking it", file=sys.stderr)
            notices = make_index(path, self.source, self.worked_on)
            for notice in notices:
                print(f"Cuesheet: {self.name}: {notice}", file=sys.stderr)

    def check_files(self) -> None:
        """Raise CuesheetError for files of the episodes to be worked on that are not there."""
        needed: dict[str, list[int]] = {}
        for index in self.worked_on:
            episode = self.episode(index)
            for file in {episode.data_file, *(video.file for video in episode.videos.values())}:
                needed.setdefault(file, []).append(index)
        missing = [file for file in sorted(needed) if not (self.root / file).is_file()]
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

    @property
    def clips(self) -> list[str]:
        return [
            str(self.results / "clips" / camera / f"episode_{index:06d}.mp4")
            for camera in self.cameras
            for index in self.worked_on
        ]

    @property
    def keyframe_folders(self) -> list[str]:
        return [str(self.results / "keyframes" / f"{index:06d}") for index in self.worked_on]

    @functools.cached_property
    def _chosen(self) -> frozenset[int]:
        return frozenset(self.selected)

    @property
    def worked_on(self) -> list[int]:
        """The chosen episodes, those left out apart."""
        return [index for index in self.selected if index not in self.left_out]

    def validations(self, episodes: Iterable[int]) -> list[str]:
        return [str(self.results / "validation" / f"{index:06d}.json") for index in episodes]

    def stage_files(self, episodes: Collection[int], stages: Collection[str]) -> list[str]:
        return [
            str(self.results / stage / f"{index:06d}.json")
            for stage in stages
            for index in episodes
        ]

    def selected_in(self, data_file: str) -> list[int]:
        """The chosen episodes of one data file of the source, those left out apart."""
        chosen = self._chosen - self.left_out
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
        names = (path.stem for path in (self.results / "validation").glob("*.json"))
        return frozenset(int(name) for name in names if name.isdigit())

    @property
    def annotated_data_files(self) -> list[str]:
        return [str(self.results / "annotated" / file) for file in self.source.data_files]

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
    prompts_dir: Path
    shard: str | None = None  # of the inner run of a shard's job

    def is_sharded(self, remote: bool) -> bool:
        """Whether there is one job a shard; `remote`: jobs go to a cluster."""
        if self.shard is not None or self.config.cluster.shards == "never":
            return False
        episodes = sum(len(dataset.selected) for dataset in self.datasets.values())
        return remote or self.config.cluster.shards == "always" or episodes > MOST_UNSHARDED

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
            near = nearest(name, list(self.datasets))
            hint = f"; did you mean {near}?" if near else "."
            raise CuesheetError(
                f"there is no dataset called {name} in this run{hint} It has "
                f"{', '.join(self.datasets)} (the setting `dataset` names them)."
            )
        return self.datasets[name]

    @property
    def model(self) -> str:
        """The model that is asked, as its server lists it."""
        return self.config.vlm.model or OFFLINE_MODEL

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
        )
        return {
            **{name: getattr(vlm, name) for name in names},
            "model": self.model,
            "managed": {**vlm.managed.model_dump(), "command": vlm.managed.words()},
            "shared_folder": self.shared_folder,
            "shard": self.shard,
            "results_dir": "results",
            "totals": self.totals(),
        }

    def totals(self) -> dict[str, dict[str, list[str]]]:
        """Episodes and stages to be done by dataset, as the progress line wants them."""
        return {
            name: {
                "episodes": [f"{index:06d}" for index in dataset.worked_on],
                "stages": ["keyframes", *self.stages, "validation"],
            }
            for name, dataset in self.datasets.items()
        }


def load_run(raw: dict[str, Any], repository: Path, shard: Mapping[str, Any] | None = None) -> Run:
    """Check the configuration against itself and against the datasets it names.

    With `shard` (its `dataset`, `shard` and `episodes`) the run is about these episodes alone.
    Raises CuesheetError with one clear line a mistake.
    """
    config = load_config(raw)
    datasets = {}
    for name, entry in config.dataset_entries().items():
        if shard is not None and name != shard["dataset"]:
            continue
        root = _resolve(entry.path, repository)
        check_folder("dataset", root)
        if Path.cwd().resolve().is_relative_to(root.resolve()):
            raise CuesheetError(
                f"{name}: the working directory {Path.cwd()} is inside the dataset {root}, which "
                "is not written to; run from a folder of its own (snakemake --directory FOLDER ...)"
            )
        source = read_dataset(root, name)
        cameras = list(source.cameras)
        known = [episode.episode_index for episode in source.episodes]
        if entry.episodes is not None:
            check_episodes(name, entry.episodes, known)
        default_camera = cameras[0] if cameras else None
        if entry.default_camera is not None:
            check_cameras("default_camera", [entry.default_camera], cameras)
            default_camera = entry.default_camera
        vqa_cameras = config.vqa.cameras
        if isinstance(vqa_cameras, list):
            check_cameras("vqa.cameras", vqa_cameras, cameras)
        elif vqa_cameras == "default":
            vqa_cameras = [default_camera] if default_camera else []
        else:
            vqa_cameras = cameras
        selected = known if entry.episodes is None else entry.episodes
        if shard is not None:
            selected = shard["episodes"]
        left_out = frozenset()
        if config.output.on_missing == "leave_unannotated":
            rules = {"extract_clip", "decode_keyframes", "validate_episode"}
            rules |= {f"annotate_{stage}" for stage in STAGES if getattr(config, stage).enabled}
            left_out = _failed_before(Path("results") / name, selected, rules)
            if left_out and len(left_out) == len(selected) and shard is None:
                raise CuesheetError(
                    f"{name}: output.on_missing is leave_unannotated and all {len(selected)} "
                    f"episodes failed when they were last tried; see results/{name}/failed. Set it "
                    "to fail to try them again."
                )
        dataset = RunDataset(name, source, selected, default_camera, vqa_cameras, left_out)
        dataset.check_files()
        datasets[name] = dataset
        for notice in source.notices:
            print(f"Cuesheet: {name}: {notice}", file=sys.stderr)
    prompts_dir = _resolve(config.prompts_dir, repository)
    _check_prompts(prompts_dir, config)
    return Run(config, datasets, prompts_dir, shard and shard["shard"])


def _check_prompts(folder: Path, config: Config) -> None:
    names = dict.fromkeys(
        name
        for stage in STAGES
        if getattr(config, stage).enabled
        for name in getattr(prompts, stage.upper())
    )
    missing = [name for name in names if not (folder / f"{name}.md").is_file()]
    if missing:
        raise CuesheetError(
            f"config: prompts_dir: {folder} has no {', '.join(f'{name}.md' for name in missing)}; "
            "copy the files of config/prompts and change what you like"
        )


def _resolve(path: str, repository: Path) -> Path:
    """A relative path counts from the working directory, else from the workflow's folder."""
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given
    inside = repository / given
    return inside if inside.exists() else given


def _failed_before(
    results: Path, episodes: Iterable[int], rules: Collection[str]
) -> frozenset[int]:
    """Episodes of which a job of `rules` failed when it was last tried (see `cuesheet.joblog`)."""
    failed = results / "failed"
    if not failed.is_dir():
        return frozenset()
    names = {path.stem for rule in rules for path in (failed / rule).rglob("*.json")}
    return frozenset(index for index in episodes if f"{index:06d}" in names)
