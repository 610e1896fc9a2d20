"""What task_index says about frames: where tasks begin, and which ones the table lacks."""

from cuesheet.dataset.index_checks import Problem
from cuesheet.dataset.metadata import Dataset
from cuesheet.dataset.models import Episode
from cuesheet.dataset.task_table import TASK_LINES, TASKS_FILE, read_task_lines, read_task_names
from cuesheet.dataset.tasks import clean_task, read_task_runs
from cuesheet.text import describe_range


def check_tasks(dataset: Dataset) -> list[Problem]:
    """Return a problem for each episode without a task whose task_index names a missing one.

    So no task is derived from the video although the dataset refers to one. Raises CuesheetError if
    the table of tasks is malformed.
    """
    without = [episode for episode in dataset.episodes if not episode.tasks]
    names, runs = _read(dataset, without)
    file = TASK_LINES if dataset.version == "v2.1" else TASKS_FILE
    problems = []
    for episode, tasks in runs:
        missing = sorted({task for _, task in tasks if task >= 0} - names.keys())
        if missing:
            held = f"has no task {missing[0]}" if names else "is missing or empty"
            message = (
                f"the frames have task_index {missing[0]}, but the table of tasks {held}; restore "
                "it, or give the episode a task in its metadata (an empty text in the table "
                "leaves the task to the model)"
            )
            problems.append(Problem(file, episode.episode_index, message))
    return problems


def read_task_starts(dataset: Dataset) -> dict[int, list[tuple[int, str]]]:
    """Return (frame_index, task) of each task, in order, for every episode with several tasks.

    The list is empty if task_index does not tell the tasks apart.
    Raises CuesheetError if the table of tasks is malformed.
    """
    names, runs = _read(dataset, [e for e in dataset.episodes if len(e.tasks) > 1])
    found: dict[int, list[tuple[int, str]]] = {}
    for episode, tasks in runs:
        starts: list[tuple[int, str]] = []
        for frame_index, number in tasks:
            task = clean_task(names.get(number, ""))
            if task and (not starts or task != starts[-1][1]):
                starts.append((frame_index, task))
        found[episode.episode_index] = starts if len(starts) > 1 else []
    return found


def describe_undivided(dataset: Dataset, episodes: list[int]) -> str:
    """Return the notice about episodes whose several tasks `read_task_starts` cannot divide."""
    table = TASK_LINES if dataset.version == "v2.1" else TASKS_FILE
    missing = dataset.version == "v2.1" and not dataset.has_file(TASK_LINES)
    return (
        f"the metadata list several tasks for {describe_range(episodes)}, but task_index in the "
        f"data files does not tell them apart: its numbers name fewer than two tasks in {table}"
        f"{', which is missing' if missing else ''}. Prompts and rephrasings use the first task. "
        f"If the task changes within an episode, {'restore' if missing else 'complete'} {table} "
        "and set task_index per frame."
    )


def _read(
    dataset: Dataset, episodes: list[Episode]
) -> tuple[dict[int, str], list[tuple[Episode, list[tuple[int, int]]]]]:
    """Return the task of each number, and the runs of task_index of episodes whose files exist."""
    present = [episode for episode in episodes if dataset.has_file(episode.data_file)]
    if not present:
        return {}, []
    files = {file: read_task_runs(dataset.root / file) for file in {e.data_file for e in present}}
    runs = [(e, files[e.data_file].get(e.episode_index, [])) for e in present]
    if dataset.version == "v2.1" and dataset.has_file(TASK_LINES):
        return read_task_lines(dataset.root, dataset.name), runs
    return read_task_names(dataset.root, dataset.name), runs
