"""Datasets of format v2.1: read, and converted to v3.0."""

import json
import shutil

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from dataset_variants import DATA, as_v21, copy, cut_frames, keep_episodes, remove_cameras
from media_sources import say  # noqa: F401 - a fixture

from cuesheet.assemble.convert_v21 import convert_dataset
from cuesheet.assemble.merge import EpisodeRows, merge_file
from cuesheet.assemble.verify import check_dataset
from cuesheet.dataset.index import build_index
from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError

FRONT, WRIST = "observation.images.front", "observation.images.wrist"


@pytest.fixture
def v21(demo_v21, tmp_path):
    return shutil.copytree(demo_v21, tmp_path / "demo_v21")


def decoded(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_the_metadata_says_the_same_as_that_of_v30(demo_v21, demo_v3):
    old, new = read_dataset(demo_v21, "d"), read_dataset(demo_v3, "d")
    assert old.version == "v2.1"
    for ours, theirs in zip(old.episodes, new.episodes, strict=True):
        for name in ("episode_index", "tasks", "length", "dataset_from_index", "fingerprint"):
            assert getattr(ours, name) == getattr(theirs, name)
    assert old.episode(2).data_file == "data/chunk-000/episode_000002.parquet"
    assert old.episode(2).videos[FRONT].file == f"videos/chunk-000/{FRONT}/episode_000002.mp4"


def test_it_is_indexed_and_checked(v21):
    table, notices = build_index(read_dataset(v21, "d"))
    assert table.num_rows == 4
    assert notices == []
    (v21 / f"videos/chunk-000/{FRONT}/episode_000003.mp4").write_bytes(b"")
    with pytest.raises(CuesheetError, match=r"episode_000003.mp4: the video cannot be read"):
        build_index(read_dataset(v21, "d"))


def test_chunks_hold_so_many_episodes_as_the_info_says(v21):
    info = json.loads((v21 / "meta/info.json").read_text()) | {"chunks_size": 2}
    (v21 / "meta/info.json").write_text(json.dumps(info))
    assert read_dataset(v21, "d").episode(3).data_file == "data/chunk-001/episode_000003.parquet"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is missing; every dataset of format v2.1 has it"),
        ('{"episode_index": 0, "length": 3}\n{"episo', "line 2, is not valid JSON"),
        ('{"length": 3}\n', "line 1: 'episode_index' is None"),
        ('{"episode_index": 0, "tasks": ["a"]}\n', "has no 'length' for episode 0"),
        ('{"episode_index": 0, "length": 3}\n' * 2, "episode 0 is in the metadata twice"),
    ],
)
def test_broken_metadata_is_named(v21, text, said):
    path = v21 / "meta/episodes.jsonl"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(CuesheetError, match=said):
        read_dataset(v21, "d")


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1", "libvpx-vp9", "libx265"])
def test_laid_out_again_every_frame_is_at_the_place_in_the_metadata(demo_v3, tmp_path, codec, say):  # noqa: F811
    original = copy(demo_v3, tmp_path / "original")
    keep_episodes(original, 2)
    root = as_v21(original, tmp_path / "source", codec)
    source = read_dataset(root, "d")
    subtask = {"role": "assistant", "content": "push", "style": "subtask", "timestamp": 0.0}
    rows = EpisodeRows([{**subtask, "camera": None, "tool_calls": None}], [])
    for episode in source.episodes:
        target = tmp_path / "merged" / episode.data_file
        lengths = {episode.episode_index: episode.length}
        merge_file(root / episode.data_file, target, lambda _: rows, lengths)
    annotated = tmp_path / "results" / "annotated"
    convert_dataset(source, tmp_path / "merged", annotated)
    check_dataset(source, annotated)
    finished = read_dataset(annotated, "d")
    compared = wrong = 0
    for camera in finished.cameras:
        file = finished.episode(0).videos[camera].file
        assert {e.videos[camera].file for e in finished.episodes} == {file}
        frames = decoded(annotated / file)
        for episode in finished.episodes:
            first = round(episode.videos[camera].from_s * finished.fps)
            own = decoded(root / source.episode(episode.episode_index).videos[camera].file)
            assert len(own) == episode.length
            for shown, frame in zip(frames[first : first + episode.length], own, strict=True):
                compared += 1
                wrong += not np.array_equal(shown, frame)
    say(f"v2.1 as v3.0, demo_v3 ({codec}), 2 episodes: {compared} frames, {wrong} differ")
    assert compared == 2 * (75 + 46)
    assert wrong == 0
    plain = pq.read_table(annotated / DATA).drop_columns(["language_persistent", "language_events"])
    assert plain.equals(pq.read_table(original / DATA).select(plain.column_names))
    build_index(finished)  # checks every range of the joined files
    joined = (annotated / finished.episode(0).videos[FRONT].file).stat().st_mtime_ns
    convert_dataset(source, tmp_path / "merged", annotated)
    assert (annotated / finished.episode(0).videos[FRONT].file).stat().st_mtime_ns == joined


