"""The helpers that list processes cope with processes that end meanwhile."""

import subprocess
import sys

import psutil
import pytest
from processes import command_of, descendants, eventually, is_alive, matching, processes_in


def test_a_process_that_ends_while_it_is_inspected_is_not_there(tmp_path):
    def ended(process):
        raise psutil.NoSuchProcess(process.pid)

    assert matching(ended) == []


def test_a_process_that_has_ended_has_no_command_and_no_descendants():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    looked_at = psutil.Process(process.pid)
    eventually(lambda: not is_alive(looked_at))  # a zombie: nobody has waited for it
    process.wait()
    assert command_of(looked_at) == []
    assert descendants(looked_at) == []
    assert descendants(process.pid) == []


def test_processes_are_found_by_their_folder(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=tmp_path) as process:
        eventually(lambda: [one.pid for one in processes_in(tmp_path)] == [process.pid])
        process.stdin.close()
    assert processes_in(tmp_path) == []


def test_a_wait_ends_as_soon_as_it_is_in_vain():
    with pytest.raises(AssertionError, match="can no longer happen"):
        eventually(lambda: False, still=lambda: False)
