"""The shards of one dataset in one run, as the outer workflow sees them.

A shard's marker, `shards/{shard}.json`, is the only file of it that the outer workflow knows. It
holds the digests of its episodes' validations, and so changes only when an annotation did.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from cuesheet.artifacts.failures import failed_episodes
from cuesheet.artifacts.layout import Layout, shard_name
from cuesheet.cluster.assignment import (
    Assignment,
    deal_out,
    read_assignment,
    size_of,
    write_assignment,
)
from cuesheet.config.cluster import ClusterConfig
from cuesheet.errors import CuesheetError
from cuesheet.text import did_you_mean, to_ranges
from cuesheet.workflow.run import Run, RunDataset


class ShardPlan:
    """What each shard of a dataset has to do. `stages`: the annotation stages that are on."""

    def __init__(self, dataset: RunDataset, settings: ClusterConfig, stages: Sequence[str]) -> None:
        self.dataset = dataset
        self._size = size_of(settings)
        self._speed = settings.video_speed
        self.stages = stages

    @property
    def layout(self) -> Layout:
        return self.dataset.layout

    @functools.cached_property
    def _assignment(self) -> Assignment:
        before = read_assignment(self.layout.shard_assignment, self._size)
        return deal_out(self._durations_s, self._size, before)

    @functools.cached_property
    def _durations_s(self) -> dict[int, float]:
        source = self.dataset.source
        return {episode.episode_index: episode.length / source.fps for episode in source.episodes}

    @functools.cached_property
    def shards(self) -> dict[str, list[int]]:
        """The chosen episodes of every shard that has any, by the shard's name."""
        chosen = set(self.dataset.selected) - self.dataset.kept
        parts = {
            shard_name(number): [index for index in shard if index in chosen]
            for number, shard in enumerate(self._assignment)
        }
        return {name: episodes for name, episodes in parts.items() if episodes}

    def episodes(self, shard: str) -> list[int]:
        """The chosen episodes of a shard. Raises CuesheetError for one that is not there."""
        try:
            return self.shards[shard]
        except KeyError:
            near = did_you_mean(shard, list(self.shards)) or next(iter(self.shards), None)
            raise CuesheetError(
                f"{self.dataset.name} has no shard {shard} with episodes of this run; it has "
                f"{len(self.shards)}{f', {near} for one' if near else ''}"
            ) from None

    def worked_on(self, shard: str) -> list[int]:
        """The same without those that are left out because they failed before."""
        return [index for index in self.episodes(shard) if index not in self.dataset.left_out]

    def minutes(self, shard: str) -> float:
        """How long the shard should take, by the speed that was configured."""
        return sum(self._durations_s[index] for index in self.episodes(shard)) / 60 / self._speed

    def sources(self, shard: str) -> str:
        """A hash of what its episodes are made from; changes when one of them does."""
        return _hash(
            [
                [
                    self._media_sources(index),
                    self.dataset.given_subtasks(index),
                    self.dataset.vqa_corrections(index),
                    self.dataset.verdict(index),
                ]
                for index in self.episodes(shard)
            ]
        )

    def media_sources(self, shard: str) -> str:
        """A hash of what its episodes' clips and keyframes are made from."""
        return _hash([self._media_sources(index) for index in self.episodes(shard)])

    def _media_sources(self, index: int) -> list[Any]:
        clips = [self.dataset.clip_source(index, key) for key in self.dataset.cameras_of(index)]
        return [self.dataset.keyframes_source(index), clips]

    def marker(self, shard: str) -> str:
        return str(self.layout.shard_marker(shard))

    def media_marker(self, shard: str) -> str:
        return str(self.layout.shard_media_marker(shard))

    def markers_of(self, episodes: Iterable[int]) -> list[str]:
        """Markers of the shards that these episodes are in."""
        return [self.marker(shard) for shard in dict.fromkeys(map(self._shard_of.get, episodes))]

    @functools.cached_property
    def _shard_of(self) -> dict[int, str]:
        return {index: shard for shard, episodes in self.shards.items() for index in episodes}

    def gaps(self) -> dict[str, list[int]]:
        """Episodes without all of their files, by shard, though the shard's marker says done."""
        found = {}
        for shard in self.shards:
            if os.path.exists(self.marker(shard)):
                missing = [index for index in self.worked_on(shard) if index not in self._complete]
                if missing:
                    found[shard] = missing
        return found

    @functools.cached_property
    def _complete(self) -> set[int]:
        return complete_episodes(self.dataset.results, self.stages)

    def save(self) -> None:
        """Keep the assignment for the runs to come."""
        write_assignment(self.layout.shard_assignment, self._size, self._assignment)

    def as_json(self) -> dict[str, Any]:
        """The chosen episodes of every shard as ranges, for those who look at the run."""
        return {name: to_ranges(episodes) for name, episodes in self.shards.items()}


class ShardPlans(dict[str, ShardPlan]):
    """The shard plan of every dataset of a run, by name."""

    @classmethod
    def of(cls, run: Run) -> Self:
        plans = {
            name: ShardPlan(dataset, run.config.cluster, run.asking_stages)
            for name, dataset in run.datasets.items()
        }
        return cls(plans)

    def invalidate_incomplete_shards(self) -> None:
        """Delete the markers of shards whose episodes' files are no longer complete."""
        for plan in self.values():
            for shard in plan.gaps():
                Path(plan.marker(shard)).unlink(missing_ok=True)


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def complete_episodes(results: Path, stages: Iterable[str]) -> set[int]:
    """Return the episodes that have a validation and a file of every one of these stages.

    An episode whose last job failed is not complete: its files are those of an earlier run.
    """
    folders = [Layout(results).stage_folder(name) for name in ("validation", *stages)]
    found = set.intersection(*(_numbers_in(folder) for folder in folders))
    return found - failed_episodes(results, found)


def _numbers_in(folder: Path) -> set[int]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit()}
