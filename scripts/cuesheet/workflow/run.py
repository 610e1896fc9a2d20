"""A run: its validated configuration and its datasets, for the rules.

Only metadata is read here, because every job parses the Snakefile.
"""

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuesheet.artifacts.finished import jobs_of
from cuesheet.artifacts.layout import RESULTS, episode_name
from cuesheet.artifacts.stage_files import STAGES, StageName
from cuesheet.config import prompt_files
from cuesheet.config.models import Config
from cuesheet.config.stages import PlanConfig
from cuesheet.errors import CuesheetError
from cuesheet.text import did_you_mean
from cuesheet.vlm.coordinates import default_relabeling, unknown_family_notice
from cuesheet.vlm.prompts import Prompts
from cuesheet.workflow.run_dataset import RunDataset
from demo_vlm import MODEL_ID as DEMO_MODEL

# Part of the rerun trigger of the stages. Increase it when a code change alters their output.
ANSWER_VERSION = 2

# Keyframes per second that the second look shows.
SECOND_LOOK_PER_SECOND = 4.0

# Larger runs use shards: planning them job by job takes minutes and gigabytes.
MAX_UNSHARDED_EPISODES = 2000


# What targets need: dataset, rule, all episodes and those whose jobs will run.
Requested = Mapping[str, Mapping[str, tuple[Sequence[str], Sequence[str]]]]


@dataclass(frozen=True)
class Run:
    """A run of the workflow. `shard` is set in the inner run of a shard's job."""

    config: Config
    datasets: dict[str, RunDataset]
    references: Mapping[str, str] = field(default_factory=dict)  # for scores, by dataset
    shard: str | None = None
    results_root: Path = RESULTS

    def is_sharded(self, remote: bool) -> bool:
        """Tell whether there is one job per shard. `remote`: jobs run on a cluster."""
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
                "cluster.shards: never; only the judge then sends requests"
            )

    @property
    def gpus(self) -> int:
        """Number of GPUs that the run's model servers need."""
        vlm = self.config.vlm
        if vlm.serve != "managed":
            return 0
        return vlm.replicas * (vlm.managed.gpus_per_replica or vlm.managed.tensor_parallel_size)

    @property
    def stages(self) -> list[StageName]:
        """The annotation stages that are enabled."""
        return [stage for stage in STAGES if getattr(self.config, stage).enabled]

    @functools.cached_property
    def turns(self) -> dict[tuple[str, str], int]:
        """The order of the episodes of all datasets: position by dataset and episode name."""
        episodes = [
            (name, episode_name(index))
            for name, dataset in self.datasets.items()
            for index in dataset.worked_on
        ]
        return {episode: position for position, episode in enumerate(episodes)}

    @functools.cached_property
    def plan(self) -> PlanConfig:
        """The settings of the plan, with the defaults that depend on the model filled in."""
        return resolve_plan(self.config)

    def labels_for(self, dataset: RunDataset, episode_index: int) -> list[str]:
        """Return the labels that the plan of an episode may use; an empty list for any."""
        return list(self.config.plan.labels_of(dataset.episode(episode_index).task))

    @property
    def fine_per_second(self) -> float | None:
        """Keyframes per second for the second look; None without it."""
        if not (self.config.plan.enabled and self.plan.second_look):
            return None
        return max(SECOND_LOOK_PER_SECOND, self.config.keyframes.per_second)

    @property
    def asking_stages(self) -> list[StageName]:
        """The enabled stages that ask the model about each episode; `inspection` writes no rows."""
        inspected: list[StageName] = ["inspection"] if self.config.inspect.enabled else []
        return [*self.stages, *inspected]

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
        """Everything but the source that determines the clips and keyframes of an episode."""
        config = self.config
        return {
            "clips": config.media.model_dump(),
            "keyframes": config.keyframes.model_dump(),
            "vqa": [config.vqa.enabled, config.vqa.hz, config.vqa.frames],
            **({"fine_per_second": fine} if (fine := self.fine_per_second) else {}),
        }

    @property
    def annotation_settings(self) -> dict[str, Any]:
        """Everything but the media that determines the annotations of an episode."""
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

    def recipes(self, dataset: RunDataset) -> dict[str, str]:
        """Return a hash of what determines the requests of each stage, but for single episodes."""
        common = {
            "root": os.path.abspath(dataset.root),
            "model_settings": {**self.model_settings, "serve": None},
            "media": self.media_settings["keyframes"],
            "signals": self.config.signals.model_dump(),
            "frames": self.config.plan.frames.model_dump(),
            "cameras": [dataset.default_camera, *dataset.vqa_cameras],
            "coordinates": self.config.vlm.coordinates,
            "seed": self.config.seed,
        }
        found: dict[str, str] = {}
        for stage in self.asking_stages:
            section = {"plan": self.plan, "inspection": self.config.inspect}
            settings = section.get(stage) or getattr(self.config, stage)
            names = prompt_files.of_stages([stage])
            hashes = Prompts(dataset.prompts_dir / f"{name}.md" for name in names).hashes
            recipe = {**common, "settings": settings.model_dump(), "prompts": hashes}
            text = json.dumps(recipe, sort_keys=True, default=str)
            found[stage] = hashlib.sha256(text.encode()).hexdigest()[:32]
        return found

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
            "recipes": {name: self.recipes(dataset) for name, dataset in self.datasets.items()},
            "ends_run": True,
        }

    def totals(self, requested: Requested | None = None) -> dict[str, dict[str, Any]]:
        """Return the episodes and stages to finish, by dataset, for the counts of progress.

        With `requested`, `jobs` names the episodes of each stage that the targets need, and the
        files of earlier runs that will be replaced (`cuesheet.artifacts.finished.Jobs`).
        """
        totals: dict[str, dict[str, Any]] = {}
        for name, dataset in self.datasets.items():
            totals[name] = {
                "episodes": [episode_name(index) for index in dataset.worked_on],
                "stages": ["keyframes", *self.asking_stages, "validation"],
            }
            if requested is not None:
                totals[name]["jobs"] = jobs_of(dataset.results, requested.get(name, {}))
        return totals


def resolve_plan(config: Config) -> PlanConfig:
    """Return the settings of the plan, with the defaults that depend on the model filled in."""
    plan, model = config.plan, served_model(config)
    is_demo = model.startswith(DEMO_MODEL.rpartition("-")[0])
    changes: dict[str, Any] = {}
    if plan.second_look is None:
        changes["second_look"] = not is_demo
    if plan.relabel == "auto":
        changes["relabel"] = "off" if is_demo else default_relabeling(model)
        if plan.label_candidates > 1 and changes["relabel"] == "off":
            changes["relabel"] = "span"
    return plan.model_copy(update=changes)


def served_model(config: Config) -> str:
    """Return the name of the model, as its server lists it."""
    return config.vlm.model or DEMO_MODEL


def vlm_settings(config: Config) -> dict[str, Any]:
    """Return the settings of the model servers and the gateway."""
    vlm = config.vlm
    others = {"check", "coordinates", "throughput", "sampling", "images"}
    return {
        **vlm.model_dump(exclude=others),
        "model": served_model(config),
        "managed": {**vlm.managed.model_dump(), "command": vlm.managed.words()},
    }
