"""Collects what the report shows about the results of a dataset, one episode at a time."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuesheet.artifacts.failures import episode_failures
from cuesheet.artifacts.inspection import InspectionFile
from cuesheet.artifacts.results import EpisodeView, annotated_episodes, read_view
from cuesheet.artifacts.source_changes import read_changes
from cuesheet.artifacts.stage_files import Provenance, SubtaskRecord, VqaPair
from cuesheet.evaluation.labels import first_verb, parse_label

SAMPLES_PER_GROUP = 3
COLORS = 8  # --c0 to --c7 of theme.css; the last one is for rare verbs


@dataclass
class Timeline:
    """One episode as a bar: (start_s, end_s, label) of its subtasks, times (s) of interjections."""

    episode_index: int
    task: str
    duration_s: float
    subtasks: list[tuple[float, float, str]]
    interjections_s: list[float]
    warnings: list[str]


@dataclass
class Agreement:
    """Agreement (0 to 1) of an episode's segmentation samples, and the least agreed subtask."""

    episode_index: int
    task: str
    value: float
    samples: int
    least: SubtaskRecord


@dataclass
class Sample:
    """A visual question and its keyframe."""

    episode_index: int
    timestamp_s: float
    image: Path
    size: tuple[int, int]
    pair: VqaPair


@dataclass
class CallTally:
    """The calls made with one prompt; `latencies_s`: of calls that a server answered."""

    total: int = 0
    cache_hits: int = 0
    retried: int = 0
    invalid: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latencies_s: list[float] = field(default_factory=list)


@dataclass
class ReportData:
    """The content of the report."""

    dataset: str
    annotated: int = 0
    duration_s: float = 0.0
    missing: list[tuple[int, str]] = field(default_factory=list)  # episode, cause
    warnings: dict[str, list[tuple[int, str, str]]] = field(  # code -> episode, where, message
        default_factory=lambda: defaultdict(list)
    )
    invalid: list[tuple[int, str, str]] = field(default_factory=list)  # episode, call, error
    rows: Counter[str] = field(default_factory=Counter)
    subtask_lengths_s: list[float] = field(default_factory=list)
    subtasks_per_episode: list[int] = field(default_factory=list)
    verbs: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    timelines: list[Timeline] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)  # of the episodes with samples
    inspections: list[tuple[int, InspectionFile, bool]] = field(  # episode, file, left out
        default_factory=list
    )
    questions: dict[str, Counter[str]] = field(  # type -> pairs by camera
        default_factory=lambda: defaultdict(Counter)
    )
    samples: dict[tuple[str, str], list[Sample]] = field(  # (type, camera)
        default_factory=lambda: defaultdict(list)
    )
    calls: dict[str, CallTally] = field(default_factory=lambda: defaultdict(CallTally))
    models: set[tuple[str, str]] = field(default_factory=set)  # name, served_by
    sampling: dict[str, dict[str, Any]] = field(default_factory=dict)  # by its JSON
    prompts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    finished: list[str] = field(default_factory=list)  # first and last time of day
    source_changes: list[dict[str, Any]] = field(default_factory=list)  # the newest last


