"""Finished episodes, found by the files in the results folder."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from cuesheet.artifacts.failures import failed_episodes
from cuesheet.artifacts.layout import KEYFRAMES_FILE, Layout

# The rule that finishes each stage.
_RULES = {
    "keyframes": "decode_keyframes",
    "plan": "annotate_plan",
    "interjections": "annotate_interjections",
    "vqa": "annotate_vqa",
    "validation": "validate_episode",
}


class Jobs(TypedDict):
    """The episodes of a stage that a run's targets need.

    `replaced`: the files of earlier runs that the run replaces, as modification times (s) by
    episode; a file with this time is not finished.
    """

    episodes: list[str]
    replaced: dict[str, float]


def jobs_of(
    results: Path, requested: Mapping[str, tuple[Sequence[str], Sequence[str]]]
) -> dict[str, Jobs]:
    """Return what targets need by stage. `requested`: all and pending episodes by rule."""
    layout = Layout(results)
    found: dict[str, Jobs] = {}
    for stage, rule in _RULES.items():
        if rule in requested:
            needed, pending = requested[rule]
            times = {name: _time_of(layout, stage, int(name)) for name in pending}
            replaced = {name: time for name, time in times.items() if time is not None}
            found[stage] = {"episodes": sorted(needed), "replaced": replaced}
    return found


def finished_of_jobs(results: Path, stage: str, jobs: Jobs) -> set[int]:
    """Return the episodes of `jobs` whose file of the stage is finished and will stay."""
    layout = Layout(results)
    finished = {int(name) for name in jobs["episodes"]} & finished_episodes(results, stage)
    before = {int(name): time for name, time in jobs["replaced"].items()}
    return {
        index
        for index in finished
        if index not in before or before[index] != _time_of(layout, stage, index)
    }


def _time_of(layout: Layout, stage: str, index: int) -> float | None:
    if stage == "keyframes":
        path = layout.keyframes(index) / KEYFRAMES_FILE
    elif stage == "validation":
        path = layout.validation(index)
    else:
        path = layout.stage_file(stage, index)
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def finished_episodes(results: Path, stage: str) -> set[int]:
    """Return the episodes whose file of a stage exists, even if a later job of theirs failed.

    `stage`: plan, interjections, vqa, validation, or keyframes.
    """
    layout = Layout(results)
    if stage == "keyframes":
        names = [
            entry.name
            for entry in _entries(layout.keyframes_folder)
            if os.path.exists(os.path.join(entry.path, KEYFRAMES_FILE))
        ]
    else:
        files = _entries(layout.stage_folder(stage))
        names = [entry.name[:-5] for entry in files if entry.name.endswith(".json")]
    return {int(name) for name in names if name.isdigit()}


def complete_episodes(results: Path, stages: Iterable[str], *, validated: bool = True) -> set[int]:
    """Return the episodes that have a file of each of `stages`, and a validation if `validated`.

    An episode whose last job failed is not complete: its files belong to an earlier run.
    """
    names = [*stages, *(["validation"] if validated else [])] or ["keyframes"]
    found = set.intersection(*(finished_episodes(results, name) for name in names))
    return found - failed_episodes(results, found)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
