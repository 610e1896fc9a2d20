"""Labels that a dataset brings along become subtasks."""

import json
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuesheet.artifacts.subtasks import Subtask
from cuesheet.dataset.metadata import read_dataset
from cuesheet.dataset.subtask_labels import check_column, read_subtasks, stretches
from cuesheet.errors import CuesheetError

DATA = "data/chunk-000/file-000.parquet"


def labeled(demo, target, column, values_of, dtype, kind):
    """The demo with one more column; `values_of(frame_index)` gives its values."""
    shutil.copytree(demo, target)
    table = pq.read_table(target / DATA)
    values = [values_of(index) for index in table.column("frame_index").to_pylist()]
    pq.write_table(table.append_column(column, pa.array(values, kind)), target / DATA)
    info = json.loads((target / "meta/info.json").read_text())
    info["features"][column] = {"dtype": dtype, "shape": [1], "names": None}
    (target / "meta/info.json").write_text(json.dumps(info))
    return target


def write_names(root, names):
    table = pa.table({"subtask_index": list(range(len(names))), "__index_level_0__": names})
    pq.write_table(table, root / "meta/subtasks.parquet")


@pytest.mark.parametrize("kind", [pa.int64(), pa.list_(pa.int64(), 1)])
def test_numbers_count_into_the_table_of_labels(demo_v3, tmp_path, kind):
    def value(frame):
        number = -1 if frame < 3 else 1 if frame < 20 else 0
        return [number] if pa.types.is_fixed_size_list(kind) else number

    root = labeled(demo_v3, tmp_path / "d", "subtask_index", value, "int64", kind)
    write_names(root, ["pull  the drawer", "reach"])
    dataset = read_dataset(root, "d")
    check_column(dataset, "subtask_index")
    length = dataset.episode(1).length
    assert read_subtasks(root, DATA, 1, length, "subtask_index") == (
        [Subtask(0, 20, "reach"), Subtask(20, length, "pull the drawer")],
        3,
    )


@pytest.mark.parametrize(
    ("column", "file"),
    [
        ("task_index_high_level", "tasks_high_level.parquet"),
        ("step", "subtasks.parquet"),
    ],
)
def test_the_table_of_labels_is_named_after_the_column(demo_v3, tmp_path, column, file):
    root = labeled(demo_v3, tmp_path / "d", column, lambda f: int(f >= 9), "int64", pa.int64())
    index = pd.Index(["reach", "place"], name="task")
    pd.DataFrame({"task_index": [0, 1]}, index=index).to_parquet(root / "meta" / file)
    dataset = read_dataset(root, "d")
    check_column(dataset, column)
    length = dataset.episode(1).length
    found, _ = read_subtasks(root, DATA, 1, length, column)
    assert found == [Subtask(0, 9, "reach"), Subtask(9, length, "place")]


def test_a_column_of_text_holds_the_labels(demo_v3, tmp_path):
    root = labeled(
        demo_v3, tmp_path / "d", "stage", lambda f: "a" if f < 9 else "b", "string", pa.string()
    )
    dataset = read_dataset(root, "d")
    check_column(dataset, "stage")
    found, unlabeled = read_subtasks(root, DATA, 2, dataset.episode(2).length, "stage")
    assert [(part.start_frame, part.label) for part in found] == [(0, "a"), (9, "b")]
    assert unlabeled == 0


def test_frames_without_a_label_go_to_a_neighbor():
    assert stretches(["", "a", "", "a", "", "b", ""]) == [Subtask(0, 5, "a"), Subtask(5, 7, "b")]
    assert stretches(["", ""]) == []


def test_what_cannot_be_used_is_said(demo_v3, tmp_path):
    root = labeled(demo_v3, tmp_path / "d", "subtask_index", lambda f: 5, "int64", pa.int64())
    dataset = read_dataset(root, "d")
    with pytest.raises(CuesheetError, match=r"no table of labels .*meta/subtasks.parquet"):
        check_column(dataset, "subtask_index")
    with pytest.raises(CuesheetError, match="did you mean subtask_index"):
        check_column(dataset, "subtask_idx")
    with pytest.raises(CuesheetError, match="of type float32; expected text"):
        check_column(dataset, "observation.state")
    write_names(root, ["reach"])
    with pytest.raises(CuesheetError, match=r"no label for \[5\]"):
        read_subtasks(root, DATA, 1, dataset.episode(1).length, "subtask_index")
    with pytest.raises(CuesheetError, match="the episode has 3 frames"):
        read_subtasks(root, DATA, 1, 3, "subtask_index")
