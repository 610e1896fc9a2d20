"""Reading a dataset's metadata."""

import json
import shutil
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from split_dataset import split_dataset

from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError
from cuesheet.text import describe_range

FRONT, WRIST = "observation.images.front", "observation.images.wrist"


@pytest.fixture
def copied(demo_v3: Path, tmp_path: Path) -> Path:
    root = tmp_path / "copied"
    shutil.copytree(demo_v3, root)
    return root


def edit_info(root: Path, **changes) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            info.pop(key)
        else:
            info[key] = value
    path.write_text(json.dumps(info))


def edit_episodes(root: Path, change) -> None:
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def replaced(table: pa.Table, column: str, row: int, value) -> pa.Table:
    values = table.column(column).to_pylist()
    values[row] = value
    at = table.schema.get_field_index(column)
    return table.set_column(
        at, table.schema.field(at), pa.array(values, table.schema.field(at).type)
    )


def fingerprints(root: Path) -> dict[int, str]:
    return {e.episode_index: e.fingerprint for e in read_dataset(root, "d").episodes}


def test_demo_dataset_is_read_as_its_files_say(demo_v3):
    dataset = read_dataset(demo_v3, "demo_v3")
    assert dataset.fps == 10
    assert list(dataset.cameras) == [FRONT, WRIST]
    assert dataset.camera(FRONT).width == dataset.camera(FRONT).height == 224
    assert [e.length for e in dataset.episodes] == [75, 46, 76, 72]
    assert dataset.episode(0).task == "Pick and place a puck to a goal"
    third = dataset.episode(3)
    assert third.data_file == "data/chunk-000/file-000.parquet"
    assert (third.dataset_from_index, third.dataset_to_index) == (197, 269)
    assert third.videos[FRONT].from_s == pytest.approx(19.7)
    assert third.videos[WRIST].file == f"videos/{WRIST}/chunk-000/file-000.mp4"


def test_demo_dataset_is_what_its_ground_truth_says(demo_v3, ground_truth):
    dataset = read_dataset(demo_v3, "demo_v3")
    truth = ground_truth("demo_v3")
    assert dataset.fps == truth["fps"]
    assert [e.length for e in dataset.episodes] == [e["n_frames"] for e in truth["episodes"]]
    assert [e.task for e in dataset.episodes] == [e["task"] for e in truth["episodes"]]


def test_episodes_are_grouped_by_data_file_in_frame_order(demo_v3, tmp_path):
    dataset = read_dataset(split_dataset(demo_v3, tmp_path / "split_v3"), "split")
    groups = {f: [e.episode_index for e in es] for f, es in dataset.data_files.items()}
    assert groups == {
        "data/chunk-000/file-000.parquet": [0, 1, 2, 3, 4],
        "data/chunk-000/file-001.parquet": [5, 6, 7, 8],
        "data/chunk-000/file-002.parquet": [9, 10, 11],
    }


def test_fingerprints_differ_between_episodes_and_stay_when_episodes_are_appended(copied):
    before = fingerprints(copied)
    assert len(set(before.values())) == 4

    def append(table):
        new = replaced(table.slice(3, 1), "episode_index", 0, 4)
        new = replaced(new, "length", 0, 10)
        return pa.concat_tables([table, new])

    edit_episodes(copied, append)
    after = fingerprints(copied)
    assert {index: after[index] for index in before} == before
    assert after[4] not in before.values()


def test_fingerprints_do_not_depend_on_places_in_files(copied):
    before = fingerprints(copied)
    edit_episodes(copied, lambda t: replaced(t, "data/file_index", 3, 7))
    edit_episodes(copied, lambda t: replaced(t, f"videos/{FRONT}/from_timestamp", 2, 99.0))
    edit_episodes(copied, lambda t: replaced(t, "dataset_from_index", 1, 1000))
    edit_episodes(copied, lambda t: t.take([3, 1, 0, 2]))
    assert fingerprints(copied) == before


