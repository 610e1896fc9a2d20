"""Checks of the configuration against the datasets it names, before any job starts."""

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from cuesheet.errors import CuesheetError
from cuesheet.text import as_ranges, did_you_mean
from cuesheet.workflow.run_dataset import RunDataset


def check_interpreter(executable: str = sys.executable) -> None:
    """Raise CuesheetError if the path of Python has a space, which Snakemake does not quote."""
    if any(char.isspace() for char in executable):
        raise CuesheetError(
            f"the path of this Python contains a space ({executable}), and Snakemake does not "
            "quote it when it starts a job. Move the environment to a folder without spaces."
        )


def check_folder(setting: str, path: str | Path) -> None:
    """Raise CuesheetError, with the most similar folder, if `path` does not exist."""
    folder = Path(path).expanduser()
    if not folder.exists():
        raise CuesheetError(f"config: {setting}: there is no folder {path}{_near_folder(folder)}")


def _near_folder(folder: Path) -> str:
    parent = folder.parent
    while not parent.is_dir() and parent != parent.parent:
        folder, parent = parent, parent.parent
    try:
        names = [entry.name for entry in parent.iterdir() if entry.is_dir()]
    except PermissionError:
        return f"; {parent} may not be read"
    near = did_you_mean(folder.name, names)
    return f"; did you mean {parent / near}?" if near else f"; {parent} has no folder like it"


def check_cameras(
    setting: str, wanted: Sequence[str], known: Sequence[str], excluded: Collection[str] = ()
) -> None:
    """Raise CuesheetError with one line for every camera in `wanted` that is not in `known`.

    `excluded`: cameras that the dataset has too, but that are left out.
    """
    lines = []
    for camera in wanted:
        if camera in known:
            continue
        if camera in excluded:
            lines.append(
                f"config: {setting}: {camera} is left out: it records depth, or the setting "
                f"`cameras` does not name it; in use: {', '.join(known) or 'none'}"
            )
            continue
        line = f"config: {setting}: the dataset has no camera {camera}"
        near = did_you_mean(camera, known)
        if near:
            line += f"; did you mean {near}?"
        if not known:
            line += "; it has no camera at all: leave the key out"
        elif not near or len(known) > 1:
            line += f" (it has {', '.join(known)})" if near else f"; it has {', '.join(known)}"
        lines.append(line)
    if lines:
        raise CuesheetError("\n".join(lines))


def check_episodes(dataset_name: str, wanted: Sequence[int], known: Collection[int]) -> None:
    """Raise CuesheetError if `wanted` has episodes that are not in `known`."""
    missing = sorted(set(wanted) - set(known))
    if not missing:
        return
    noun = "episode" if len(missing) == 1 else "episodes"
    line = f"config: episodes: {dataset_name} has no {noun} {as_ranges(missing)}"
    if not known:
        raise CuesheetError(f"{line}; it has no episodes at all")
    closest = min(known, key=lambda episode: (abs(episode - missing[0]), episode))
    raise CuesheetError(f"{line}; it has {as_ranges(known)}, the nearest is {closest}")


def check_vocabulary(
    vocabulary: str | Sequence[str] | Mapping[str, Sequence[str]], datasets: Iterable[RunDataset]
) -> None:
    """Raise CuesheetError if `plan.vocabulary` names a task that no episode has."""
    if not isinstance(vocabulary, Mapping):
        return
    tasks = {episode.task for dataset in datasets for episode in dataset.source.episodes}
    lines = []
    for task in vocabulary:
        if task not in tasks:
            near = did_you_mean(task, list(tasks))
            hint = f"did you mean {near!r}?" if near else f"there are {len(tasks)} other tasks"
            lines.append(f"config: plan.vocabulary: no episode has the task {task!r}; {hint}")
    if lines:
        raise CuesheetError("\n".join(lines))
