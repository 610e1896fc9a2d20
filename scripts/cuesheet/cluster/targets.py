"""The files of the workflow's targets, and the inputs of rules that need many episodes.

With shards, the outer run knows the markers of shards instead of the files of episodes.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cuesheet.cluster.plan import ShardPlan
from cuesheet.workflow.propagation import has_recording
from cuesheet.workflow.run import Run
from cuesheet.workflow.run_dataset import RunDataset
from cuesheet.workflow.vocabulary import vocabularies


@dataclass(frozen=True)
class Targets:
    """The targets of a run. `is_sharded`: one job per shard makes the files of its episodes."""

    run: Run
    shard_plans: Mapping[str, ShardPlan]
    is_sharded: bool

    @property
    def _datasets(self) -> list[RunDataset]:
        return list(self.run.datasets.values())

    @functools.cached_property
    def clips(self) -> list[str]:
        return [clip for dataset in self._datasets for clip in self.clips_of(dataset)]

    def clips_of(self, dataset: RunDataset) -> list[str]:
        """Return the clips of a dataset; none with shards, whose jobs make them."""
        return [] if self.is_sharded else dataset.clips

    @functools.cached_property
    def keyframes(self) -> list[str]:
        if self.is_sharded:
            return []
        return [folder for dataset in self._datasets for folder in dataset.keyframe_folders]

    @property
    def media(self) -> list[str]:
        if not self.is_sharded:
            return [*self.clips, *self.keyframes]
        plans = self.shard_plans.values()
        return [plan.media_marker(shard) for plan in plans for shard in plan.shards]

    @property
    def vocabularies(self) -> list[str]:
        """The drafted labels of all tasks; with shards, a marker of them per dataset."""
        found = {one.name: vocabularies(one, self.run.config) for one in self._datasets}
        if self.is_sharded:
            return [str(one.layout.shards_vocabulary) for one in self._datasets if found[one.name]]
        return [file for files in found.values() for file in files]

    @functools.cached_property
    def annotations(self) -> list[str]:
        """Stage files and validations by name, so that a deleted file is re-created."""
        return [file for dataset in self._datasets for file in self.annotations_of(dataset)]

    @property
    def details(self) -> list[str]:
        """Files that a person reads and no final file needs, so that a deleted one is re-created.

        With shards, the outer run knows none of them.
        """
        if self.is_sharded:
            return []
        found = []
        for dataset in self._datasets:
            found += [str(dataset.layout.validation_text(index)) for index in dataset.worked_on]
            is_measured = "plan" in self.run.stages and has_recording(dataset, self.run.config)
            if is_measured and dataset.worked_on:
                found.append(str(dataset.layout.signals_layout))
        return found

    def shards_of(self, name: str) -> list[str]:
        """Return the markers of all shards of a dataset."""
        plan = self.shard_plans[name]
        return [plan.marker(shard) for shard in plan.shards]

    @property
    def datasets(self) -> list[str]:
        """Data files, metadata and index of every annotated dataset."""
        return [
            file
            for dataset in self._datasets
            for file in (
                *dataset.merged_data_files,
                str(dataset.layout.annotated_info),
                str(dataset.layout.index),
            )
        ]

    @property
    def exports(self) -> list[str]:
        return [str(dataset.layout.export("parquet")) for dataset in self._datasets]

    @property
    def summaries(self) -> list[str]:
        return [str(dataset.layout.summary_text) for dataset in self._datasets]

    @property
    def reports(self) -> list[str]:
        """Report, review page, and scores if the dataset has a reference."""
        pages = [
            str(page)
            for dataset in self._datasets
            for page in (dataset.layout.report, dataset.layout.review_page)
        ]
        return [*pages, *self.evaluations]

    @property
    def evaluations(self) -> list[str]:
        return [file for name in self.run.references for file in self.evaluation_of(name)]

    def evaluation_of(self, name: str) -> list[str]:
        """Return the scores of a dataset; none if it has no reference."""
        if name not in self.run.references:
            return []
        return [str(self.run.datasets[name].layout.evaluation())]

    def annotations_of(self, dataset: RunDataset) -> list[str]:
        """Return the files with all annotations of a dataset: with shards, their markers."""
        if self.is_sharded:
            return self.shards_of(dataset.name)
        return self._episode_files(dataset, dataset.worked_on)

    def annotations_in(self, dataset: RunDataset, data_file: str) -> list[str]:
        """Return the files with the annotations of the episodes of one data file."""
        episodes = dataset.selected_in(data_file)
        if self.is_sharded:
            return self.shard_plans[dataset.name].markers_of(episodes)
        return self._episode_files(dataset, episodes)

    def _episode_files(self, dataset: RunDataset, episodes: Sequence[int]) -> list[str]:
        return dataset.stage_files(episodes, self.run.stages) + dataset.validations(episodes)

    def scored_files(self, dataset: RunDataset) -> list[str]:
        """Return the files that scores are computed from: annotations, and clips for motion."""
        if self.is_sharded:
            return self.shards_of(dataset.name)
        stages = [stage for stage in ("plan", "vqa") if stage in self.run.stages]
        clips = dataset.clips if "motion" in self.run.config.evaluate.baselines else []
        return dataset.stage_files(dataset.worked_on, stages) + clips