@pytest.mark.parametrize(
    ("column", "value"),
    [("length", 71), ("tasks", ["Do something else"]), ("stats/action/mean", [0.5, 0, 0, 0])],
)
def test_a_rerecorded_episode_changes_its_fingerprint_alone(copied, column, value):
    before = fingerprints(copied)
    edit_episodes(copied, lambda t: replaced(t, column, 3, value))
    changed = {index for index, value in fingerprints(copied).items() if value != before[index]}
    assert changed == {3}


def test_missing_statistics_of_one_episode_leave_the_others_fingerprints(copied):
    before = fingerprints(copied)
    edit_episodes(copied, lambda t: replaced(t, "stats/action/mean", 1, None))
    changed = {index for index, value in fingerprints(copied).items() if value != before[index]}
    assert changed == {1}


@pytest.mark.parametrize(
    ("key", "shape", "told", "left_out"),
    [
        ("observation.depth.top", [8, 8, 1], {}, True),
        ("observation.depth.top", [1, 8, 8], {}, True),
        ("observation.depth.top", [8, 8, 1], {"is_depth_map": False}, False),
        ("observation.depth.top", [8, 8, 3], {}, False),
        ("observation.images.gray", [8, 8, 1], {}, False),
    ],
)
def test_images_of_one_channel_that_are_called_depth_are_depth(copied, key, shape, told, left_out):
    info = json.loads((copied / "meta/info.json").read_text())
    info["features"][key] = {"dtype": "image", "shape": shape, "names": None, "info": told}
    (copied / "meta/info.json").write_text(json.dumps(info))
    dataset = read_dataset(copied, "d")
    assert (key in dataset.excluded_cameras, key in dataset.cameras) == (left_out, not left_out)


def test_depth_cameras_are_left_out_with_a_notice(copied):
    info = json.loads((copied / "meta/info.json").read_text())
    info["features"][WRIST]["info"]["video.is_depth_map"] = True
    (copied / "meta/info.json").write_text(json.dumps(info))
    dataset = read_dataset(copied, "d")
    assert list(dataset.cameras) == [FRONT]
    assert any(WRIST in notice and "depth" in notice for notice in dataset.notices)


def test_excluded_cameras_stay_in_the_dataset(copied):
    whole = read_dataset(copied, "d")
    seen = whole.with_cameras([WRIST])
    assert list(seen.cameras) == [WRIST]
    assert list(seen.excluded_cameras) == [FRONT]
    assert list(seen.episode(1).videos) == [WRIST]
    assert seen.files_of([1]).keys() < whole.files_of([1]).keys()
    assert seen.files_of([1], include_excluded=True) == whole.files_of([1])


def test_image_cameras_have_no_video(copied):
    info = json.loads((copied / "meta/info.json").read_text())
    info["features"]["side"] = {"dtype": "image", "shape": [3, 48, 64], "names": None}
    (copied / "meta/info.json").write_text(json.dumps(info))
    dataset = read_dataset(copied, "d")
    camera = dataset.camera("side")
    assert (camera.kind, camera.width, camera.height) == ("image", 64, 48)
    assert "side" not in dataset.episode(0).videos


@pytest.mark.parametrize("version", ["v1.6", "v2.0", "latest"])
def test_an_older_format_version_is_rejected_by_name(copied, version):
    edit_info(copied, codebase_version=version)
    with pytest.raises(CuesheetError, match=rf"{version}.*supported: v3\.0"):
        read_dataset(copied, "d")


@pytest.mark.parametrize("version", ["3.0", "v3.1", "v9.0"])
def test_a_newer_version_with_the_same_layout_is_read_with_a_notice(copied, version):
    edit_info(copied, codebase_version=version)
    dataset = read_dataset(copied, "d")
    assert len(dataset.episodes) == 4
    assert any(version in notice for notice in dataset.notices)


def set_episodes(copied, name, values):
    path = copied / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index(name), name, values), path)


def test_tasks_come_from_task_index_if_the_episodes_do_not_name_them(copied):
    expected = [episode.tasks for episode in read_dataset(copied, "d").episodes]
    path = copied / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path).drop_columns(["tasks"])
    pq.write_table(table, path)
    assert [episode.tasks for episode in read_dataset(copied, "d").episodes] == expected
    statistics = [name for name in table.column_names if name.startswith("stats/task_index/")]
    pq.write_table(table.drop_columns(statistics), path)
    assert [episode.tasks for episode in read_dataset(copied, "d").episodes] == expected


