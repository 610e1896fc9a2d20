"""Finished episodes, found by the files in the results folder."""

import os
from collections.abc import Iterable
from pathlib import Path

from cuesheet.artifacts.failures import failed_episodes
from cuesheet.artifacts.layout import KEYFRAMES_FILE, Layout


def finished_episodes(results: Path, stage: str) -> set[int]:
    """Return the episodes whose file of a stage exists, even if a later job of theirs failed.

    Args:
        results: the dataset's result folder.
        stage: plan, interjections, vqa, validation, or keyframes.
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


def complete_episodes(results: Path, stages: Iterable[str]) -> set[int]:
    """Return the episodes that have a validation and a file of each of `stages`.

    An episode whose last job failed is not complete: its files belong to an earlier run.
    """
    found = set.intersection(
        *(finished_episodes(results, name) for name in ("validation", *stages))
    )
    return found - failed_episodes(results, found)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
