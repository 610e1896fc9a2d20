"""The index of consistent files, and its errors, which name file and episode."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_variants import add_depth_images

from cuesheet.artifacts.index import SCHEMA, read_indexed_episode
from cuesheet.dataset.index import build_index, write_index
from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
FRONT = "observation.images.front"
VIDEO = f"videos/{FRONT}/chunk-000/file-000.mp4"


@pytest.fixture
def copied(demo_v3: Path, tmp_path: Path) -> Path:
    root = tmp_path / "copied"
    shutil.copytree(demo_v3, root)
    return root


def set_values(path: Path, column: str, values: dict[int, object]) -> None:
    """Overwrites some values of a column of a parquet file."""
    table = pq.read_table(path)
    at = table.schema.get_field_index(column)
    column_values = table.column(column).to_pylist()
    for row, value in values.items():
        column_values[row] = value
    field = table.schema.field(at)
    pq.write_table(table.set_column(at, field, pa.array(column_values, field.type)), path)


def problems(root: Path) -> str:
    with pytest.raises(CuesheetError) as caught:
        build_index(read_dataset(root, "demo"))
    return str(caught.value)


@pytest.mark.parametrize("name", ["demo_v3", "dev_v3"])
def test_index_rows_are_the_episodes_rows_of_the_data_files(name, request, tmp_path):
    root = request.getfixturevalue(name)
    table, notices = build_index(read_dataset(root, name))
    assert notices == []
    write_index(table, tmp_path / "episodes.parquet")
    assert pq.read_schema(tmp_path / "episodes.parquet").equals(SCHEMA)
    for number in range(table.num_rows):
        episode = read_indexed_episode(tmp_path / "episodes.parquet", number)
        frames = pq.read_table(root / episode.data_file).slice(
            episode.row_from, episode.row_to - episode.row_from
        )
        assert set(frames.column("episode_index").to_pylist()) == {number}
        assert frames.column("timestamp").to_pylist() == episode.timestamps
        assert len(episode.timestamps) == episode.length


def test_index_knows_size_and_coding_of_the_videos(dev_v3):
    table, _ = build_index(read_dataset(dev_v3, "dev_v3"))
    for cameras in table.column("cameras").to_pylist():
        for camera in cameras:
            with av.open(str(dev_v3 / camera["file"])) as container:
                stream = container.streams.video[0]
                assert (camera["width"], camera["height"]) == (stream.width, stream.height)
            assert camera["codec"] == "av1"


def test_row_groups_hold_64_episodes(demo_v3, tmp_path):
    table, _ = build_index(read_dataset(demo_v3, "demo"))
    many = pa.concat_tables([table] * 40)
    numbers = pa.array(np.arange(160), pa.int64())
    many = many.set_column(0, SCHEMA.field(0), numbers)
    write_index(many, tmp_path / "episodes.parquet")
    file = pq.ParquetFile(tmp_path / "episodes.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [64, 64, 32]
    assert read_indexed_episode(tmp_path / "episodes.parquet", 130).length == 76
    with pytest.raises(CuesheetError, match="no episode 160"):
        read_indexed_episode(tmp_path / "episodes.parquet", 160)


def test_missing_files_are_named_with_their_episodes(copied):
    (copied / DATA).unlink()
    (copied / VIDEO).unlink()
    text = problems(copied)
    assert f"{DATA}: the file is missing (episodes 0, 1, 2, 3)" in text
    assert f"{VIDEO}: the file is missing (episodes 0, 1, 2, 3)" in text
    assert "2 problems" in text


def test_truncated_data_file_is_named(copied):
    path = copied / DATA
    path.write_bytes(path.read_bytes()[:3000])
    assert f"{DATA}: the parquet file cannot be read" in problems(copied)


def test_truncated_video_is_named(copied):
    path = copied / VIDEO
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert f"{VIDEO}" in problems(copied)


def test_a_count_that_disagrees_names_file_and_episode(copied):
    table = pq.read_table(copied / DATA)
    pq.write_table(table.slice(0, table.num_rows - 2), copied / DATA)
    text = problems(copied)
    assert f"episode 3, {DATA}: the metadata says 72 frames; the file has 70" in text


def test_missing_rows_of_a_whole_episode_are_named(copied):
    table = pq.read_table(copied / DATA)
    pq.write_table(table.slice(0, 197), copied / DATA)
    assert f"episode 3, {DATA}: the file has no rows" in problems(copied)


RANGE = f"videos/{FRONT}"


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        (DATA, {"timestamp": {80: float("nan")}}, f"1, {DATA}: frame 5 has the timestamp nan"),
        (DATA, {"timestamp": {80: float("inf")}}, f"1, {DATA}: frame 5 has the timestamp inf"),
        (DATA, {"timestamp": {80: 0.4}}, f"1, {DATA}: timestamps do not increase: frame 4"),
        (DATA, {"timestamp": {80: 0.1}}, f"1, {DATA}: timestamps do not increase: frame 4"),
        (DATA, {"frame_index": {82: 8}}, f"1, {DATA}: row 7 of it has frame_index 8; expected 7"),
        (
            DATA,
            {"episode_index": dict.fromkeys(range(75, 121), 9)},
            f"1, {DATA}: the file has no rows",
        ),
        (
            EPISODES,
            {f"{RANGE}/to_timestamp": {2: 19.3}},
            f"2, {VIDEO}: the episode has 76 frames, but the video has 72",
        ),
        (
            EPISODES,
            {f"{RANGE}/from_timestamp": {2: 11.5}},
            f"2, {VIDEO}: starts at 11.500000 s, inside the range of episode 1",
        ),
        (
            EPISODES,
            {"dataset_from_index": {2: 120}, "dataset_to_index": {2: 196}},
            "2, meta/episodes: starts at frame 120",
        ),
    ],
)
def test_what_disagrees_is_named_with_episode_and_file(copied, file, changes, said):
    for column, values in changes.items():
        set_values(copied / file, column, values)
    assert f"episode {said}" in problems(copied)


def test_a_video_that_ends_early_is_named(copied):
    for column, add in (("from_timestamp", 0.5), ("to_timestamp", 0.5)):
        values = pq.read_table(copied / EPISODES).column(f"videos/{FRONT}/{column}").to_pylist()
        set_values(copied / EPISODES, f"videos/{FRONT}/{column}", {3: values[3] + add})
    assert f"episode 3, {VIDEO}: the episode has 72 frames, but" in problems(copied)


def test_half_a_frame_of_drift_in_a_range_is_accepted(copied):
    set_values(copied / EPISODES, f"videos/{FRONT}/from_timestamp", {3: 19.74})
    set_values(copied / EPISODES, f"videos/{FRONT}/to_timestamp", {3: 26.94})
    table, _ = build_index(read_dataset(copied, "demo"))
    assert table.num_rows == 4


def set_column(path, name, values):
    table = pq.read_table(path)
    position = table.column_names.index(name)
    pq.write_table(table.set_column(position, name, values), path)


def set_info(copied, **values):
    path = copied / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_totals_that_disagree_are_a_notice(copied):
    set_info(copied, total_frames=270)
    table, notices = build_index(read_dataset(copied, "demo"))
    assert table.num_rows == 4
    assert any("total_frames = 270" in notice and "269" in notice for notice in notices)


@pytest.mark.parametrize("total", ["269", 269.0])
def test_totals_as_text_or_float_are_accepted(copied, total):
    set_info(copied, total_frames=total)
    assert build_index(read_dataset(copied, "demo"))[1] == []


def test_rows_that_the_metadata_does_not_describe_are_a_notice(copied):
    table = pq.read_table(copied / DATA)
    position = table.column_names.index("episode_index")
    rest = table.slice(0, 5).set_column(position, "episode_index", pa.array([7] * 5))
    pq.write_table(pa.concat_tables([table, rest]), copied / DATA)
    index, notices = build_index(read_dataset(copied, "demo"))
    assert index.num_rows == 4
    assert any("rows of episode 7" in notice for notice in notices)


def test_columns_of_lists_with_one_number_are_read_as_numbers(copied):
    plain, _ = build_index(read_dataset(copied, "demo"))
    for name in ("timestamp", "frame_index", "episode_index"):
        column = pq.read_table(copied / DATA, columns=[name]).column(0)
        values = [[value] for value in column.to_pylist()]
        set_column(copied / DATA, name, pa.array(values, pa.list_(column.type)))
    lists, _ = build_index(read_dataset(copied, "demo"))
    assert lists.equals(plain)


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_whole_numbers_that_are_stored_as_floats_are_read_as_whole_numbers(copied, kind):
    plain, _ = build_index(read_dataset(copied, "demo"))
    for name in ("frame_index", "episode_index"):
        column = pq.read_table(copied / DATA, columns=[name]).column(0)
        set_column(copied / DATA, name, column.combine_chunks().cast(kind))
    floats, _ = build_index(read_dataset(copied, "demo"))
    assert floats.equals(plain)


@pytest.mark.parametrize("damage", ["missing", "wrong rate"])
def test_a_camera_that_is_not_in_use_is_not_checked(copied, damage):
    wrist = "observation.images.wrist"
    dataset = read_dataset(copied, "demo").with_cameras([FRONT])
    plain, notices = build_index(dataset)
    assert notices == []
    video = copied / f"videos/{wrist}/chunk-000/file-000.mp4"
    if damage == "missing":
        video.unlink()
    else:
        path = copied / EPISODES
        last = f"videos/{wrist}/to_timestamp"
        set_values(path, last, {0: 1.0})
    found, notices = build_index(read_dataset(copied, "demo").with_cameras([FRONT]))
    assert notices == []
    assert found.equals(plain)
    with pytest.raises(CuesheetError, match=wrist):
        build_index(read_dataset(copied, "demo"))


def test_timestamps_that_continue_across_episodes_are_taken_from_each_start(copied):
    plain, _ = build_index(read_dataset(copied, "demo"))
    rows = pq.read_metadata(copied / DATA).num_rows
    times = pa.array([row / 10 for row in range(rows)], pa.float32())
    set_column(copied / DATA, "timestamp", times)
    table, notices = build_index(read_dataset(copied, "demo"))
    assert table.equals(plain)
    assert [notice for notice in notices if "episodes 1 to 3 do not start at 0" in notice]


def test_timestamps_that_float32_cannot_tell_apart_are_rejected_by_name(copied):
    frame = pq.read_table(copied / DATA)["frame_index"].to_numpy()
    set_column(copied / DATA, "timestamp", pa.array(1.7e9 + frame / 10, pa.float64()))
    text = problems(copied)
    assert f"episode 0, {DATA}: its timestamps start at 1.7e+09 s" in text
    assert "subtract the first timestamp of each episode" in text


def test_timestamps_of_a_wall_clock_are_a_notice(copied):
    frame = pq.read_table(copied / DATA)["frame_index"].to_numpy()
    draw = np.random.default_rng(0)
    times = frame / 10 + np.where(frame > 0, draw.uniform(-0.04, 0.04, len(frame)), 0)
    set_column(copied / DATA, "timestamp", pa.array(times, pa.float32()))
    _, notices = build_index(read_dataset(copied, "demo"))
    assert [notice for notice in notices if "not evenly spaced" in notice]


def test_an_fps_that_contradicts_the_timestamps_is_a_notice(copied):
    set_info(copied, fps=10.5)
    _, notices = build_index(read_dataset(copied, "demo"))
    assert any("10.5 frames per second; the timestamps say 10" in notice for notice in notices)


def test_all_problems_come_together_and_the_list_is_bounded(copied):
    set_values(copied / DATA, "timestamp", {5: float("nan")})
    set_values(copied / DATA, "frame_index", {80: 0})
    (copied / VIDEO).unlink()
    text = problems(copied)
    assert "3 problems" in text
    assert "episode 0," in text
    assert "episode 1," in text
    assert VIDEO in text
    assert len(text.splitlines()) < 40


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (1e3, "its timestamps seem to be in milliseconds; expected seconds"),
        (1e9, "its timestamps seem to be in nanoseconds; expected seconds"),
        (2.5, "its timestamps span 18.5 s, but its range of the video 7.5 s"),
    ],
)
def test_timestamps_of_another_unit_or_pace_are_reported(copied, factor, words):
    table = pq.read_table(copied / DATA)
    at = table.schema.get_field_index("timestamp")
    times = pa.array(np.array(table["timestamp"], np.float64) * factor)
    pq.write_table(table.set_column(at, "timestamp", times), copied / DATA)
    message = problems(copied)
    assert f"episode 0, {DATA}: {words}" in message
    assert ("Correct `fps`" in message) == (factor == 2.5)


def test_images_stored_as_pixels_are_reported(copied):
    info = json.loads((copied / "meta/info.json").read_text())
    info["features"]["pixels"] = {"dtype": "image", "shape": [1, 1, 3]}
    (copied / "meta/info.json").write_text(json.dumps(info))
    table = pq.read_table(copied / DATA)
    pixels = pa.array([[[[1, 2, 3]]]] * len(table))
    pq.write_table(table.append_column("pixels", pixels), copied / DATA)
    assert f"{DATA}: the images of pixels are stored as list<" in problems(copied)


def test_an_image_that_cannot_be_used_is_reported_before_anything_is_decoded(copied):
    add_depth_images(copied, "observation.images.top")
    (message,) = [line for line in problems(copied).splitlines() if DATA in line]
    assert f"episode 0, {DATA}: camera observation.images.top: frame 0 is an image of" in message
    assert "`cameras`" in message


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize("file", [DATA, VIDEO, EPISODES, "meta/info.json"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (POINTER, "Git LFS pointer in place of the file (run git lfs pull in the dataset)"),
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>404</html>", "it is a web page"),
    ],
    ids=["pointer", "empty", "web page"],
)
def test_a_file_that_was_not_downloaded_is_named_as_what_it_is(copied, file, content, said):
    (copied / file).write_bytes(content)
    with pytest.raises(CuesheetError) as caught:
        build_index(read_dataset(copied, "d"))
    assert said in str(caught.value)
    assert file in str(caught.value)


@pytest.mark.parametrize("file", [DATA, VIDEO])
def test_a_link_to_a_file_that_is_missing_is_named(copied, file):
    (copied / file).unlink()
    (copied / file).symlink_to("../.git/annex/objects/x")
    with pytest.raises(CuesheetError, match="a link whose target is missing"):
        build_index(read_dataset(copied, "d"))
