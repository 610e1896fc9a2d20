"""Tasks given by task_index alone: the places of their table; no task is made up."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuesheet.dataset.index import build_index
from cuesheet.dataset.metadata import read_dataset
from cuesheet.dataset.task_table import read_task_names
from cuesheet.errors import CuesheetError

EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture
def unnamed(demo_v3: Path, tmp_path: Path) -> Path:
    """Return a copy whose tasks are only in task_index and meta/tasks.parquet."""
    root = tmp_path / "copied"
    shutil.copytree(demo_v3, root)
    pq.write_table(pq.read_table(root / EPISODES).drop_columns(["tasks"]), root / EPISODES)
    return root


def tasks_of(root: Path) -> list[str]:
    return [episode.task for episode in read_dataset(root, "d").episodes]


def as_lines(root: Path, tasks: pd.DataFrame) -> None:
    rows = [{"task_index": number, "task": task} for number, task in named(tasks)]
    (root / "meta/tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def with_empty_table(root: Path, tasks: pd.DataFrame) -> None:
    as_lines(root, tasks)
    tasks.head(0).to_parquet(root / "meta/tasks.parquet")


def as_files(root: Path, tasks: pd.DataFrame) -> None:
    for number in range(len(tasks)):
        path = root / f"meta/tasks/chunk-000/file-{number:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        tasks.iloc[number : number + 1].to_parquet(path)


def with_another_index_name(root: Path, tasks: pd.DataFrame) -> None:
    tasks.rename_axis("instruction").to_parquet(root / "meta/tasks.parquet")


def with_the_number_as_index(root: Path, tasks: pd.DataFrame) -> None:
    texts = [task for _, task in sorted(named(tasks))]
    table = pd.DataFrame({"task": texts}).rename_axis("task_index")
    table.to_parquet(root / "meta/tasks.parquet")
    assert pq.read_table(root / "meta/tasks.parquet").column_names == ["task"]


def as_categories(root: Path, tasks: pd.DataFrame) -> None:
    numbers, texts = zip(*named(tasks), strict=True)
    columns = {"task_index": pa.array(map(float, numbers)), "task": pa.array(texts)}
    columns["task"] = columns["task"].dictionary_encode()
    pq.write_table(pa.table(columns), root / "meta/tasks.parquet")


def named(tasks: pd.DataFrame) -> list[tuple[int, str]]:
    return list(zip(tasks["task_index"], tasks.index, strict=True))


@pytest.mark.parametrize(
    "write",
    [
        as_lines,
        with_empty_table,
        as_files,
        with_another_index_name,
        with_the_number_as_index,
        as_categories,
    ],
)
def test_tasks_are_found_in_every_form_of_the_table(unnamed, demo_v3, write):
    path = unnamed / "meta/tasks.parquet"
    tasks = pd.read_parquet(path)
    path.unlink()
    write(unnamed, tasks)
    assert tasks_of(unnamed) == tasks_of(demo_v3)
    assert all(tasks_of(unnamed))
    has_notice = any("LeRobot expects meta/tasks" in n for n in read_dataset(unnamed, "d").notices)
    assert has_notice is not path.exists()


def test_a_task_that_no_table_has_is_an_error_of_the_index(unnamed):
    (unnamed / "meta/tasks.parquet").unlink()
    with pytest.raises(CuesheetError, match=r"task_index 0, but the table .* missing or empty"):
        build_index(read_dataset(unnamed, "d"))


def test_a_task_index_beyond_the_table_concerns_only_its_episodes(unnamed):
    path = unnamed / "meta/tasks.parquet"
    tasks = pd.read_parquet(path)
    first = int(tasks["task_index"].min())
    tasks[tasks["task_index"] == first].to_parquet(path)
    dataset = read_dataset(unnamed, "d")
    with pytest.raises(CuesheetError, match="the table of tasks has no task"):
        build_index(dataset)
    others = {episode.episode_index for episode in dataset.episodes if episode.tasks}
    table, notices = build_index(dataset, selected=others)
    assert set(table.column("episode_index").to_pylist()) == others
    assert any("has no task" in notice for notice in notices)


def test_an_empty_task_in_the_table_is_left_to_the_model(unnamed):
    path = unnamed / "meta/tasks.parquet"
    tasks = pd.read_parquet(path)
    tasks.set_axis([""] * len(tasks)).to_parquet(path)
    table, _ = build_index(read_dataset(unnamed, "d"))
    assert set(table.column("task").to_pylist()) == {""}


def test_a_table_of_other_columns_is_reported(unnamed):
    path = unnamed / "meta/tasks.parquet"
    pq.write_table(pa.table({"task": ["pick it"]}), path)
    with pytest.raises(CuesheetError, match="expected task_index, whole numbers"):
        read_task_names(unnamed, "d")


@pytest.mark.parametrize("file", ["tasks.parquet", "tasks.jsonl"])
def test_two_tasks_with_the_same_number_are_an_error(unnamed, file):
    tasks = pd.read_parquet(unnamed / "meta/tasks.parquet")
    (unnamed / "meta/tasks.parquet").unlink()
    tasks["task_index"] = 0
    if file == "tasks.parquet":
        tasks.to_parquet(unnamed / "meta" / file)
    else:
        as_lines(unnamed, tasks)
    with pytest.raises(CuesheetError, match=r"with the task_index 0.*expected one"):
        read_dataset(unnamed, "d")
