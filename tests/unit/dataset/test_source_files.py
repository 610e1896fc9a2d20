"""Only files that the format defines, or that the user names, leave the dataset; no link does."""

import os
from pathlib import Path

import pytest

from cuesheet.assemble.finalize import check_source
from cuesheet.dataset.metadata import read_dataset
from cuesheet.dataset.source_files import find_source_files
from cuesheet.errors import CuesheetError

FORMAT = [
    "README.md",
    "LICENSE",
    "meta/info.json",
    "meta/stats.json",
    "meta/tasks.parquet",
    "meta/episodes/chunk-000/file-000.parquet",
    "meta/episodes.jsonl",
    "videos/front/chunk-000/file-000.mp4",
    "images/front/episode_000000/frame_000000.png",
]
OTHER = [
    "notes.txt",
    ".env",
    "meta/notes.txt",
    "videos/front/list.m3u8",
    "extra/calibration.json",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "dataset"
    for name in [*FORMAT, *OTHER, "data/chunk-000/file-000.parquet", ".cache/x", ".git/config"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def names(paths) -> set[str]:
    return {path.as_posix() for path in paths}


def test_files_of_the_format_are_taken_over_and_all_others_left_out(root):
    found = find_source_files(root)
    assert names(found.taken_over) == set(FORMAT)
    assert names(found.left_out) == set(OTHER)


def test_files_that_the_user_names_are_taken_over(root):
    found = find_source_files(root, ["notes.txt", "extra/*"])
    assert names(found.taken_over) == {*FORMAT, "notes.txt", "extra/calibration.json"}


@pytest.mark.parametrize("place", ["meta/secret.json", "extra/link", "videos/front/more", "folder"])
@pytest.mark.parametrize("target", ["file", "folder"])
def test_a_link_out_of_the_dataset_is_rejected_by_name(root, tmp_path, place, target):
    outside = tmp_path / "private"
    outside.mkdir()
    (outside / "key").write_text("secret")
    (root / place).symlink_to(outside if target == "folder" else outside / "key")
    with pytest.raises(CuesheetError, match=f"{place} is a link to .*outside the dataset"):
        find_source_files(root)


def test_links_inside_the_dataset_are_followed(root):
    (root / "meta/copy.json").symlink_to("stats.json")
    (root / "videos/top").symlink_to(root / "videos/front")
    found = names(find_source_files(root).taken_over)
    assert {"meta/copy.json", "videos/top/chunk-000/file-000.mp4"} <= found


def test_loops_broken_links_and_pipes_are_named(root):
    (root / "videos/again").symlink_to(root / "videos")
    with pytest.raises(CuesheetError, match="videos/again is a link to a folder that contains it"):
        find_source_files(root)
    (root / "videos/again").unlink()
    (root / "meta/a.json").symlink_to("a.json")
    with pytest.raises(CuesheetError, match=r"meta/a\.json is a broken link"):
        find_source_files(root)
    (root / "meta/a.json").unlink()
    os.mkfifo(root / "meta/b.json")
    with pytest.raises(CuesheetError, match=r"meta/b\.json is neither a file nor a folder"):
        find_source_files(root)


def test_the_notice_names_what_is_left_out(demo_v3, tmp_path):
    root = tmp_path / "demo"
    for path in demo_v3.rglob("*"):
        if path.is_file():
            target = root / path.relative_to(demo_v3)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
    assert check_source(read_dataset(root, "demo")) == []
    (root / "notes.txt").write_text("mine")
    (notice,) = check_source(read_dataset(root, "demo"))
    assert "notes.txt will not be in the annotated dataset" in notice
    assert check_source(read_dataset(root, "demo"), ["notes.txt"]) == []
