"""The shards of each dataset in one run, for the outer workflow.

The outer workflow knows only one file per shard: its marker, `shards/{shard}.json`. The marker
contains the digests of the validations of its episodes, so it changes only if an annotation does.
"""

import functools
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from cuesheet.artifacts.finished import complete_episodes
from cuesheet.artifacts.layout import VOCABULARY_JOB, Layout, shard_name
from cuesheet.cluster.assignment import (
    Assignment,
    assign,
    read_assignment,
    size_of,
    write_assignment,
)
from cuesheet.config.cluster import ClusterConfig
from cuesheet.errors import CuesheetError
from cuesheet.text import did_you_mean, to_ranges
from cuesheet.workflow.run import Run
from cuesheet.workflow.run_dataset import RunDataset
from cuesheet.workflow.vocabulary import drafted_in


class ShardPlan:
    """The work of each shard of a dataset.

    `stages` are the enabled annotation stages; `find_drafted` returns the episodes whose labels are
    drafted before the shards start.
    """

    def __init__(
        self,
        dataset: RunDataset,
        settings: ClusterConfig,
        stages: Sequence[str],
        find_drafted: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        self.dataset = dataset
        self._find_drafted = find_drafted
        self._size = size_of(settings)
        self._speed = settings.video_speed
        self.stages = stages

    @property
    def layout(self) -> Layout:
        return self.dataset.layout

    @functools.cached_property
    def drafted(self) -> list[int]:
        """The episodes whose labels are drafted before the shards start."""
        return list(self._find_drafted())

    @functools.cached_property
    def _assignment(self) -> Assignment:
        before = read_assignment(self.layout.shard_assignment, self._size)
        return assign(self._durations_s, self._size, before)

    @functools.cached_property
    def _durations_s(self) -> dict[int, float]:
        source = self.dataset.source
        return {episode.episode_index: episode.length / source.fps for episode in source.episodes}

    @functools.cached_property
    def shards(self) -> dict[str, list[int]]:
        """The selected episodes of each shard, by name. Shards without any are left out."""
        selected = set(self.dataset.selected) - self.dataset.kept
        shards = {
            shard_name(number): [index for index in shard if index in selected]
            for number, shard in enumerate(self._assignment)
        }
        return {name: episodes for name, episodes in shards.items() if episodes}

    def episodes(self, shard: str) -> list[int]:
        """Return the selected episodes of a shard. Raises CuesheetError if it does not exist."""
        try:
            return self.shards[shard]
        except KeyError:
            near = did_you_mean(shard, list(self.shards)) or next(iter(self.shards), None)
            raise CuesheetError(
                f"{self.dataset.name} has no shard {shard} with episodes of this run; it has "
                f"{len(self.shards)}{f', for example {near}' if near else ''}"
            ) from None

    def worked_on(self, shard: str) -> list[int]:
        """Return the episodes of a shard without those that failed before and are left out."""
        return [index for index in self.episodes(shard) if index not in self.dataset.left_out]

    def minutes(self, shard: str) -> float:
        """Return the expected duration of a shard (minutes), from `cluster.video_speed`."""
        return sum(self._durations_s[index] for index in self.episodes(shard)) / 60 / self._speed

    def sources(self, shard: str) -> str:
        """Return a hash of everything that the annotations of a shard depend on."""
        return _hash(
            [
                [
                    self._media_sources(index),
                    self.dataset.given_subtasks(index),
                    self.dataset.corrected_rephrasings(index),
                    self.dataset.corrected_interjections(index),
                    self.dataset.vqa_corrections(index),
                    self.dataset.verdict(index),
                ]
                for index in self.episodes(shard)
            ]
        )

    def media_sources(self, shard: str) -> str:
        """Return a hash of everything that the clips and keyframes of a shard depend on."""
        return self.media_hash(self.episodes(shard))

    def media_hash(self, episodes: Iterable[int]) -> str:
        """Return a hash of everything that the clips and keyframes of some episodes depend on."""
        return _hash([self._media_sources(index) for index in episodes])

    def _media_sources(self, index: int) -> list[Any]:
        clips = [self.dataset.clip_source(index, key) for key in self.dataset.cameras_of(index)]
        return [self.dataset.keyframes_source(index), clips]

    def marker(self, shard: str) -> str:
        return str(self.layout.shard_marker(shard))

    def media_marker(self, shard: str) -> str:
        return str(self.layout.shard_media_marker(shard))

    def markers_of(self, episodes: Iterable[int]) -> list[str]:
        """Return the markers of the shards that contain these episodes."""
        return [self.marker(shard) for shard in self._shards_with(episodes)]

    def media_markers_of(self, episodes: Iterable[int]) -> list[str]:
        """Return the markers of the clips and keyframes of the shards with these episodes."""
        return [self.media_marker(shard) for shard in self._shards_with(episodes)]

    def _shards_with(self, episodes: Iterable[int]) -> list[str]:
        return list(dict.fromkeys(self._shard_of[index] for index in episodes))

    @functools.cached_property
    def _shard_of(self) -> dict[int, str]:
        return {index: shard for shard, episodes in self.shards.items() for index in episodes}

    def gaps(self) -> dict[str, list[int]]:
        """Return the incomplete episodes of each shard whose marker exists."""
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
        """Write the assignment, so that later runs use it."""
        write_assignment(self.layout.shard_assignment, self._size, self._assignment)

    def as_json(self) -> dict[str, Any]:
        """Return the selected episodes of each shard as ranges, for `cuesheet status`."""
        return {name: to_ranges(episodes) for name, episodes in self.shards.items()}


class ShardPlans(dict[str, ShardPlan]):
    """The shard plan of every dataset of a run, by name."""

    @classmethod
    def of(cls, run: Run) -> Self:
        plans = {
            name: ShardPlan(
                dataset,
                run.config.cluster,
                run.asking_stages,
                functools.partial(drafted_in, dataset, run.config),
            )
            for name, dataset in run.datasets.items()
        }
        return cls(plans)

    @functools.cached_property
    def shares(self) -> dict[tuple[str, str], tuple[float, float]]:
        """The share of every job in the budget of the run, as start and end (0 to 1).

        Jobs are called after their dataset and shard; the job that drafts labels takes the place
        of a shard. A job's share corresponds to the number of its episodes.
        """
        sizes = {(name, VOCABULARY_JOB): len(plan.drafted) for name, plan in self.items()}
        for name, plan in self.items():
            sizes |= {(name, shard): len(plan.worked_on(shard)) for shard in plan.shards}
        ends = [0, *itertools.accumulate(sizes.values())]
        total = max(1, ends[-1])
        edges = itertools.pairwise(ends)
        return {job: (a / total, b / total) for job, (a, b) in zip(sizes, edges, strict=True)}

    def invalidate_incomplete_shards(self) -> None:
        """Delete the markers of shards with incomplete episodes."""
        for plan in self.values():
            for shard in plan.gaps():
                Path(plan.marker(shard)).unlink(missing_ok=True)


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
