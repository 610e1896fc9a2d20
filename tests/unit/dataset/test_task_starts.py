"""Several tasks in one episode: each applies from the frame on that task_index says."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_variants import DATA, EPISODES, as_v21

from cuesheet.artifacts.index import read_indexed_episode
from cuesheet.dataset.index import build_index, write_index
from cuesheet.dataset.metadata import read_dataset

FIRST, SECOND = "Pick up the puck from the table", "Place the puck onto the goal"


def give_two_tasks(root: Path, second_from: int) -> Path:
    """Give episode 0 two tasks, the second one from that frame on (0 and 1 follow in the table)."""
    tasks = pq.read_table(root / "meta/tasks.parquet").to_pandas()
    count = len(tasks)
    tasks.loc[FIRST], tasks.loc[SECOND] = count, count + 1
    tasks.to_parquet(root / "meta/tasks.parquet")
    table = pq.read_table(root / EPISODES)
    position = table.column_names.index("tasks")
    values = [[FIRST, SECOND], *table["tasks"].to_pylist()[1:]]
    column = pa.array(values, table.schema.field("tasks").type)
    pq.write_table(table.set_column(position, "tasks", column), root / EPISODES)
    table = pq.read_table(root / DATA)
    numbers = np.array(table["task_index"])
    frames = np.array(table["frame_index"])
    numbers[np.array(table["episode_index"]) == 0] = count
    numbers[(np.array(table["episode_index"]) == 0) & (frames >= second_from)] = count + 1
    position = table.column_names.index("task_index")
    pq.write_table(table.set_column(position, "task_index", pa.array(numbers)), root / DATA)
    return root


@pytest.fixture
def copied(demo_v3, tmp_path) -> Path:
    return shutil.copytree(demo_v3, tmp_path / "copied")


def indexed(root: Path, tmp_path: Path):
    table, notices = build_index(read_dataset(root, "d"))
    write_index(table, tmp_path / "episodes.parquet")
    return [read_indexed_episode(tmp_path / "episodes.parquet", n) for n in (0, 1)], notices


def test_the_index_says_at_which_frame_each_task_begins(copied, tmp_path):
    (two, one), notices = indexed(give_two_tasks(copied, 30), tmp_path)
    assert two.task_starts == [(0, FIRST), (30, SECOND)]
    assert two.task_text == f"{FIRST}. Then: {SECOND}"
    assert one.task_starts == []
    assert one.task_text == one.task
    assert any(FIRST in notice and SECOND in notice for notice in notices)


def test_so_does_the_index_of_v21(copied, tmp_path):
    root = as_v21(give_two_tasks(copied, 30), tmp_path / "v21")
    (two, _), _ = indexed(root, tmp_path)
    assert two.task_starts == [(0, FIRST), (30, SECOND)]


def test_tasks_that_task_index_does_not_tell_apart_are_a_notice(copied, tmp_path):
    (two, _), notices = indexed(give_two_tasks(copied, 1000), tmp_path)
    assert two.task_starts == []
    assert two.task_text == FIRST
    (notice,) = [notice for notice in notices if "does not tell them apart" in notice]
    assert "several tasks for episode 0, " in notice
    assert "fewer than two tasks in meta/tasks.parquet. Prompts" in notice
    assert "complete meta/tasks.parquet" in notice


def test_tasks_without_their_table_are_a_notice_that_names_the_missing_file(copied, tmp_path):
    root = as_v21(give_two_tasks(copied, 30), tmp_path / "v21")
    (root / "meta/tasks.jsonl").unlink()
    (two, _), notices = indexed(root, tmp_path)
    assert two.task_text == FIRST
    (notice,) = [notice for notice in notices if "does not tell them apart" in notice]
    assert "in meta/tasks.jsonl, which is missing. Prompts" in notice
    assert "restore meta/tasks.jsonl" in notice


def test_a_number_that_the_table_of_tasks_lacks_is_left_out(copied, tmp_path):
    root = as_v21(give_two_tasks(copied, 30), tmp_path / "v21")
    path = root / "meta/tasks.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [line for line in lines if line["task"] != SECOND]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    (two, _), _ = indexed(root, tmp_path)
    assert two.task_starts == []
