"""Subtask labels that a dataset already has, one per frame, used instead of the model's.

A text column holds the labels themselves. A column of whole numbers refers to a table in meta/:
`subtask_index` to subtasks.parquet, `task_index` to tasks.parquet, and `task_index_high_level` to
tasks_high_level.parquet (the text as index or column, and one column of numbers).
"""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.subtasks import Subtask
from cuesheet.dataset.metadata import Dataset
from cuesheet.dataset.task_table import is_text
from cuesheet.errors import CuesheetError
from cuesheet.text import did_you_mean

LABELS_FILE = "meta/subtasks.parquet"
_SETTING = "config: plan.subtask_column"


def check_column(dataset: Dataset, column: str) -> None:
    """Raise CuesheetError if the dataset has no such column, or no labels for its numbers."""
    features = dataset.info["features"]
    if column not in features:
        texts = [key for key, feature in features.items() if feature.get("dtype") == "string"]
        near = did_you_mean(column, features)
        hint = f"; did you mean {near}?" if near else ""
        raise CuesheetError(
            f"{_SETTING}: {dataset.name} has no column {column}{hint} Text columns: "
            f"{', '.join(texts) or 'none'}. With plan.subtasks_from: model, the "
            "model labels the subtasks."
        )
    dtype = str(features[column].get("dtype"))
    if dtype == "string":
        return
    if "int" not in dtype:
        raise CuesheetError(
            f"{_SETTING}: the column {column} of {dataset.name} is of type {dtype}; expected text, "
            f"or whole numbers with the labels in {LABELS_FILE}"
        )
    if labels_file(dataset.root, column) is None:
        expected = ", ".join(_candidates(column))
        raise CuesheetError(
            f"{_SETTING}: the column {column} of {dataset.name} holds numbers, but there is no "
            f"table of labels in {dataset.root}; expected one of {expected}"
        )
    read_labels(dataset.root, column)


def labels_file(root: Path, column: str) -> Path | None:
    """Return the table that says what the numbers of a column mean; None if there is none."""
    paths = (root / file for file in _candidates(column))
    return next((path for path in paths if path.is_file()), None)


def _candidates(column: str) -> list[str]:
    before, _, after = column.partition("_index")
    return list(dict.fromkeys((f"meta/{before}s{after}.parquet", LABELS_FILE)))


def read_labels(root: Path, column: str = "subtask_index") -> dict[int, str]:
    """Return label by number. Raises CuesheetError if the table has another form."""
    path = labels_file(root, column) or root / LABELS_FILE
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise CuesheetError(f"{path} is not a readable parquet file: {error}") from None
    texts = [field.name for field in table.schema if is_text(field.type)]
    integers = [field.name for field in table.schema if pa.types.is_integer(field.type)]
    numbers = column if column in integers else integers[0] if len(integers) == 1 else None
    if numbers is None or len(texts) != 1:
        raise CuesheetError(
            f"{path} has the columns {', '.join(table.column_names)}; expected one of whole "
            "numbers and one of text, the labels"
        )
    keys = table.column(numbers).to_pylist()
    return dict(zip(keys, table.column(texts[0]).to_pylist(), strict=True))


def read_subtasks(
    root: Path, data_file: str, episode_index: int, length: int, column: str
) -> tuple[list[Subtask], int]:
    """Return the labeled subtasks of an episode, and the number of frames without a label.

    Frames without a label (null, empty, a negative number) belong to the subtask before them, the
    first ones to the subtask after them. If no frame has a label, there are no subtasks. Raises
    CuesheetError if the file cannot be read, or a number has no label.
    """
    path = root / data_file
    try:
        found = pq.read_table(
            path, columns=[column], filters=[("episode_index", "=", episode_index)]
        ).column(column)
    except (OSError, pa.ArrowException) as error:
        raise CuesheetError(f"{path}: the column {column} cannot be read: {error}") from None
    if len(found) != length:
        raise CuesheetError(
            f"{path} has {len(found)} rows of episode {episode_index}; the episode has {length} "
            "frames. The episode was recorded again after it was indexed; run again."
        )
    values = found.to_pylist()
    if not is_text(found.type):
        values = _named(values, root, column, f"{path}, episode {episode_index}")
    labels = [" ".join(value.split()) if value else "" for value in values]
    return stretches(labels), labels.count("")


def stretches(labels: Sequence[str]) -> list[Subtask]:
    """Return runs of equal labels as subtasks without gaps; "" means no label."""
    subtasks: list[Subtask] = []
    end = 0
    for label, run in groupby(labels):
        start, end = end, end + len(list(run))
        if subtasks and label in ("", subtasks[-1].label):
            subtasks[-1] = Subtask(subtasks[-1].start_frame, end, subtasks[-1].label)
        elif label:
            subtasks.append(Subtask(start if subtasks else 0, end, label))
    return subtasks


def _named(values: Sequence[Any], root: Path, column: str, source: str) -> list[str | None]:
    labels = read_labels(root, column)
    # lerobot stores a feature of shape [1] as a number, other writers as a list of one.
    numbers = [value[0] if isinstance(value, list) and value else value for value in values]
    unknown = {number for number in numbers if number is not None and number >= 0} - set(labels)
    if unknown:
        raise CuesheetError(
            f"{source}: there is no label for {json.dumps(sorted(unknown)[:5])} in "
            f"{labels_file(root, column)}, which has {len(labels)}"
        )
    return [labels.get(number) for number in numbers]
