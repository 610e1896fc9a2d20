"""Files are written completely or not at all, and leftovers of killed processes are removed."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cuesheet.errors import CuesheetError
from cuesheet.files import (
    atomic_path,
    read_json,
    remove_leftovers,
    remove_temporary_folders,
    temporary_folder,
    write_json,
)

KILLED = """
import sys, time
from cuesheet.files import atomic_path
with atomic_path(sys.argv[1]) as path:
    path.write_bytes(b"half")
    print(path, flush=True)
    time.sleep(60)
"""


def start_writer(target: Path) -> tuple[subprocess.Popen, Path]:
    command = [sys.executable, "-c", KILLED, str(target)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, Path(process.stdout.readline().strip())


def test_temporary_files_of_a_killed_process_are_removed_and_no_others(tmp_path):
    clips = tmp_path / "clips/front"
    process, temporary = start_writer(clips / "episode_000003.mp4")
    hidden = clips / ".episode_000004.mp4"
    hidden.write_bytes(b"of the user")
    other_computer = clips / ".episode_000005.elsewhere-1.abcdefgh.mp4"
    other_computer.write_bytes(b"half")
    try:
        assert remove_leftovers(tmp_path) == 0
        assert temporary.exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert temporary.exists()
    assert remove_leftovers(tmp_path) == 1
    assert sorted(clips.iterdir()) == [hidden, other_computer]


KILLED_WITH_FOLDER = """
import sys, time
from pathlib import Path
from cuesheet.files import make_temporary_folder
folder = make_temporary_folder(Path(sys.argv[1]))
(folder / "socket").touch()
print(folder, flush=True)
time.sleep(60)
"""


def test_temporary_folders_of_a_killed_process_are_removed_and_no_others(tmp_path):
    command = [sys.executable, "-c", KILLED_WITH_FOLDER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    folder = Path(process.stdout.readline().strip())
    others = [tmp_path / "cuesheet-0badc0de-1-abcdefgh", tmp_path / "cuesheet-results"]
    for other in others:
        other.mkdir()
    try:
        assert remove_temporary_folders(tmp_path) == 0
        assert (folder / "socket").exists()
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert remove_temporary_folders(tmp_path) == 1
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_link_in_place_of_a_temporary_folder_is_not_followed(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/file").touch()
    with temporary_folder(tmp_path) as folder:
        name = folder.name
    link = tmp_path / name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
    link.symlink_to(tmp_path / "target")
    assert remove_temporary_folders(tmp_path) == 0
    assert (tmp_path / "target/file").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_the_path(tmp_path, code):
    target = tmp_path / "out.bin"
    target.write_bytes(b"earlier")
    message = r"out\.bin cannot be written: .*Free space"
    with pytest.raises(CuesheetError, match=message), atomic_path(target):
        raise OSError(code, os.strerror(code))
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"earlier"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_real_full_disk_is_named_with_the_path(tmp_path):
    with (
        pytest.raises(CuesheetError, match=r"out\.bin cannot be written: no space left"),
        atomic_path(tmp_path / "out.bin"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")


def test_a_json_file_that_is_missing_damaged_or_not_an_object_reads_as_an_empty_object(tmp_path):
    path = tmp_path / "a.json"
    assert read_json(path) == {}
    for text in ("", "{", "[" * 100_000, "[1]", "null"):
        path.write_text(text)
        assert read_json(path) == {}
    write_json(path, {"a": [1]})
    assert read_json(path) == {"a": [1]}


def test_text_with_lone_surrogates_is_written_and_read_back(tmp_path):
    value = {"label": "half \ud800 and whole é"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    (tmp_path / "a.json").read_bytes().decode("ascii")
