"""The job of a shard starts this workflow again, in whatever environment it runs."""

import subprocess
import sys
from pathlib import Path

from cuesheet.cluster.job import SHARD_VARIABLE, inner_environment
from cuesheet.vlm.run_environment import SERVER_FILE_VARIABLE


def test_the_inner_run_finds_the_library_without_an_installation(tmp_path):
    outer = {"PYTHONPATH": "/some/folder", SERVER_FILE_VARIABLE: "of the outer run"}
    environment = inner_environment(outer, {"SCRATCH": "/disk"}, tmp_path / "about.json")
    assert environment["PYTHONPATH"].split(":")[1:] == ["/some/folder"]
    assert environment["SCRATCH"] == "/disk"
    assert Path(environment[SHARD_VARIABLE]) == tmp_path / "about.json"
    assert SERVER_FILE_VARIABLE not in environment
    # Without `site`, Python sees no installed package.
    code = "import cuesheet.errors; print(cuesheet.__version__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    without = subprocess.run([sys.executable, "-S", "-c", code], env={}, capture_output=True)
    assert without.returncode != 0
