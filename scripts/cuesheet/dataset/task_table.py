"""The tables of tasks by task_index: meta/tasks.parquet (v3.0) and meta/tasks.jsonl (v2.1).

Early files of v3.0 are in meta/tasks/chunk-*/; some converters leave only meta/tasks.jsonl.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.dataset.file_forms import found_instead
from cuesheet.dataset.json_lines import as_whole, read_objects
from cuesheet.errors import CuesheetError

TASKS_FILE = "meta/tasks.parquet"
TASK_LINES = "meta/tasks.jsonl"
# LeRobot writes the tasks as the index of a pandas table; some tools add columns.
_TEXT_COLUMNS = ("task", "__index_level_0__")


def read_task_names(root: Path, name: str) -> dict[int, str]:
    """Return task by task_index of a dataset; empty if it has no table or an empty one.

    Raises CuesheetError if a table cannot be read or has other columns.
    """
    found: dict[int, str] = {}
    for path in task_files(root):
        if path.suffix == ".parquet":
            found |= _read_parquet(path, name)
    if not found and (root / TASK_LINES).is_file():
        return read_task_lines(root, name)
    return found


def check_task_files(root: Path, name: str) -> None:
    """Raise CuesheetError if a parquet table of tasks cannot be opened.

    Tables are copied into the annotated dataset, which LeRobot could not load then, even if no task
    has to be looked up in them.
    """
    for path in task_files(root):
        if path.suffix == ".parquet":
            try:
                pq.read_metadata(path)
            except (OSError, pa.ArrowException) as error:
                raise CuesheetError(
                    f"{name}: {path} is not a readable parquet file: {str(error).rstrip('.')}. "
                    "Copy or download the dataset again."
                ) from None


def task_files(root: Path) -> list[Path]:
    """Return the files that say what task_index means in a dataset of v3.0."""
    paths = [root / TASKS_FILE, *sorted((root / "meta/tasks").rglob("[!.]*.parquet"))]
    return [path for path in (*paths, root / TASK_LINES) if path.is_file()]


def read_task_lines(root: Path, name: str) -> dict[int, str]:
    """Return task by ascending task_index. Raises CuesheetError if the file is malformed."""
    path = root / TASK_LINES
    found: dict[int, str] = {}
    for number, row in read_objects(path, name):
        row["task_index"] = as_whole(row.get("task_index"))
        if not isinstance(row["task_index"], int) or not isinstance(row.get("task"), str):
            raise CuesheetError(
                f"{name}: {path}, line {number}: expected a whole 'task_index' and a text 'task'."
            )
        if found.setdefault(row["task_index"], row["task"]) != row["task"]:
            raise CuesheetError(
                f"{name}: {path}, line {number}: a second task with the task_index "
                f"{row['task_index']}; expected one."
            )
    return dict(sorted(found.items()))


def _read_parquet(path: Path, name: str) -> dict[int, str]:
    try:
        table = pq.read_table(path, partitioning=None)
        if "task_index" not in table.column_names or not _texts(table):
            # An index that counts from 0 is stored as a description, not as a column.
            table = pa.Table.from_pandas(table.to_pandas().reset_index(), preserve_index=False)
        numbers = [as_whole(number) for number in table.column("task_index").to_pylist()]
    except KeyError:
        numbers = []
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = found_instead(path) or error
        raise CuesheetError(f"{name}: {path} is not a readable parquet file: {reason}") from None
    texts = _texts(table)
    if not len(table):
        return {}
    if len(texts) != 1 or not all(isinstance(number, int) for number in numbers) or not numbers:
        raise CuesheetError(
            f"{name}: {path} has the columns {', '.join(table.column_names)}; expected task_index, "
            "whole numbers, and one text column, the tasks."
        )
    found: dict[int, str] = {}
    for number, task in zip(numbers, table.column(texts[0]).to_pylist(), strict=True):
        if found.setdefault(number, task) != task:
            raise CuesheetError(
                f"{name}: {path} has two tasks with the task_index {number}, {found[number]!r} and "
                f"{task!r}; expected one."
            )
    return found


def _texts(table: pa.Table) -> list[str]:
    """Return the text column with the tasks, or all text columns if none of them is known."""
    texts = [field.name for field in table.schema if is_text(field.type)]
    return [column for column in _TEXT_COLUMNS if column in texts][:1] or texts


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds texts, possibly as a dictionary."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