def merged(source, folder):
    """The source's data files with language columns that hold no rows."""
    for episode in source.episodes:
        lengths = {episode.episode_index: episode.length}
        merge_file(
            source.root / episode.data_file, folder / episode.data_file, lambda _: None, lengths
        )
    return folder


def test_depth_videos_are_laid_out_again_although_they_are_excluded(v21, tmp_path):
    info = json.loads((v21 / "meta/info.json").read_text())
    info["features"][WRIST]["info"]["video.is_depth_map"] = True
    (v21 / "meta/info.json").write_text(json.dumps(info))
    source = read_dataset(v21, "d")
    assert list(source.cameras) == [FRONT]
    convert_dataset(source, merged(source, tmp_path / "merged"), tmp_path / "annotated")
    check_dataset(source, tmp_path / "annotated")
    finished = read_dataset(tmp_path / "annotated", "d")
    place = finished.episode(3).excluded_videos[WRIST]
    front = finished.episode(3).videos[FRONT]
    assert (place.from_s, place.to_s) == (front.from_s, front.to_s)
    first = round(place.from_s * finished.fps)
    own = decoded(v21 / source.episode(3).excluded_videos[WRIST].file)
    frames = decoded(tmp_path / "annotated" / place.file)
    assert np.array_equal(frames[first : first + len(own)], own)


def test_without_a_camera_there_is_nothing_but_data_to_lay_out(demo_v3, tmp_path):
    blind = shutil.copytree(demo_v3, tmp_path / "blind")
    remove_cameras(blind)
    root = as_v21(blind, tmp_path / "v21")
    info = json.loads((root / "meta/info.json").read_text()) | {"video_path": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    source = read_dataset(root, "d")
    build_index(source)
    convert_dataset(source, merged(source, tmp_path / "merged"), tmp_path / "annotated")
    check_dataset(source, tmp_path / "annotated")
    assert not (tmp_path / "annotated/videos").exists()
    assert read_dataset(tmp_path / "annotated", "d").info["video_path"] is None


@pytest.mark.parametrize("has_statistics", [True, False])
def test_a_video_that_is_longer_than_its_episode_is_converted(
    v21, demo_v3, tmp_path, has_statistics
):
    """The video of episode 1 (46 frames) shows three frames of the next episode too."""
    video = v21 / f"videos/chunk-000/{FRONT}/episode_000001.mp4"
    whole = demo_v3 / f"videos/{FRONT}/chunk-000/file-000.mp4"
    cut_frames(whole, video, first=75, length=46 + 3, fps=10, codec="libx264")
    if not has_statistics:
        (v21 / "meta/episodes_stats.jsonl").unlink()
    source = read_dataset(v21, "d")
    build_index(source)
    convert_dataset(source, merged(source, tmp_path / "merged"), tmp_path / "annotated")
    check_dataset(source, tmp_path / "annotated")
    finished = read_dataset(tmp_path / "annotated", "d")
    places = [episode.videos[FRONT] for episode in finished.episodes]
    assert [round(10 * (place.to_s - place.from_s)) for place in places] == [75, 46, 76, 72]
    frames = decoded(tmp_path / "annotated" / places[2].file)
    assert len(frames) == 75 + 49 + 76 + 72
    first = round(10 * places[2].from_s)
    own = decoded(v21 / f"videos/chunk-000/{FRONT}/episode_000002.mp4")
    assert np.array_equal(frames[first : first + len(own)], own)
    build_index(finished)


def test_task_numbers_come_from_the_table_of_tasks(v21):
    expected = [episode.tasks for episode in read_dataset(v21, "d").episodes]
    numbers = {
        row["task"]: row["task_index"]
        for row in map(json.loads, (v21 / "meta/tasks.jsonl").read_text().splitlines())
    }
    path = v21 / "meta/episodes.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["tasks"] = [numbers[task] for task in row["tasks"]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [episode.tasks for episode in read_dataset(v21, "d").episodes] == expected


def test_v20_is_read_as_v21(v21):
    info = json.loads((v21 / "meta/info.json").read_text()) | {"codebase_version": "v2.0"}
    (v21 / "meta/info.json").write_text(json.dumps(info))
    (v21 / "meta/episodes_stats.jsonl").unlink()  # v2.0 has the statistics of the whole dataset
    dataset = read_dataset(v21, "d")
    assert dataset.version == "v2.1"
    assert any("'v2.0', which is read as v2.1" in notice for notice in dataset.notices)
    assert build_index(dataset)[0].num_rows == 4


def test_an_fps_that_the_videos_contradict_is_named_with_the_right_one(v21):
    """60 fps are stated for data and videos of 10 fps, and the videos seem too short."""
    info = json.loads((v21 / "meta/info.json").read_text()) | {"fps": 60}
    (v21 / "meta/info.json").write_text(json.dumps(info))
    words = r"60 frames per second; the timestamps say 10\. Correct `fps` in that file"
    with pytest.raises(CuesheetError, match=words):
        build_index(read_dataset(v21, "d"))


def test_videos_of_another_coding_are_not_joined(v21, tmp_path, demo_v3):
    whole = demo_v3 / f"videos/{FRONT}/chunk-000/file-000.mp4"
    other = v21 / f"videos/chunk-000/{FRONT}/episode_000002.mp4"
    cut_frames(whole, other, first=75 + 46, length=76, fps=10, codec="libvpx-vp9")
    source = read_dataset(v21, "d")
    convert_dataset(source, merged(source, tmp_path / "merged"), tmp_path / "annotated")
    finished = read_dataset(tmp_path / "annotated", "d")
    files = [episode.videos[FRONT].file[-7:] for episode in finished.episodes]
    assert files == ["000.mp4", "000.mp4", "001.mp4", "002.mp4"]
    build_index(finished)


def edit_lines(root, name, change):
    path = root / "meta" / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps(change(row))}\n" for row in rows))


