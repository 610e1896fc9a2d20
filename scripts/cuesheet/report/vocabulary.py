"""Summarizes the drafted labels of tasks: how many there are, and which steps they do not have."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cuesheet.artifacts.layout import Layout, task_id
from cuesheet.artifacts.stage_files import Provenance, StageFile
from cuesheet.artifacts.vocabulary import DraftFile, VocabularyFile, VocabularyRequests

_MOST_TASKS = 20  # lines about tasks
_MOST_LABELS = 5  # own labels per line


@dataclass
class _Task:
    """The labels in the plans of a task, and how many subtasks have each other label."""

    used: set[str] = field(default_factory=set)
    own: Counter[str] = field(default_factory=Counter)


class VocabularySummary:
    """Collects the plans of a dataset, one at a time."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}

    def add(self, plan: StageFile) -> None:
        """Add a plan if its labels come from a drafted list."""
        if plan.vocabulary is None or not plan.vocabulary.is_drafted:
            return
        task = self._tasks.setdefault(plan.vocabulary.task, _Task())
        if plan.subtasks_from == "model":
            task.used.update(subtask.label for subtask in plan.subtasks)
            task.own.update(plan.own_labels)

    def provenances(self, layout: Layout) -> Iterator[tuple[int | None, Provenance]]:
        """Yield the requests behind the lists, with the episode of those that are about one."""
        for task in self._tasks:
            name = task_id(task)
            for episode in VocabularyFile.read(layout.vocabulary(name)).drafts:
                path = layout.vocabulary_draft(episode)
                if path.is_file():
                    yield int(episode), DraftFile.read(path).provenance
            path = layout.vocabulary_requests(name)
            if path.is_file():
                yield None, VocabularyRequests.read(path).provenance

    def as_json(self, layout: Layout) -> list[dict[str, Any]]:
        """Return one entry per task: distinct labels in the drafts, in the list, in the plans."""
        found = []
        for task, plans in sorted(self._tasks.items()):
            vocabulary = VocabularyFile.read(layout.vocabulary(task_id(task)))
            found.append(
                {
                    "task": task,
                    "drafts": len(vocabulary.drafts),
                    "drafted_labels": len(vocabulary.drafted_labels),
                    "labels": vocabulary.labels,
                    "used_labels": len(plans.used),
                    "own_labels": dict(sorted(plans.own.items())),
                    "warnings": vocabulary.warnings,
                }
            )
        return found


def vocabulary_entries(tasks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the entries of the summary's text, one per task."""
    entries = [("Labels", describe(one)) for one in tasks[:_MOST_TASKS]]
    if len(tasks) > _MOST_TASKS:
        entries.append(("Labels", f"{len(tasks) - _MOST_TASKS} more tasks in summary.json"))
    return entries


def describe(task: Mapping[str, Any]) -> str:
    """Return one line about the labels of a task."""
    if not task["labels"]:
        return "; ".join(task["warnings"])
    text = (
        f"{task['task']}: {task['used_labels']} distinct labels, list of {len(task['labels'])} "
        f"made of {task['drafted_labels']} in {task['drafts']} drafts"
    )
    own = list(task["own_labels"])
    if own:
        more = f" and {len(own) - _MOST_LABELS} more" if len(own) > _MOST_LABELS else ""
        text += f"; not in the list: {'; '.join(own[:_MOST_LABELS])}{more}"
    return text
