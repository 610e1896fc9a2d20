"""The tasks of episodes, from the episodes' metadata or from task_index and the task table.

Text from a dataset is data, not instructions: control characters are removed, and very long tasks
are shortened.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.dataset.data_reader import scalars
from cuesheet.dataset.json_lines import as_whole
from cuesheet.dataset.task_table import read_task_names

MAX_TASK_CHARS = 500
# Control, private, unassigned and surrogate characters, and line separators.
_UNWANTED = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})


def clean_task(text: str) -> str:
    """Return a task on one line, without control characters and at most 500 characters long."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(" " if unicodedata.category(char) in _UNWANTED else char for char in text)
    text = " ".join(text.split())
    if len(text) <= MAX_TASK_CHARS:
        return text
    return text[:MAX_TASK_CHARS].rpartition(" ")[0].rstrip(" ,;:") or text[:MAX_TASK_CHARS]


def task_tuple(value: Any, names: Mapping[int, str] | None = None) -> tuple[str, ...]:
    """Return the tasks of an episode, stored as a text, a list, task indices, or not at all."""
    if value is None:
        return ()
    values = value if isinstance(value, list | tuple) else [value]
    found = []
    for task in values:
        text = clean_task(_named(task, names or {}))
        if text and text not in found:
            found.append(text)
    return tuple(found)


def is_number(task: Any) -> bool:
    """Tell whether a task is a task_index instead of a text, also if it is written as text."""
    if isinstance(task, str):
        return task.strip().isdecimal()
    return isinstance(task, int | float) and not isinstance(task, bool)


def _named(task: Any, names: Mapping[int, str]) -> str:
    """Return the text of a task that is stored as a text, an object, bytes or a task_index."""
    if isinstance(task, dict):
        task = task.get("task") or next((v for v in task.values() if isinstance(v, str)), "")
    if isinstance(task, bytes):
        task = task.decode(errors="replace")
    if task is None:
        return ""
    if is_number(task) and str(task) not in names.values() and float(task).is_integer():
        # Digits that are not in the table may be the task itself; such a number is no task.
        return names.get(int(float(task)), task if isinstance(task, str) else "")
    return str(task)


def tasks_by_index(
    root: Path, name: str, table: pa.Table, data_files: Sequence[str]
) -> list[tuple[str, ...]]:
    """Return the tasks of each row of meta/episodes by the task_index of its frames.

    If all frames have the same task, the statistics give it; otherwise the data file is read.
    """
    names = read_task_names(root, name)
    if not names:
        return [()] * len(table)
    ends = [_statistic(table, f"stats/task_index/{end}") for end in ("min", "max")]
    read: dict[str, dict[int, list[tuple[int, int]]]] = {}
    found = []
    for row, episode_index in enumerate(table.column("episode_index").to_pylist()):
        index = as_whole(episode_index)
        first, last = (values[row] if values else None for values in ends)
        if first is None or first != last:
            file = data_files[row]
            if file not in read:
                read[file] = read_task_runs(root / file)
            numbers = list(dict.fromkeys(task for _, task in read[file].get(index, ())))
        else:
            numbers = [int(first)]
        found.append(task_tuple([names[number] for number in numbers if number in names]))
    return found


def _statistic(table: pa.Table, column: str) -> list[float | None]:
    if column not in table.column_names:
        return []
    values = table.column(column).to_pylist()
    return [value[0] if isinstance(value, list) and value else value for value in values]


def read_task_runs(path: Path) -> dict[int, list[tuple[int, int]]]:
    """Return the runs of frames with one task_index, for each episode of a data file.

    A run is (index of its first frame in the episode, task_index).
    """
    try:
        table = pq.read_table(path, columns=["episode_index", "task_index"])
        episodes, tasks = (scalars(column) for column in table.columns)
    except (OSError, pa.ArrowException):
        return {}  # the index reports what is wrong with the file
    found: dict[int, list[tuple[int, int]]] = {}
    first_row: dict[int, int] = {}
    changes = np.flatnonzero((np.diff(episodes) != 0) | (np.diff(tasks) != 0)) + 1
    for row in [0, *changes.tolist()] if len(episodes) else ():
        episode, task = int(episodes[row]), tasks[row]
        start = first_row.setdefault(episode, row)
        if task == task:  # not a null
            found.setdefault(episode, []).append((row - start, int(task)))
    return found