@pytest.mark.parametrize(
    "change",
    [
        lambda row: {**row, "tasks": []},
        lambda row: {**row, "tasks": [""]},
        lambda row: {key: value for key, value in row.items() if key != "tasks"},
        lambda row: {**row, "tasks": row["tasks"][0]},
        lambda row: {"task": row["tasks"][0], **{k: row[k] for k in row if k != "tasks"}},
        lambda row: {**row, "length": str(row["length"])},
    ],
    ids=["no task", "empty task", "no tasks", "text", "key task", "length as text"],
)
def test_entries_of_other_writers_give_the_same_episodes(v21, demo_v21, change):
    edit_lines(v21, "episodes", change)
    edit_lines(v21, "tasks", lambda row: {**row, "task_index": str(row["task_index"])})
    assert [(e.tasks, e.length) for e in read_dataset(v21, "d").episodes] == [
        (e.tasks, e.length) for e in read_dataset(demo_v21, "d").episodes
    ]


def test_without_tasks_and_with_incomplete_statistics_it_is_converted(v21, tmp_path):
    (v21 / "meta/tasks.jsonl").unlink()
    edit_lines(v21, "episodes_stats", lambda row: {**row, "stats": {"action": {"min": None}}})
    dataset = read_dataset(v21, "d")
    for episode in dataset.episodes:
        merge_file(
            v21 / episode.data_file,
            tmp_path / "merged" / episode.data_file,
            lambda index: EpisodeRows([], []),
            {episode.episode_index: episode.length},
        )
    convert_dataset(dataset, tmp_path / "merged", tmp_path / "annotated")
    converted = read_dataset(tmp_path / "annotated", "d")
    assert [e.tasks for e in converted.episodes] == [e.tasks for e in dataset.episodes]
    tasks = pq.read_table(tmp_path / "annotated/meta/tasks.parquet").to_pylist()
    assert {row["__index_level_0__"] for row in tasks} == {e.task for e in dataset.episodes}
    statistics = json.loads((tmp_path / "annotated/meta/stats.json").read_text())
    assert set(statistics["action"]) >= {"min", "max", "mean", "std", "count"}
