"""One line per error of Snakemake: what happened, where, and what to do."""

import json
import os

import pytest

from snakemake_logger_plugin_cuesheet import errors
from snakemake_logger_plugin_cuesheet.errors import one_line

INPUT_FUNCTION = """InputFunctionException in rule annotate_plan in file "/w/annotate.smk", line 11:
Error:
  WorkflowError:
    demo: there is no episode 99; the dataset has episodes 0 to 3.
Wildcards:
  dataset=demo
  episode=000099
Traceback:
  File "/w/common.smk", line 110, in clip_for_plan
  File "/w/common.smk", line 45, in wrapped (rule annotate_plan, line 11, /w/annotate.smk)"""
LOCKED = """LockException:
Error: Directory cannot be locked. Please make sure that no other Snakemake process is trying to \
create the same files in the following directory:
{folder}
If you are sure that no other instances of snakemake are running on this directory, the remaining \
lock was likely caused by a kill signal or a power loss.
"""


@pytest.fixture
def arguments(monkeypatch):
    def give(*given: str) -> None:
        monkeypatch.setattr(errors.sys, "argv", ["snakemake", *given])

    return give


def test_files_lines_and_frames_of_the_workflow_are_removed() -> None:
    text = 'WorkflowError in file "/w/common.smk", line 45:\nconfig: seed: found x\n'
    text += '  File "/w/common.smk", line 53, in <module>'
    assert one_line("WorkflowError", text) == "config: seed: found x"


def test_an_error_of_an_input_function_is_its_message_alone() -> None:
    expected = "demo: there is no episode 99; the dataset has episodes 0 to 3."
    assert one_line("InputFunctionException", INPUT_FUNCTION) == expected


def test_a_lock_without_a_process_says_how_to_unlock(tmp_path) -> None:
    message = one_line("LockException", LOCKED.format(folder=tmp_path))
    assert str(tmp_path) in message
    assert "snakemake --unlock" in message


def test_a_lock_of_a_running_process_names_the_process(tmp_path) -> None:
    server_file = tmp_path / ".cuesheet" / "runs" / "x" / "server.json"
    server_file.parent.mkdir(parents=True)
    server_file.write_text(json.dumps({"parent_pid": os.getpid()}))
    message = one_line("LockException", LOCKED.format(folder=tmp_path))
    assert f"process {os.getpid()}" in message
    assert "unlock" not in message


@pytest.mark.parametrize(
    ("target", "expected"),
    [("anotations", "did you mean annotations?"), ("xyz", "the targets are all, media")],
)
def test_an_unknown_target_names_the_targets(target: str, expected: str) -> None:
    text = f"MissingRuleException:\nNo rule to produce {target} (if you use input functions ...)."
    message = one_line("MissingRuleException", text)
    assert message.startswith(f"no rule makes {target}")
    assert expected in message


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("vlm.serve=external", "--config 'vlm={serve: external}'"),
        ("vlm.managed.port=1", "--config 'vlm={managed: {port: 1}}'"),
        ("vlm", "--config takes NAME=VALUE"),
    ],
)
def test_a_nested_setting_is_written_as_it_should_be(arguments, entry, expected) -> None:
    arguments("--cores", "2", "--config", entry, "--quiet", "all")
    text = (
        "Traceback (most recent call last)\n\nValueError: Invalid config definition: Config entry"
    )
    message = one_line("ValueError", text)
    assert message.startswith(f"--config {entry}: ")
    assert expected in message


def test_a_yaml_error_names_file_and_line(arguments, tmp_path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("episodes: [0\nvlm: {")
    arguments(f"--configfile={bad}")
    message = one_line("WorkflowError", "WorkflowError:\nConfig file is not valid JSON or YAML. In")
    assert message.startswith(f"{bad}, line 2, column 4: not valid YAML")


@pytest.mark.parametrize("cause", ["Permission denied", "Read-only file system"])
def test_a_folder_that_cannot_be_written_says_what_to_do(cause: str) -> None:
    text = f"Traceback (most recent call last):\n\nPermissionError: [Errno 13] {cause}: '/data/x'"
    text = text if cause.startswith("P") else text.replace("PermissionError", "OSError")
    message = one_line("PermissionError", text)
    assert message.startswith(f"/data/x cannot be written ({cause.lower()})")
    assert "--directory" in message


def test_a_full_disk_is_said_without_its_error_number() -> None:
    message = one_line("OSError", "OSError: [Errno 28] No space left on device")
    assert message.startswith("no space left on device; free space on the disk")


def test_an_unexpected_error_is_its_last_line_and_how_to_see_more() -> None:
    text = 'Traceback (most recent call last):\n  File "x", line 1, in y\nKeyError: 3'
    assert one_line("KeyError", text) == "KeyError: 3 (run again with --verbose for the traceback)"
