"""Summarizes the evidence behind the subtasks: recorded signals and propagated corrections.

What was recorded: the grippers and arms of the dataset, strokes per episode, and how many of the
model's boundaries have a recorded event nearby. What corrections reach: per task, how many episodes
the corrected ones cover, and which episode to correct next.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cuesheet.artifacts.layout import Layout
from cuesheet.artifacts.signals_file import FOUND_BY, SignalsLayout
from cuesheet.artifacts.stage_files import StageFile

_MOST_TASKS = 20  # lines about tasks


@dataclass
class _Task:
    """The episodes of a task; `confidences` of those that are not corrected."""

    corrected: list[int] = field(default_factory=list)
    confidences: dict[int, float] = field(default_factory=dict)
    covered: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Reach:
    """What the corrections of a task reach. `next`: the episode to correct next, if any."""

    task: str
    corrected: list[int]
    covered: int  # corrected episodes included
    total: int
    next: int | None

    def describe(self) -> str:
        """Return one sentence, such as "3 corrected episodes cover 47 of 60; correct …"."""
        count = len(self.corrected)
        subject = "episode covers" if count == 1 else "episodes cover"
        text = f"{count} corrected {subject} {self.covered} of {self.total}"
        if self.next is not None:
            text += f"; correct episode {self.next} next"
        return text


class EvidenceSummary:
    """Collects the plans of a dataset, one at a time."""

    def __init__(self) -> None:
        self._tasks: defaultdict[str, _Task] = defaultdict(_Task)
        self._strokes: defaultdict[str, list[int]] = defaultdict(list)
        self._shares: list[float] = []
        self._snapped = 0
        self._is_propagated = False

    def add(self, plan: StageFile) -> None:
        task = self._tasks[plan.task.text]
        used = plan.propagation
        if plan.subtasks_from == "correction":
            task.corrected.append(plan.episode_index)
        else:
            task.confidences[plan.episode_index] = used.confidence if used else 0.0
            if used and used.is_confident:
                task.covered.add(plan.episode_index)
        self._is_propagated |= used is not None
        if plan.signals is not None:
            for name, count in plan.signals.strokes.items():
                self._strokes[name].append(count)
            if plan.signals.boundaries_near_events is not None:
                self._shares.append(plan.signals.boundaries_near_events)
                self._snapped += plan.signals.snapped

    def as_json(self, layout: Layout) -> dict[str, Any]:
        return {"signals": self._signals(layout), "reach": [asdict(one) for one in self._reach()]}

    def _signals(self, layout: Layout) -> dict[str, Any] | None:
        if not layout.signals_layout.is_file():
            return None
        found = SignalsLayout.read(layout.signals_layout)
        return {
            "grippers": [
                {
                    "name": one.name,
                    "dimension": (
                        found.state_names[one.state]
                        if one.state is not None
                        else found.action_names[one.action or 0]
                    ),
                    "found_by": one.found_by,
                    "agreement": None if one.agreement is None else round(one.agreement, 3),
                    "strokes_per_episode": _mean(self._strokes[one.name]),
                }
                for one in found.grippers
            ],
            "arms": [one.name for one in found.arms],
            "boundaries_near_events": _mean(self._shares),
            "snapped": self._snapped,
            "compared": len(self._shares),
            "notices": found.notices,
        }

    def _reach(self) -> list[Reach]:
        """Per task with a correction; the task with the least covered share first."""
        if not self._is_propagated:
            return []
        found = []
        for text, task in self._tasks.items():
            if not task.corrected:
                continue
            left = [index for index in task.confidences if index not in task.covered]
            least = min(left, key=lambda index: (task.confidences[index], index), default=None)
            covered = len(task.corrected) + len(task.covered)
            total = len(task.corrected) + len(task.confidences)
            found.append(Reach(text, sorted(task.corrected), covered, total, least))
        return sorted(found, key=lambda one: (one.covered / one.total, one.task))


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 3) if values else None


def evidence_entries(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and texts about `EvidenceSummary.as_json`, for the summary and the report."""
    found = []
    if signals := evidence["signals"]:
        found.append(("Signals", "; ".join(_signal_texts(signals))))
        found += [("Signals", f"NOTICE: {notice}") for notice in signals["notices"]]
    reach = evidence["reach"]
    for one in reach[:_MOST_TASKS]:
        found.append(("Corrections", f"{one['task'] or 'no task'}: {Reach(**one).describe()}"))
    if len(reach) > _MOST_TASKS:
        found.append(("Corrections", f"and {len(reach) - _MOST_TASKS} more tasks"))
    return found


def _signal_texts(signals: Mapping[str, Any]) -> list[str]:
    texts = []
    for one in signals["grippers"]:
        text = f"{one['name']} ({one['dimension']}, {FOUND_BY[one['found_by']]}"
        if one["agreement"] is not None:
            text += f", action and state agree {one['agreement']:.2f}"
        text += ")"
        if one["strokes_per_episode"] is not None:
            text += f" with {one['strokes_per_episode']:.1f} strokes per episode"
        texts.append(text)
    if not texts:
        texts.append("no gripper found")
    if signals["compared"]:
        share = f"{signals['boundaries_near_events']:.0%}"
        texts.append(
            f"{share} of the model's boundaries are near a recorded event; boundaries were moved "
            f"to events in {signals['snapped']} of {signals['compared']} episodes"
        )
    return texts