def test_several_tasks_of_an_episode_are_a_notice_that_names_them(copied):
    set_episodes(copied, "tasks", pa.array([["lift", "place"], ["a"], ["b"], ["c"]]))
    dataset = read_dataset(copied, "d")
    assert dataset.episodes[0].tasks == ("lift", "place")
    assert any("'lift', 'place'" in notice for notice in dataset.notices)


def test_a_camera_that_some_episodes_lack_is_left_out_there(copied):
    path = copied / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    for name in table.column_names:
        if name.startswith("videos/observation.images.wrist/"):
            values = table[name].to_pylist()
            values[1] = None
            set_episodes(copied, name, pa.array(values, table[name].type))
    episodes = read_dataset(copied, "d").episodes
    assert ["observation.images.wrist" in e.videos for e in episodes] == [True, False, True, True]


def test_a_depth_camera_that_some_episodes_lack_is_carried_over_from_the_others(copied):
    info = json.loads((copied / "meta/info.json").read_text())
    info["features"][WRIST]["info"]["video.is_depth_map"] = True
    edit_info(copied, features=info["features"])
    path = copied / "meta/episodes/chunk-000/file-000.parquet"
    for name in pq.read_schema(path).names:
        if name.startswith(f"videos/{WRIST}/"):
            column = pq.read_table(path)[name]
            set_episodes(copied, name, pa.array([None, *column.to_pylist()[1:]], column.type))
    dataset = read_dataset(copied, "d")
    assert list(dataset.cameras) == [FRONT]
    carried = [WRIST in episode.excluded_videos for episode in dataset.episodes]
    assert carried == [False, True, True, True]


@pytest.mark.parametrize(
    ("task", "read"),
    [("lift\x1b[31m the\x00 cup", "lift [31m the cup"), ("a " * 400_000, None)],
    ids=["control characters", "very long"],
)
def test_the_text_of_a_task_is_cleaned_and_bounded(copied, task, read):
    set_episodes(copied, "tasks", pa.array([[task]] * 4))
    found = read_dataset(copied, "d").episodes[0].task
    assert len(found) <= 500
    assert read is None or found == read


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": {"cam/era": {"dtype": "video", "shape": [1, 1, 3]}}}, "slashes"),
        ({"features": {"cam{x}": {"dtype": "video", "shape": [1, 1, 3]}}}, "braces"),
        ({"features": {"cam": {"dtype": "video", "shape": ["a", 2, 3]}}}, "shape of cam"),
        ({"features": {"cam": "video"}}, "feature 'cam'"),
        ({"data_path": "rows/file-{file_index:03d}.parquet"}, "starts with data/"),
        ({"data_path": "data/{nothing}.parquet"}, "which has the field"),
        ({"data_path": "data/{file_index:0999999999d}.parquet"}, "at most two digits"),
        ({"data_path": "data/{file_index.real.x}.parquet"}, "which has the field"),
        ({"data_path": "../data/{file_index}.parquet"}, "leads out of"),
        ({"fps": 0}, "fps = .*expected a number above 0"),
        ({"fps": -1}, "fps = .*expected a number above 0"),
        ({"fps": "10"}, "fps = .*expected a number above 0"),
        ({"fps": True}, "fps = .*expected a number above 0"),
        ({"data_path": "/etc/{chunk_index}/{file_index}"}, "leads out of"),
    ],
)
def test_malformed_metadata_is_one_line(copied, change, said):
    edit_info(copied, **change)
    with pytest.raises(CuesheetError, match=said) as caught:
        read_dataset(copied, "d")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [-1, 0.5, float("nan"), "x"])
def test_an_episode_number_that_is_not_a_whole_number_is_one_line(copied, value):
    set_episodes(copied, "episode_index", pa.array([value] * 4))
    with pytest.raises(CuesheetError, match=r"episode_index.*expected a whole number"):
        read_dataset(copied, "d")


