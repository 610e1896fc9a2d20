"""Check that no task is derived from the video although the dataset refers to one."""

from cuesheet.dataset.index_checks import Problem
from cuesheet.dataset.metadata import Dataset
from cuesheet.dataset.task_table import TASK_LINES, TASKS_FILE, read_task_lines, read_task_names
from cuesheet.dataset.tasks import read_task_runs


def check_tasks(dataset: Dataset) -> list[Problem]:
    """Return a problem for each episode without a task whose task_index names a missing one.

    Raises:
        CuesheetError: the table of tasks is malformed.
    """
    without = [
        episode
        for episode in dataset.episodes
        if not episode.tasks and dataset.has_file(episode.data_file)
    ]
    if not without:
        return []
    if dataset.version == "v2.1":
        file = TASK_LINES
        known = dataset.has_file(TASK_LINES)
        names = read_task_lines(dataset.root, dataset.name) if known else {}
    else:
        file = TASKS_FILE
        names = read_task_names(dataset.root, dataset.name)
    runs = {path: read_task_runs(dataset.root / path) for path in {e.data_file for e in without}}
    problems = []
    for episode in without:
        numbers = {task for _, task in runs[episode.data_file].get(episode.episode_index, ())}
        missing = sorted(number for number in numbers - names.keys() if number >= 0)
        if missing:
            held = f"has no task {missing[0]}" if names else "is missing or empty"
            message = (
                f"the frames have task_index {missing[0]}, but the table of tasks {held}; restore "
                "it, or give the episode a task in its metadata (an empty text in the table "
                "leaves the task to the model)"
            )
            problems.append(Problem(file, episode.episode_index, message))
    return problems
