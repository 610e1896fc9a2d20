"""The column subtask_index and its table of labels."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuesheet.assemble.finalize import finalize_dataset
from cuesheet.assemble.merge import EpisodeRows, merge_file
from cuesheet.assemble.subtask_numbers import (
    collect_labels,
    number_frames,
    read_numbers,
    write_table,
)
from cuesheet.assemble.verify import check_dataset
from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError

DATA = "data/chunk-000/file-000.parquet"


def subtask(label: str, time_s: float) -> dict:
    row = {"role": "assistant", "content": label, "style": "subtask", "timestamp": time_s}
    return row | {"camera": None, "tool_calls": None}


def test_a_frame_has_the_number_of_the_subtask_that_is_active():
    times = np.arange(6, dtype=np.float32) / 10
    rows = [subtask("pull", 0.4), subtask("reach", 0.2), subtask("x", 0.0) | {"style": "plan"}]
    found = number_frames(rows, times, {"pull": 0, "reach": 1, "": 2}, "episode 0")
    assert found == pa.array([2, 2, 1, 1, 0, 0], pa.int64())
    with pytest.raises(CuesheetError, match="episode 0: the subtask 'reach' is not in"):
        number_frames(rows, times, {"pull": 0, "": 2}, "episode 0")


def test_the_table_is_the_one_that_lerobot_reads(tmp_path):
    write_table(tmp_path / "subtasks.parquet", ["pull", "reach", ""])
    table = pd.read_parquet(tmp_path / "subtasks.parquet")
    assert [table.iloc[number].name for number in range(3)] == ["pull", "reach", ""]
    assert table["subtask_index"].tolist() == [0, 1, 2]
    assert read_numbers(tmp_path / "subtasks.parquet") == {"pull": 0, "reach": 1, "": 2}


def test_the_annotated_dataset_has_the_column_and_the_table(demo_v3, tmp_path):
    source, annotated = read_dataset(demo_v3, "demo"), tmp_path / "annotated"
    rows = {1: EpisodeRows([subtask("reach", 0.0), subtask("pull", 2.0)], [])}
    lengths = {episode.episode_index: episode.length for episode in source.episodes}
    (annotated / DATA).parent.mkdir(parents=True)
    numbers = {"pull": 0, "reach": 1, "": 2}
    merge_file(demo_v3 / DATA, annotated / DATA, rows.get, lengths, subtask_numbers=numbers)
    write_table(tmp_path / "subtasks.parquet", list(numbers))
    finalize_dataset(source, annotated, "hardlink", subtasks=tmp_path / "subtasks.parquet")
    check_dataset(source, annotated)

    table = pq.read_table(annotated / DATA)
    assert table.column_names[-3:] == ["subtask_index", "language_persistent", "language_events"]
    of_episode = table.filter(pa.array(np.array(table["episode_index"]) == 1))["subtask_index"]
    assert of_episode.to_pylist() == [1] * 20 + [0] * 26
    assert set(table["subtask_index"].to_pylist()) == {0, 1, 2}
    finished = read_dataset(annotated, "demo")
    assert finished.info["features"]["subtask_index"]["dtype"] == "int64"
    assert list(read_numbers(annotated / "meta/subtasks.parquet")) == list(numbers)
    # Episodes that are not annotated keep the rows of the source.
    assert collect_labels(finished, tmp_path, []) == ["pull", "reach", ""]
    assert collect_labels(source, tmp_path, []) == [""]
