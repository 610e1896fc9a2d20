"""The finished dataset is whole, its source untouched, and nothing is written through a link."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from split_dataset import split_dataset

from cuesheet.assemble import finalize
from cuesheet.assemble.finalize import extended_info, finalize_dataset
from cuesheet.assemble.merge import EpisodeRows, merge_file
from cuesheet.assemble.verify import check_dataset
from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError

LANGUAGE = ("language_persistent", "language_events")


def hashes(root: Path) -> dict[str, tuple[str, int, int]]:
    """Content, mode and time of change of every file."""
    return {
        str(path.relative_to(root)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mode,
            path.stat().st_mtime_ns,
        )
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def original(demo_v3, tmp_path_factory) -> Path:
    """A dataset of twelve episodes in three data files."""
    return split_dataset(demo_v3, tmp_path_factory.mktemp("split") / "split_v3")


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Path:
    root = tmp_path / "source"
    shutil.copytree(original, root, copy_function=shutil.copyfile)
    (root / "README.md").write_text("# A dataset\n")
    (root / "images").mkdir()
    (root / "images/one.png").write_bytes(b"image")
    (root / ".cache/huggingface").mkdir(parents=True)
    (root / ".cache/huggingface/lock").write_text("x")
    return root


def merge_all(root: Path, annotated: Path) -> None:
    dataset = read_dataset(root, "dev")
    subtask = {
        "role": "assistant",
        "content": "work",
        "style": "subtask",
        "timestamp": 0.0,
        "camera": None,
        "tool_calls": None,
    }
    for data_file, episodes in dataset.data_files.items():
        expected = {episode.episode_index: episode.length for episode in episodes}
        rows = EpisodeRows([subtask, subtask | {"style": "plan"}], [])
        merge_file(root / data_file, annotated / data_file, lambda _, r=rows: r, expected)


def finish(root: Path, annotated: Path, videos: str = "hardlink"):
    dataset = read_dataset(root, "dev")
    placed = finalize_dataset(dataset, annotated, videos)
    check_dataset(dataset, annotated)
    return placed


@pytest.fixture
def annotated(source: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "results/dev/annotated"
    merge_all(source, folder)
    return folder


@pytest.mark.parametrize("videos", ["hardlink", "symlink", "copy"])
def test_the_source_is_not_touched(source, annotated, videos):
    before = hashes(source)
    finish(source, annotated, videos)
    finish(source, annotated, videos)
    assert hashes(source) == before


@pytest.mark.parametrize("videos", ["hardlink", "symlink", "copy"])
def test_every_file_of_the_source_is_there_and_no_other(source, annotated, videos):
    finish(source, annotated, videos)
    files = {str(p.relative_to(annotated)) for p in annotated.rglob("*") if p.is_file()}
    expected = set(hashes(source)) - {".cache/huggingface/lock"}
    assert files == expected
    for name in expected:
        if name != "meta/info.json" and not name.startswith("data/"):
            assert (annotated / name).read_bytes() == (source / name).read_bytes()


def test_videos_are_linked_or_copied_as_configured(source, annotated):
    video = next(p.relative_to(source) for p in sorted(source.rglob("*.mp4")))
    finish(source, annotated, "hardlink")
    assert (annotated / video).samefile(source / video)
    assert not (annotated / video).is_symlink()
    finish(source, annotated, "symlink")
    assert (annotated / video).is_symlink()
    assert os.path.isabs(os.readlink(annotated / video))
    finish(source, annotated, "copy")
    assert not (annotated / video).is_symlink()
    assert not (annotated / video).samefile(source / video)


def test_metadata_and_top_level_files_are_copies(source, annotated):
    finish(source, annotated, "hardlink")
    for name in ("README.md", "meta/stats.json", "meta/tasks.parquet", "meta/info.json"):
        assert not (annotated / name).samefile(source / name)
        assert not (annotated / name).is_symlink()


def test_nothing_is_written_through_links_that_are_there_already(source, annotated):
    before = hashes(source)
    for name in ("meta/info.json", "meta/stats.json", "README.md"):
        (annotated / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(source / name, annotated / name)
    video = next(p.relative_to(source) for p in sorted(source.rglob("*.mp4")))
    (annotated / video).parent.mkdir(parents=True)
    os.link(source / video, annotated / video)
    finish(source, annotated, "copy")
    assert hashes(source) == before
    assert not (annotated / "meta/info.json").is_symlink()
    assert not (annotated / video).samefile(source / video)


def test_a_download_of_links_into_a_cache_gives_links_to_the_files_themselves(
    original, tmp_path, annotated
):
    repository = tmp_path / "hub/datasets--user--name"  # as huggingface_hub lays out its cache
    blobs, snapshot = repository / "blobs", repository / "snapshots/0123abc"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in original.rglob("*") if p.is_file())):
        shutil.copyfile(path, blobs / str(number))
        link = snapshot / path.relative_to(original)
        link.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(os.path.relpath(blobs / str(number), link.parent), link)
    before = hashes(blobs)
    for videos in ("hardlink", "symlink"):
        finish(snapshot, annotated, videos)
        for video in annotated.rglob("*.mp4"):
            assert video.resolve().is_file()
            if videos == "hardlink":
                assert not video.is_symlink()
            else:
                assert Path(os.readlink(video)).parent == blobs.resolve()
    assert hashes(blobs) == before


def test_links_that_the_file_system_refuses_become_other_links_then_copies(
    source, annotated, monkeypatch
):
    def refuse(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(finalize.os, "link", refuse)
    placed = finish(source, annotated, "hardlink")
    assert placed.counts["symlink"] == len(list(source.rglob("*.mp4"))) + 1
    assert any("cross-device" in notice for notice in placed.notices)
    monkeypatch.setattr(finalize.os, "symlink", refuse)
    shutil.rmtree(annotated / "videos")
    (annotated / "images/one.png").unlink()
    placed = finish(source, annotated, "hardlink")
    assert "symlink" not in placed.counts
    assert not any(path.is_symlink() for path in annotated.rglob("*"))


def test_files_of_an_earlier_run_are_removed(source, annotated):
    for name in ("data/chunk-000/file-009.parquet", "videos/old/file.mp4", "meta/old.json"):
        (annotated / name).parent.mkdir(parents=True, exist_ok=True)
        (annotated / name).write_bytes(b"old")
    finish(source, annotated)
    assert not (annotated / "data/chunk-000/file-009.parquet").exists()
    assert not (annotated / "videos/old").exists()
    assert not (annotated / "meta/old.json").exists()


@pytest.mark.parametrize("videos", ["hardlink", "symlink", "copy"])
def test_links_to_folders_are_replaced_by_folders(source, annotated, videos):
    before = hashes(source)
    for name in ("videos", "images", "meta"):
        os.symlink(source / name, annotated / name)
    finish(source, annotated, videos)
    assert hashes(source) == before
    assert not any(path.is_symlink() for path in annotated.rglob("*") if path.is_dir())


def test_info_keeps_every_key_in_its_order_and_adds_the_language(source, annotated):
    path = source / "meta/info.json"
    info = json.loads(path.read_text())
    info = {"my_key": {"a": [1, 2]}, **info, "license": "mit"}
    info["features"] = {"subtask_index": {"dtype": "int64"}, **info["features"]}
    path.write_text(json.dumps(info))
    finish(source, annotated)
    finished = json.loads((annotated / "meta/info.json").read_text())
    assert list(finished) == [*info, "tools"]
    for key in set(info) - {"features"}:
        assert finished[key] == info[key]
    kept = [name for name in info["features"] if name != "subtask_index"]
    assert list(finished["features"]) == [*kept, *LANGUAGE]
    for name in LANGUAGE:
        assert finished["features"][name] == {"dtype": "language", "shape": [1], "names": None}
    assert [tool["function"]["name"] for tool in finished["tools"]] == ["say"]


def test_totals_of_a_crashed_recorder_are_corrected(source, annotated):
    path = source / "meta/info.json"
    info = json.loads(path.read_text())
    episodes, frames = info["total_episodes"], info["total_frames"]
    wrong = {"total_episodes": 99, "total_frames": 12_345, "splits": {"train": "0:99", "odd": "x"}}
    path.write_text(json.dumps(info | wrong))
    finish(source, annotated)
    finished = json.loads((annotated / "meta/info.json").read_text())
    assert (finished["total_episodes"], finished["total_frames"]) == (episodes, frames)
    assert finished["splits"] == {"train": f"0:{episodes}", "odd": "x"}


def test_tools_that_are_there_stay_and_say_is_added_once():
    other = {"type": "function", "function": {"name": "wave"}}
    own = {"type": "function", "function": {"name": "say", "description": "mine"}}
    names = [
        t["function"]["name"] for t in extended_info({"features": {}, "tools": [other]})["tools"]
    ]
    assert names == ["wave", "say"]
    assert extended_info({"features": {}, "tools": [own]})["tools"] == [own]
    once = extended_info({"features": {}, "tools": None})
    assert extended_info(once) == once


def test_a_result_inside_the_source_or_around_it_is_refused(source):
    dataset = read_dataset(source, "dev")
    for annotated in (source / "results/annotated", source, source.parent):
        with pytest.raises(CuesheetError, match="contain one another"):
            finalize_dataset(dataset, annotated, "hardlink")


def test_a_broken_link_in_the_source_is_named(source, annotated):
    video = next(source.rglob("*.mp4"))
    video.unlink()
    os.symlink(source / "gone.mp4", video)
    with pytest.raises(CuesheetError, match="broken link"):
        finalize_dataset(read_dataset(source, "dev"), annotated, "hardlink")


def rewrite(path: Path, change) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def drop_rows(annotated: Path) -> None:
    rewrite(annotated / "data/chunk-000/file-001.parquet", lambda t: t.slice(0, 100))


def drop_file(annotated: Path) -> None:
    (annotated / "data/chunk-000/file-001.parquet").unlink()


def cut_file(annotated: Path) -> None:
    path = annotated / "data/chunk-000/file-001.parquet"
    path.write_bytes(path.read_bytes()[:-10])


def infer_types(annotated: Path) -> None:
    def change(table):
        at = table.schema.get_field_index(LANGUAGE[0])
        return table.set_column(at, LANGUAGE[0], pa.array(table.column(LANGUAGE[0]).to_pylist()))

    rewrite(annotated / "data/chunk-000/file-001.parquet", change)


def change_other_type(annotated: Path) -> None:
    path = annotated / "data/chunk-000/file-001.parquet"
    with pq.ParquetFile(path) as file:
        groups = [file.read_row_group(i) for i in range(file.num_row_groups)]
    at = groups[0].schema.get_field_index("task_index")
    groups = [g.set_column(at, "task_index", g.column(at).cast(pa.int32())) for g in groups]
    write_groups(path, groups)


def change_one_frame(annotated: Path) -> None:
    path = annotated / "data/chunk-000/file-001.parquet"
    with pq.ParquetFile(path) as file:
        groups = [file.read_row_group(i) for i in range(file.num_row_groups)]
    lists = groups[2].column(LANGUAGE[0]).to_pylist()
    lists[50][1]["content"] = "other"
    at = groups[2].schema.get_field_index(LANGUAGE[0])
    field = groups[2].schema.field(at)
    groups[2] = groups[2].set_column(at, field, pa.array(lists, field.type))
    write_groups(path, groups)


def write_groups(path: Path, groups: list[pa.Table]) -> None:
    with pq.ParquetWriter(path, groups[0].schema) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=group.num_rows)


def drop_video(annotated: Path) -> None:
    next(annotated.rglob("*.mp4")).unlink()


def wrong_total(annotated: Path) -> None:
    path = annotated / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"total_frames": 1}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop_rows, "100 rows; the source has {rows}"),
        (drop_file, "cannot be read"),
        (cut_file, "cannot be read"),
        (infer_types, "language_persistent has the type"),
        (change_other_type, "other columns or types"),
        (change_one_frame, "not the same on every frame of episode 7"),
        (drop_video, r"\.mp4 does not exist"),
        (wrong_total, "total_frames = 1; the dataset has {frames}"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_the_self_check_finds_damage_and_names_it(source, annotated, damage, words):
    dataset = read_dataset(source, "dev")
    frames = sum(episode.length for episode in dataset.episodes)
    rows = sum(e.length for e in dataset.data_files["data/chunk-000/file-001.parquet"])
    finish(source, annotated)
    damage(annotated)
    with pytest.raises(CuesheetError, match=words.format(rows=rows, frames=frames)) as caught:
        check_dataset(dataset, annotated)
    assert "file-001" in str(caught.value) or damage in (drop_video, wrong_total)


def test_finalizing_again_changes_nothing(source, annotated):
    finish(source, annotated)
    before = hashes(annotated)
    finish(source, annotated)
    after = hashes(annotated)
    assert {k: v[0] for k, v in after.items()} == {k: v[0] for k, v in before.items()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"meta/info.json"}


def test_only_videos_of_selected_episodes_and_cameras_in_use_are_required(source, annotated):
    """The source may lack other videos; the annotated dataset then lacks them too."""
    dataset = read_dataset(source, "dev")
    used, *_, unused = dataset.cameras
    episodes = [episode.episode_index for episode in dataset.episodes]
    missing = dataset.episodes[0].videos[unused].file
    (source / missing).unlink()
    finalize_dataset(dataset, annotated, "hardlink")
    check_dataset(dataset.with_cameras([used]), annotated, selected=episodes)
    with pytest.raises(CuesheetError, match=f"{missing} does not exist"):
        check_dataset(dataset, annotated, selected=episodes)
    without = [e.episode_index for e in dataset.episodes if e.videos[unused].file != missing]
    check_dataset(dataset, annotated, selected=without)
