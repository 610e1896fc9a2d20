"""The frames at which the tasks of an episode begin, if it has more than one."""

from cuesheet.dataset.metadata import Dataset
from cuesheet.dataset.models import Episode
from cuesheet.dataset.task_table import read_task_lines, read_task_names
from cuesheet.dataset.tasks import clean_task, read_task_runs


def read_task_starts(dataset: Dataset) -> dict[int, list[tuple[int, str]]]:
    """Return (frame_index, task) of each task, in order, for every episode with several tasks.

    The list is empty if task_index does not tell the tasks apart: all frames have the same one.

    Raises:
        CuesheetError: the table of tasks is malformed.
    """
    several: dict[str, list[Episode]] = {}
    for episode in dataset.episodes:
        if len(episode.tasks) > 1 and dataset.has_file(episode.data_file):
            several.setdefault(episode.data_file, []).append(episode)
    if not several:
        return {}
    if dataset.version == "v2.1":
        names = read_task_lines(dataset.root, dataset.name)
    else:
        names = read_task_names(dataset.root, dataset.name)
    found: dict[int, list[tuple[int, str]]] = {}
    for data_file, episodes in several.items():
        runs = read_task_runs(dataset.root / data_file)
        for episode in episodes:
            starts: list[tuple[int, str]] = []
            for frame_index, number in runs.get(episode.episode_index, ()):
                task = clean_task(names.get(number, ""))
                if task and (not starts or task != starts[-1][1]):
                    starts.append((frame_index, task))
            found[episode.episode_index] = starts if len(starts) > 1 else []
    return found
