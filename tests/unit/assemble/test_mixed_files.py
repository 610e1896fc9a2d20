"""Data files with different columns are annotated, each with the schema of its source."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from split_dataset import split_dataset

from cuesheet.artifacts.language import LANGUAGE_COLUMNS
from cuesheet.assemble.convert_v21 import convert_dataset
from cuesheet.assemble.finalize import finalize_dataset
from cuesheet.assemble.merge import EpisodeRows, merge_file
from cuesheet.assemble.verify import check_dataset
from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError

ROW = {"role": "assistant", "content": "push", "style": "subtask", "timestamp": 0.0}
ROWS = EpisodeRows([{**ROW, "camera": None, "tool_calls": None}], [])


def with_field(table: pa.Table, name: str, field: pa.Field) -> pa.Table:
    at = table.schema.get_field_index(name)
    values = pa.array(table.column(name).to_pylist(), field.type)
    return table.set_column(at, field, values)


def variable_lists(table: pa.Table) -> pa.Table:
    for field in table.schema:
        if pa.types.is_fixed_size_list(field.type):
            table = with_field(table, field.name, field.with_type(pa.list_(pa.float32())))
    return table.replace_schema_metadata(None)


def double_timestamps(table: pa.Table) -> pa.Table:
    return with_field(table, "timestamp", pa.field("timestamp", pa.float64()))


def float_episode_numbers(table: pa.Table) -> pa.Table:
    return with_field(table, "episode_index", pa.field("episode_index", pa.float32()))


def required_index(table: pa.Table) -> pa.Table:
    return with_field(table, "index", pa.field("index", pa.int64(), nullable=False))


def scalars_as_lists(table: pa.Table) -> pa.Table:
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        kind = table.schema.field(name).type
        values = [[value] for value in table.column(name).to_pylist()]
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pa.array(values, pa.list_(kind)))
    return table.replace_schema_metadata(None)


def other_order(table: pa.Table) -> pa.Table:
    return table.select(list(reversed(table.column_names)))


def more_columns(table: pa.Table) -> pa.Table:
    table = table.append_column("note", pa.array(["a"] * len(table), pa.large_string()))
    return table.append_column("empty", pa.nulls(len(table)))


CHANGES = [
    variable_lists,
    double_timestamps,
    float_episode_numbers,
    required_index,
    scalars_as_lists,
    other_order,
    more_columns,
]


def merge_all(root: Path, merged: Path):
    dataset = read_dataset(root, "mixed")
    for data_file, episodes in dataset.data_files.items():
        expected = {episode.episode_index: episode.length for episode in episodes}
        merge_file(root / data_file, merged / data_file, lambda _: ROWS, expected)
    return dataset


def assert_same_but_for_language(annotated: Path, source: Path) -> None:
    after, before = pq.read_table(annotated), pq.read_table(source)
    assert after.column_names == [*before.column_names, *LANGUAGE_COLUMNS]
    assert after.select(before.column_names).equals(before)
    assert after.schema.equals(
        pa.schema([*before.schema, *[after.schema.field(name) for name in LANGUAGE_COLUMNS]])
    )
    assert after.column("language_persistent")[0].as_py()[0]["content"] == "push"


@pytest.mark.parametrize("change", CHANGES)
def test_each_annotated_file_keeps_the_schema_of_its_source(demo_v3, tmp_path, change):
    root = split_dataset(demo_v3, tmp_path / "source")
    path = root / "data/chunk-000/file-001.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    annotated = tmp_path / "results/annotated"
    dataset = merge_all(root, annotated)
    finalize_dataset(dataset, annotated, "hardlink")
    check_dataset(dataset, annotated)
    for data_file in dataset.data_files:
        assert_same_but_for_language(annotated / data_file, root / data_file)


@pytest.fixture
def v21(demo_v21, tmp_path):
    return shutil.copytree(demo_v21, tmp_path / "demo_v21")


@pytest.mark.parametrize("change", CHANGES)
def test_converted_to_v30_episodes_of_one_schema_share_a_file(v21, tmp_path, change):
    path = v21 / "data/chunk-000/episode_000002.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    dataset = merge_all(v21, tmp_path / "merged")
    annotated = tmp_path / "annotated"
    convert_dataset(dataset, tmp_path / "merged", annotated)
    check_dataset(dataset, annotated)
    finished = read_dataset(annotated, "mixed")
    files = [episode.data_file[-11:-8] for episode in finished.episodes]
    assert files == ["000", "000", "001", "002"]
    second = pq.read_table(annotated / finished.episode(2).data_file)
    before = pq.read_table(path)
    assert second.select(before.column_names).equals(before)


def test_a_file_with_other_types_than_its_own_source_is_reported(demo_v3, tmp_path):
    root = split_dataset(demo_v3, tmp_path / "source")
    annotated = tmp_path / "results/annotated"
    dataset = merge_all(root, annotated)
    finalize_dataset(dataset, annotated, "hardlink")
    path = root / "data/chunk-000/file-002.parquet"
    pq.write_table(double_timestamps(pq.read_table(path)), path)
    message = r"annotated/.*file-002\.parquet: other columns or types than .*source/.*file-002"
    with pytest.raises(CuesheetError, match=message):
        check_dataset(dataset, annotated)


def edit_json_lines(path: Path, change) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(row)) + "\n" for row in rows))


def convert(v21: Path, folder: Path):
    dataset = merge_all(v21, folder / "merged")
    convert_dataset(dataset, folder / "merged", folder / "annotated")
    check_dataset(dataset, folder / "annotated")
    return json.loads((folder / "annotated/meta/stats.json").read_text())


def assert_statistics_are_close(found, expected, cameras) -> None:
    for feature, statistics in expected.items():
        for name in ("min", "max", "mean", "std", "count"):
            assert np.shape(found[feature][name]) == np.shape(statistics[name]), (feature, name)
            if feature not in cameras:
                np.testing.assert_allclose(found[feature][name], statistics[name], rtol=1e-4)
        if feature in cameras:
            # Of a sample of frames that were coded again.
            np.testing.assert_allclose(found[feature]["mean"], statistics["mean"], atol=0.02)


def test_missing_statistics_are_computed(v21, tmp_path):
    expected = convert(v21, tmp_path / "with")
    edit_json_lines(
        v21 / "meta/episodes_stats.jsonl",
        lambda row: row if row["episode_index"] != 1 else {**row, "stats": {}},
    )
    cameras = read_dataset(v21, "d").cameras
    assert_statistics_are_close(convert(v21, tmp_path / "some"), expected, cameras)
    (v21 / "meta/episodes_stats.jsonl").unlink()
    assert_statistics_are_close(convert(v21, tmp_path / "none"), expected, cameras)


def test_camera_statistics_of_different_shapes_become_one(v21, tmp_path):
    expected = convert(v21, tmp_path / "equal")
    cameras = read_dataset(v21, "d").cameras

    def flat(row):
        for camera in cameras:
            for name, value in row["stats"][camera].items():
                if row["episode_index"] == 2 and name != "count":
                    row["stats"][camera][name] = np.ravel(value).tolist()
        return row

    before = [episode.fingerprint for episode in read_dataset(v21, "d").episodes]
    edit_json_lines(v21 / "meta/episodes_stats.jsonl", flat)
    assert convert(v21, tmp_path / "mixed") == expected
    assert [episode.fingerprint for episode in read_dataset(v21, "d").episodes] == before


def test_missing_path_templates_are_those_of_the_format(v21, tmp_path):
    info = json.loads((v21 / "meta/info.json").read_text())
    for key in ("data_path", "video_path", "chunks_size"):
        info.pop(key, None)
    (v21 / "meta/info.json").write_text(json.dumps(info))
    convert(v21, tmp_path)
    finished = json.loads((tmp_path / "annotated/meta/info.json").read_text())
    assert finished["video_path"].startswith("videos/{video_key}/chunk-")
    assert finished["data_path"].startswith("data/chunk-")
