"""What the commands say about wrong arguments, and what they do when nobody reads on."""

import os
import subprocess
import sys

import pytest
from processes import PATIENCE_S

from cuesheet.app import cli, estimate_cli
from cuesheet.text import counted


def test_a_number_and_its_noun_agree():
    assert [counted(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert [counted(n, "entry") for n in (1, 1200)] == ["1 entry", "1,200 entries"]


@pytest.mark.parametrize("arguments", [["--help"], ["cache", "--help"], ["foo"]])
def test_a_reader_that_closes_the_output_gets_no_traceback(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cuesheet.app.cli", *arguments],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
        )
    finally:
        os.close(writer)
    assert "Traceback" not in done.stderr
    assert "BrokenPipeError" not in done.stderr


def test_an_unknown_command_is_one_plain_line(capsys):
    assert cli.main(["foo"]) == 2
    assert "unknown command 'foo'. Commands: status, " in capsys.readouterr().err
    assert cli.main(["statu"]) == 2
    assert "'statu'; did you mean 'status'? Commands: " in capsys.readouterr().err


def test_an_estimate_of_a_folder_names_the_option_for_datasets(tmp_path, capsys):
    assert estimate_cli.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert f"cuesheet estimate --dataset {tmp_path}" in error
    assert "Errno" not in error


def test_a_missing_file_of_settings_is_named_without_an_error_number(tmp_path, capsys):
    assert estimate_cli.main([str(tmp_path / "no.yaml")]) == 1
    error = capsys.readouterr().err
    assert "no.yaml does not exist; expected a YAML file with settings" in error
    assert "Errno" not in error


def test_a_review_of_something_else_says_which_folder_is_expected(tmp_path, capsys):
    assert cli.main(["review", str(tmp_path)]) == 1
    assert "expected the result folder of a finished run" in capsys.readouterr().err


def test_a_push_checks_the_name_of_the_repository_first(tmp_path, capsys):
    assert cli.main(["push", str(tmp_path), "name"]) == 1
    assert "'name' does not name a repository; expected user/name" in capsys.readouterr().err