def test_a_byte_order_mark_is_accepted(copied):
    path = copied / "meta/info.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_dataset(copied, "d").episodes) == 4


def test_metadata_without_any_episode_is_one_line(copied):
    path = copied / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(CuesheetError, match="lists no episode"):
        read_dataset(copied, "d")


@pytest.mark.parametrize("key", ["fps", "features", "codebase_version"])
def test_a_missing_key_is_named(copied, key):
    edit_info(copied, **{key: None})
    with pytest.raises(CuesheetError, match=key):
        read_dataset(copied, "d")


def test_wrong_places_say_what_was_expected(copied, tmp_path):
    with pytest.raises(CuesheetError, match="does not exist"):
        read_dataset(tmp_path / "absent", "d")
    with pytest.raises(CuesheetError, match="is a file"):
        read_dataset(copied / "meta/info.json", "d")
    with pytest.raises(CuesheetError, match=r"not a LeRobot dataset.*Did you mean .*copied"):
        read_dataset(tmp_path, "d")


def test_broken_metadata_names_the_file(copied):
    (copied / "meta/info.json").write_text('{"fps": 10,')
    with pytest.raises(CuesheetError, match=r"info\.json is not valid JSON"):
        read_dataset(copied, "d")


def test_broken_episode_metadata_names_the_file(copied):
    path = copied / "meta/episodes/chunk-000/file-000.parquet"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CuesheetError, match=r"file-000\.parquet is not a readable parquet"):
        read_dataset(copied, "d")
    path.unlink()
    with pytest.raises(CuesheetError, match="no parquet file"):
        read_dataset(copied, "d")


def test_a_broken_table_of_tasks_is_named_although_the_episodes_name_their_tasks(copied):
    (copied / "meta/tasks.parquet").write_bytes(b"garbage\n")
    with pytest.raises(CuesheetError, match=r"tasks\.parquet is not a readable parquet.*again\."):
        read_dataset(copied, "d")


def test_a_missing_column_is_named(copied):
    edit_episodes(copied, lambda t: t.drop_columns(["dataset_to_index"]))
    with pytest.raises(CuesheetError, match="no column 'dataset_to_index'"):
        read_dataset(copied, "d")


def test_an_episode_listed_twice_is_refused(copied):
    edit_episodes(copied, lambda t: replaced(t, "episode_index", 3, 2))
    with pytest.raises(CuesheetError, match=r"episode 2 .*twice"):
        read_dataset(copied, "d")


def test_wrong_camera_and_episode_name_the_right_ones(demo_v3):
    dataset = read_dataset(demo_v3, "demo_v3")
    with pytest.raises(CuesheetError, match=f"Did you mean '{WRIST}'"):
        dataset.camera("observation.image.wrist")
    with pytest.raises(CuesheetError, match=f"Did you mean '{FRONT}'"):
        dataset.camera("front")
    with pytest.raises(CuesheetError, match=r"no episode 4.*episodes 0 to 3"):
        dataset.episode(4)


def test_ranges_of_episodes_in_words():
    assert describe_range([3, 1, 2]) == "episodes 1 to 3"
    assert describe_range([5]) == "episode 5"
    assert describe_range([0, 1, 4]) == "episodes 0-1, 4"
    assert describe_range([]) == "no episodes"


def with_tasks(root: Path, tasks: list) -> tuple[tuple[str, ...], ...]:
    def change(table: pa.Table) -> pa.Table:
        position = table.schema.get_field_index("tasks")
        return table.set_column(position, "tasks", pa.array([tasks] * len(table)))

    edit_episodes(root, change)
    return tuple(episode.tasks for episode in read_dataset(root, "d").episodes)


def test_empty_tasks_are_those_of_the_frames(copied, demo_v3):
    named = tuple(episode.tasks for episode in read_dataset(demo_v3, "d").episodes)
    for empty in ([""], [None], [" \n"]):
        assert with_tasks(copied, empty) == named


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"task": "pick it", "id": 3}, "pick it"),
        (b"pick it", "pick it"),
        ("7 cups", "7 cups"),
        ("99", "99"),
    ],
)
def test_tasks_in_other_forms_are_their_text(copied, task, expected):
    assert set(with_tasks(copied, [task])) == {(expected,)}


