"""Which data file holds an episode, if meta/episodes names the wrong one."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_variants import remove_cameras
from split_dataset import split_dataset

from cuesheet.dataset.index import build_index
from cuesheet.dataset.metadata import read_dataset

FILE = "data/chunk-000/file-{:03d}.parquet"


@pytest.fixture(scope="module")
def split(demo_v3, tmp_path_factory) -> Path:
    """Episodes 0 to 4, 5 to 8 and 9 to 11 in three data files, without cameras."""
    root = split_dataset(demo_v3, tmp_path_factory.mktemp("split") / "split_v3")
    remove_cameras(root)
    return root


@pytest.fixture
def stale(split, tmp_path) -> Path:
    """Episodes 5 and 9 are said to be in the file before theirs."""
    root = shutil.copytree(split, tmp_path / "stale")
    for path in (root / "meta/episodes").rglob("*.parquet"):
        table = pq.read_table(path)
        said = table["data/file_index"].to_pylist()
        indices = table["episode_index"].to_pylist()
        numbers = [
            number - 1 if index in (5, 9) else number
            for index, number in zip(indices, said, strict=True)
        ]
        place = table.schema.get_field_index("data/file_index")
        column = pa.array(numbers, table.schema.field(place).type)
        pq.write_table(table.set_column(place, "data/file_index", column), path)
    return root


def test_the_rows_of_the_files_decide_with_one_notice(split, stale):
    right, found = read_dataset(split, "d"), read_dataset(stale, "d")
    assert [e.data_file for e in found.episodes] == [e.data_file for e in right.episodes]
    (notice,) = [n for n in found.notices if n not in right.notices]
    assert "wrong data file for episodes 5, 9" in notice
    assert build_index(found)[0].equals(build_index(right)[0])


def test_so_they_do_for_a_single_episode(split, stale):
    table, notices = build_index(read_dataset(stale, "d"), selected=[9])
    assert table.equals(build_index(read_dataset(split, "d"))[0])
    assert len([notice for notice in notices if "wrong data file" in notice]) == 1


def test_a_file_of_unselected_episodes_that_is_missing_changes_nothing(stale):
    (stale / FILE.format(0)).unlink()
    dataset = read_dataset(stale, "d")
    assert dataset.episode(9).data_file == FILE.format(2)
    table, notices = build_index(dataset, selected=[9, 10])
    assert table["episode_index"].to_pylist() == [5, 6, 7, 8, 9, 10, 11]
    assert any("episodes 0 to 4" in notice for notice in notices)
