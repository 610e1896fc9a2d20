"""Subtask labels that a dataset brings along, one a frame, instead of the model's.

A column of text holds the labels themselves; a column of whole numbers counts into
`meta/subtasks.parquet` (LeRobot: the label as index, `subtask_index` as column).
"""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.subtasks import Subtask
from cuesheet.dataset.metadata import Dataset
from cuesheet.errors import CuesheetError
from cuesheet.text import did_you_mean

LABELS_FILE = "meta/subtasks.parquet"
_NUMBERS = "subtask_index"
_WHERE = "config: plan.subtask_column"


def check_column(dataset: Dataset, column: str) -> None:
    """Raise CuesheetError where the dataset has no such column, or no labels to its numbers."""
    features: Mapping[str, Any] = dataset.info["features"]
    if column not in features:
        texts = [key for key, feature in features.items() if feature.get("dtype") == "string"]
        near = did_you_mean(column, features)
        hint = f"; did you mean {near}?" if near else ""
        raise CuesheetError(
            f"{_WHERE}: {dataset.name} has no column {column}{hint} Columns of text: "
            f"{', '.join(texts) or 'none'}. plan.subtasks_from: model asks the model instead."
        )
    dtype = str(features[column].get("dtype"))
    if dtype == "string":
        return
    if "int" not in dtype:
        raise CuesheetError(
            f"{_WHERE}: the column {column} of {dataset.name} is of type {dtype}; expected text, "
            f"or whole numbers with the labels in {LABELS_FILE}"
        )
    if not (dataset.root / LABELS_FILE).is_file():
        raise CuesheetError(
            f"{_WHERE}: the column {column} of {dataset.name} holds numbers, but there is no "
            f"{dataset.root / LABELS_FILE} that says what they mean"
        )
    read_labels(dataset.root)


def read_labels(root: Path) -> dict[int, str]:
    """Label by number. Raises CuesheetError where the file is of another form."""
    path = root / LABELS_FILE
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise CuesheetError(f"{path} is not a readable parquet file: {error}") from None
    texts = [field.name for field in table.schema if _is_text(field.type)]
    if _NUMBERS not in table.column_names or len(texts) != 1:
        raise CuesheetError(
            f"{path} has the columns {', '.join(table.column_names)}; expected {_NUMBERS} and one "
            "of text, the labels"
        )
    numbers = table.column(_NUMBERS).to_pylist()
    return dict(zip(numbers, table.column(texts[0]).to_pylist(), strict=True))


def read_subtasks(
    root: Path, data_file: str, episode_index: int, length: int, column: str
) -> tuple[list[Subtask], int]:
    """The labeled stretches of an episode, and how many of its frames have no label.

    Frames without a label (null, empty, a negative number) belong to the stretch before them, the
    first ones to the one after. No stretch comes back where no frame has a label.

    Raises:
        CuesheetError: the file cannot be read, or a number has no label.
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
            "frames. Its keyframes are of another recording: delete them and run again."
        )
    values = found.to_pylist()
    if not _is_text(found.type):
        values = _named(values, root, f"{path}, episode {episode_index}")
    labels = [" ".join(value.split()) if value else "" for value in values]
    return stretches(labels), labels.count("")


def stretches(labels: Sequence[str]) -> list[Subtask]:
    """Runs of equal labels as a cover; "" is no label."""
    cover: list[Subtask] = []
    end = 0
    for label, run in groupby(labels):
        start, end = end, end + len(list(run))
        if cover and label in ("", cover[-1].label):
            cover[-1] = Subtask(cover[-1].start_frame, end, cover[-1].label)
        elif label:
            cover.append(Subtask(start if cover else 0, end, label))
    return cover


def _named(values: Sequence[Any], root: Path, where: str) -> list[str | None]:
    labels = read_labels(root)
    # lerobot stores a feature of shape [1] as a number, other writers as a list of one.
    numbers = [value[0] if isinstance(value, list) and value else value for value in values]
    unknown = {number for number in numbers if number is not None and number >= 0} - set(labels)
    if unknown:
        raise CuesheetError(
            f"{where}: there is no label for {json.dumps(sorted(unknown)[:5])} in {LABELS_FILE}, "
            f"which has {len(labels)}"
        )
    return [labels.get(number) for number in numbers]


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
