"""Numbers of subtasks: the column `subtask_index` and its table of labels.

LeRobot 0.4 looks the label of a frame up by its position in the table. So every frame has a number:
if some frames have no subtask, the last label of the table is empty and stands for them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.language import LANGUAGE_COLUMNS, SUBTASK_COLUMN, Row
from cuesheet.artifacts.layout import Layout
from cuesheet.artifacts.stage_files import ValidationFile, read_stage_file
from cuesheet.dataset.data_reader import SourceLanguage, open_data_file
from cuesheet.dataset.metadata import Dataset
from cuesheet.errors import CuesheetError
from cuesheet.files import atomic_path

TABLE = "meta/subtasks.parquet"
NO_SUBTASK = ""


def collect_labels(dataset: Dataset, results: Path, annotated: Collection[int]) -> list[str]:
    """Return the labels of all subtasks of a dataset, sorted; NO_SUBTASK last if it is needed.

    Episodes that are not `annotated` keep the source's rows. Raises CuesheetError if a file is
    missing or damaged.
    """
    labels: set[str] = set()
    layout = Layout(results)
    for index in annotated:
        validated = ValidationFile.read(layout.validation(index))
        if validated.verdict != "bad" and "plan" in validated.stage_files:
            plan = read_stage_file(layout.plan(index), "plan")
            labels |= _labels(row.model_dump() for row in plan.persistent)
        else:
            labels.add(NO_SUBTASK)
    for file, episodes in dataset.data_files.items():
        others = [episode.episode_index for episode in episodes]
        if dataset.has_file(file) and set(others) - set(annotated):
            labels |= _labels_of_source(dataset, file, annotated)
    return [*sorted(labels - {NO_SUBTASK}), *(labels & {NO_SUBTASK})]


def _labels(rows: Iterable[Row]) -> set[str]:
    found = {row["content"] or NO_SUBTASK for row in rows if row["style"] == "subtask"}
    return found or {NO_SUBTASK}


def _labels_of_source(dataset: Dataset, file: str, annotated: Collection[int]) -> set[str]:
    if not set(LANGUAGE_COLUMNS) & set(dataset.info["features"]):
        return {NO_SUBTASK}
    found: set[str] = set()
    with open_data_file(dataset.root / file) as opened:
        own, row = SourceLanguage(opened), 0
        for episode in dataset.data_files[file]:
            if episode.episode_index not in annotated:
                persistent, _, _ = own.take(row, row + episode.length)
                found |= _labels(persistent.slice(0, 1).to_pylist()[0])
            row += episode.length
    return found


def write_table(path: Path, labels: Sequence[str]) -> None:
    """Write the table as LeRobot reads it: the labels as index, and the column subtask_index."""
    import pandas as pd  # jobs that only read the table need not import it

    index: pd.Index[Any] = pd.Index(list(labels), name="subtask", dtype="object")
    with atomic_path(path) as temporary:
        pd.DataFrame({SUBTASK_COLUMN: range(len(labels))}, index=index).to_parquet(temporary)


def read_numbers(path: Path) -> dict[str, int]:
    """Return number by label. Raises CuesheetError if the table cannot be read."""
    try:
        table = pq.read_table(path)
        names = table.column("subtask").to_pylist()
        return dict(zip(names, table.column(SUBTASK_COLUMN).to_pylist(), strict=True))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise CuesheetError(f"{path} cannot be read ({error}); delete it and run again.") from None


def number_frames(
    rows: Iterable[Row], times: np.ndarray, numbers: Mapping[str, int], source: str
) -> pa.Array:
    """Return the number of the active subtask of each frame.

    `rows` are persistent rows, with the timestamps that the data file has; `times` are those of its
    frames, float32. Raises CuesheetError if a label is not in the table, which is then older than
    the annotations.
    """
    subtasks = sorted(
        (row["timestamp"], row["content"]) for row in rows if row["style"] == "subtask"
    )
    starts = np.array([timestamp for timestamp, _ in subtasks], np.float32)
    labels = [NO_SUBTASK, *(label or NO_SUBTASK for _, label in subtasks)]
    active = np.searchsorted(starts, times, side="right")
    wanted = {labels[place] for place in set(active.tolist())}
    if missing := sorted(wanted - set(numbers)):
        raise CuesheetError(
            f"{source}: the subtask {missing[0]!r} is not in subtasks.parquet; delete that file "
            "and run again."
        )
    return pa.array([numbers[labels[place]] for place in active.tolist()], pa.int64())