def gather(
    results: Path,
    selected: Collection[int],
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> ReportData:
    """Read the result folder of a dataset.

    Args:
        results: the dataset's result folder.
        selected: episodes of the run; those without annotations are listed as missing.
        progress: wraps the episodes, as `tqdm` does.

    Raises:
        CuesheetError: a file of an annotated episode is broken.
    """
    data = ReportData(results.name, source_changes=read_changes(results))
    episodes = annotated_episodes(results)
    missing = sorted(set(selected) - set(episodes))
    failures = episode_failures(results, missing)
    for index in missing:
        failure = failures.get(index)
        cause = f"{failure['rule']}: {failure['error']}" if failure else "not annotated yet"
        data.missing.append((index, cause))
    for index in progress(episodes):
        _add(data, read_view(results, index))
    return data


def _add(data: ReportData, view: EpisodeView) -> None:
    data.annotated += 1
    data.duration_s += view.duration_s
    if view.validation.has_rows:
        data.rows.update(view.validation.counts)
    for warning in view.validation.warnings:
        data.warnings[warning.code].append((view.episode_index, warning.where, warning.message))
    data.subtasks_per_episode.append(len(view.subtasks))
    for subtask in view.subtasks:
        data.subtask_lengths_s.append(subtask.end_s - subtask.start_s)
        data.verbs[first_verb(subtask.label)] += 1
        data.objects.update(parse_label(subtask.label).objects)
    data.timelines.append(
        Timeline(
            view.episode_index,
            view.task,
            view.duration_s,
            [(s.start_s, s.end_s, s.label) for s in view.subtasks],
            [row.timestamp for row in view.events if row.style == "interjection"],
            [warning.message for warning in view.validation.warnings],
        )
    )
    if view.agreement is not None:
        least = min(view.subtasks, key=lambda subtask: subtask.agreement or 0.0)
        data.agreements.append(
            Agreement(view.episode_index, view.task, view.agreement, len(view.samples), least)
        )
    if view.inspection is not None:
        data.inspections.append((view.episode_index, view.inspection, view.validation.left_out))
    for pair in view.pairs:
        data.questions[pair.type][pair.camera] += 1
        _add_sample(data, view, pair)
    for made in view.made_by.values():
        _add_provenance(data, made)
    for stage, call in view.calls:
        tally = data.calls[call.prompt or stage]
        tally.total += 1
        tally.retries += call.attempts - 1 if not call.cache_hit else 0
        if call.cache_hit:
            tally.cache_hits += 1
        else:
            tally.latencies_s.append(call.latency_s)
            tally.prompt_tokens += call.prompt_tokens or 0
            tally.completion_tokens += call.completion_tokens or 0
        if call.outcome == "retried":
            tally.retried += 1
        elif call.outcome == "invalid":
            tally.invalid += 1
            data.invalid.append((view.episode_index, call.name, call.error or ""))


def _add_sample(data: ReportData, view: EpisodeView, pair: VqaPair) -> None:
    """Add the first pair of each of the first episodes."""
    group = data.samples[pair.type, pair.camera]
    if len(group) >= SAMPLES_PER_GROUP or (group and group[-1].episode_index == view.episode_index):
        return
    image = view.keyframe_file(pair.camera, pair.frame_index)
    if image is not None:
        size = view.keyframes.cameras[pair.camera]
        timestamp_s = view.keyframes.timestamps_s[pair.frame_index]
        group.append(
            Sample(view.episode_index, timestamp_s, image, (size.width, size.height), pair)
        )


def _add_provenance(data: ReportData, made: Provenance) -> None:
    if made.model and made.calls:
        data.models.add((made.model, made.served_by or ""))
        data.sampling[json.dumps(made.sampling, sort_keys=True)] = made.sampling
        used = {call.prompt for call in made.calls} | {"system"}
        for name, digest in made.prompts.items():
            if name in used:
                data.prompts[name].add(digest)
    if made.finished_at:
        data.finished = [
            min([*data.finished, made.finished_at]),
            max([*data.finished, made.finished_at]),
        ]


def verb_colors(verbs: Counter[str]) -> dict[str, int]:
    """Return a color per frequent verb, so that a verb has the same color in every episode."""
    return {word: color for color, (word, _) in enumerate(verbs.most_common(COLORS - 1))}


def chosen_timelines(timelines: Sequence[Timeline], most: int) -> list[Timeline]:
    """Return at most `most` timelines: those with warnings first, then an even selection."""
    noted = [line for line in timelines if line.warnings][:most]
    rest = [line for line in timelines if not line.warnings]
    room = min(most - len(noted), len(rest))
    return noted + [rest[i * len(rest) // room] for i in range(room)]