@pytest.mark.parametrize("number", [0, 0.0, "0"])
def test_a_task_that_is_a_number_is_looked_up(copied, demo_v3, number):
    table = pq.read_table(demo_v3 / "meta/tasks.parquet").to_pylist()
    first = next(row["__index_level_0__"] for row in table if row["task_index"] == 0)
    assert set(with_tasks(copied, [number])) == {(first,)}


def test_a_number_that_no_table_has_gives_way_to_the_task_of_the_frames(copied, demo_v3):
    named = tuple(episode.tasks for episode in read_dataset(demo_v3, "d").episodes)
    assert with_tasks(copied, [99]) == named


def test_further_columns_of_the_task_table_do_not_matter(copied):
    path = copied / "meta/tasks.parquet"
    tasks = pq.read_table(path)
    pq.write_table(tasks.append_column("category", pa.array(["x"] * len(tasks))), path)
    edit_episodes(copied, lambda table: table.drop_columns(["tasks"]))
    assert all(episode.task not in ("", "x") for episode in read_dataset(copied, "d").episodes)


def test_hidden_files_beside_the_metadata_are_ignored(copied):
    (copied / "meta/episodes/chunk-000/._file-000.parquet").write_bytes(b"\x00\x05\x16\x07")
    assert len(read_dataset(copied, "d").episodes) == 4


def test_a_number_that_json_does_not_have_is_reported(copied):
    path = copied / "meta/info.json"
    path.write_text(path.read_text().rstrip()[:-1] + ', "scale": NaN}')
    with pytest.raises(CuesheetError, match="NaN or Infinity"):
        read_dataset(copied, "d")


def test_metadata_of_episodes_without_chunk_folders_is_read(copied, demo_v3):
    folder = copied / "meta/episodes"
    shutil.move(folder / "chunk-000/file-000.parquet", folder / "file-000.parquet")
    (folder / "chunk-000").rmdir()
    dataset = read_dataset(copied, "d")
    assert dataset.episodes == read_dataset(demo_v3, "d").episodes
    assert "the files of meta/episodes are not in chunk folders" in dataset.notices[0]


def test_numbers_as_text_in_the_metadata_of_episodes_are_read(copied, demo_v3):
    original = read_dataset(demo_v3, "d")

    def as_text(table: pa.Table) -> pa.Table:
        for column in ("episode_index", "length", "data/chunk_index"):
            values = [f"{value:03d}" for value in table.column(column).to_pylist()]
            at = table.schema.get_field_index(column)
            table = table.set_column(at, column, pa.array(values))
        unused = [c for c in table.column_names if c == "tasks" or c.startswith("stats/task_index")]
        return table.drop_columns(unused)

    edit_episodes(copied, as_text)
    assert [
        (e.episode_index, e.length, e.data_file, e.task) for e in read_dataset(copied, "d").episodes
    ] == [(e.episode_index, e.length, e.data_file, e.task) for e in original.episodes]


@pytest.mark.parametrize("form", [str, lambda value: [value], lambda value: Decimal(str(value))])
def test_times_in_other_forms_in_the_metadata_of_episodes_are_read(copied, demo_v3, form):
    def changed(table: pa.Table) -> pa.Table:
        for column in (f"videos/{FRONT}/from_timestamp", f"videos/{FRONT}/to_timestamp", "length"):
            values = [form(value) for value in table.column(column).to_pylist()]
            at = table.schema.get_field_index(column)
            table = table.set_column(at, column, pa.array(values))
        return table

    edit_episodes(copied, changed)
    found, expected = read_dataset(copied, "d").episodes, read_dataset(demo_v3, "d").episodes
    assert [(e.length, e.videos[FRONT]) for e in found] == [
        (e.length, e.videos[FRONT]) for e in expected
    ]


def test_a_version_without_a_minor_number_is_read(copied):
    edit_info(copied, codebase_version="v3")
    dataset = read_dataset(copied, "d")
    assert dataset.version == "v3.0"
    assert "says format 'v3', which is read as v3.0" in dataset.notices[0]
