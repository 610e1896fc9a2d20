"""The episodes of each stage that a run still has to annotate, for the estimate.

Only stage files, settings and corrections are compared, so it may differ from what Snakemake plans
in rare cases, for example if a prompt was changed and changed back.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuesheet.artifacts.apply_corrections import subtasks_from_spans
from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.inspection import InspectionFile
from cuesheet.artifacts.stage_files import StageFile, read_stage_file
from cuesheet.config import prompt_files
from cuesheet.errors import CuesheetError
from cuesheet.vlm.prompts import Prompts
from cuesheet.workflow.run import Run
from cuesheet.workflow.run_dataset import RunDataset

# Prompts that depend on the task alone. Their replies are cached if only a correction changed.
TASK_PROMPTS = frozenset({"plan_rephrase", "plan_rephrase_axes", "interjections_acknowledge"})


@dataclass(frozen=True)
class Remaining:
    """The episodes that are annotated, by stage.

    `corrected` are those among them that are finished, except that a person corrected them since.
    """

    by_stage: Mapping[str, list[int]]
    corrected: frozenset[int] = frozenset()

    @property
    def episodes(self) -> list[int]:
        return sorted(set().union(*self.by_stage.values()))

    def of(self, stage: str, prompt: str) -> Collection[int]:
        """Return the episodes for which a prompt of a stage is sent and not cached."""
        episodes = self.by_stage[stage]
        if prompt not in TASK_PROMPTS:
            return episodes
        return [index for index in episodes if index not in self.corrected]


def remaining_episodes(run: Run, dataset: RunDataset) -> Remaining:
    """Return the episodes without a stage file of this model, these prompts and corrections."""
    stages = {stage: _Files(run, dataset, stage) for stage in run.asking_stages}
    plans = stages.get("plan")
    corrected: set[int] = set()
    relabeled: set[int] = set()  # those whose labels changed, so that visual questions change too
    if plans is not None:
        changes = _PlanChanges(run, dataset)
        for index, plan in plans.finished.items():
            if changes.concern(index, plan):
                corrected.add(index)
                if changes.labels_of(index) != [subtask.label for subtask in plan.subtasks]:
                    relabeled.add(index)
    found: dict[str, list[int]] = {}
    for name, files in stages.items():
        again = set(files.missing)
        if plans is not None:
            again |= relabeled if name == "vqa" else corrected
        if name == "interjections":
            again |= {
                index
                for index, file in files.finished.items()
                if file.corrected and dataset.corrected_interjections(index) is None
            }
        found[name] = sorted(again)
    missing = {index for files in stages.values() for index in files.missing}
    if plans is not None:
        # Later stages depend on the plan.
        found = {name: sorted({*again, *plans.missing}) for name, again in found.items()}
    return Remaining(found, frozenset(corrected - missing))


@dataclass
class _Files:
    """The files of a stage: those that are finished, and the episodes that have none."""

    run: Run
    dataset: RunDataset
    stage: str
    finished: dict[int, StageFile] = field(default_factory=dict)  # not those of the inspection
    missing: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = prompt_files.of_stages([self.stage])
        hashes = Prompts(self.dataset.prompts_dir / f"{name}.md" for name in names).hashes
        wanted = (self.run.model, hashes, self.run.config.vlm.sampling.model_dump())
        for index in self.dataset.worked_on:
            path = self.dataset.layout.stage_file(self.stage, index)
            try:
                file = self._read(path)
            except CuesheetError:  # or it does not exist
                self.missing.append(index)
                continue
            made = file.provenance
            if made.calls and (made.model, made.prompts, made.sampling) != wanted:
                self.missing.append(index)
            elif isinstance(file, StageFile):
                self.finished[index] = file

    def _read(self, path: Path) -> StageFile | InspectionFile:
        if self.stage == "inspection":
            return InspectionFile.read(path)
        return read_stage_file(path, self.stage)


class _PlanChanges:
    """Tells which finished plans corrections have made outdated since."""

    def __init__(self, run: Run, dataset: RunDataset) -> None:
        self._dataset = dataset
        self._propagates = run.config.plan.propagate != "off"
        # The labels of each corrected episode, by task and episode.
        self._references: dict[str, dict[int, list[str]]] = {}
        for index, correction in dataset.corrections.items():
            if correction.subtasks:
                labels = [span.label for span in correction.subtasks]
                task = dataset.episode(index).task
                self._references.setdefault(task, {})[index] = labels

    def concern(self, index: int, plan: StageFile) -> bool:
        given = self._spans(index)
        if given is not None:
            return plan.subtasks_from != "correction" or self._differ(index, given, plan)
        if plan.subtasks_from == "correction":
            return True
        is_rephrased = {"style": "task_aug"} in plan.corrected
        if is_rephrased and self._dataset.corrected_rephrasings(index) is None:
            return True
        return self._propagates and self._is_propagated_anew(index, plan)

    def labels_of(self, index: int) -> list[str] | None:
        """Return the labels that a person gave an episode; None if the model finds them."""
        given = self._spans(index)
        return None if given is None else [span["label"] for span in given]

    def _spans(self, index: int) -> list[dict[str, Any]] | None:
        given = self._dataset.given_subtasks(index) or {}
        spans: list[dict[str, Any]] | None = given.get("spans")
        return spans

    def _differ(self, index: int, spans: list[dict[str, Any]], plan: StageFile) -> bool:
        about, fps = self._dataset.episode(index), self._dataset.source.fps
        times_s = [number / fps for number in range(about.length)]
        episode = Episode(self._dataset.name, index, about.task, fps, times_s, {})
        try:
            wanted = subtasks_from_spans(spans, episode)
        except CuesheetError:  # the plan stage reports it
            return True
        if [part.label for part in wanted] != [part.label for part in plan.subtasks]:
            return True
        pairs = zip(wanted, plan.subtasks, strict=True)
        # The times of the frames are not known here and may differ a little.
        return any(abs(one.start_frame - made.start_frame) > 1 for one, made in pairs)

    def _is_propagated_anew(self, index: int, plan: StageFile) -> bool:
        references = self._references.get(self._dataset.episode(index).task, {})
        used = plan.propagation
        if used is None or not references:
            return bool(references) != (used is not None)
        if used.source_episode not in references:
            return True
        labels = {part.label for part in plan.subtasks}
        return used.applied and not labels <= set(references[used.source_episode])
