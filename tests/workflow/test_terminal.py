"""Output on the terminal: every failure names what happened, where, and what to do."""

import os
import pty
import re
import signal
import subprocess

import pytest
from dataset_variants import copy, edit_info
from processes import PATIENCE_S
from workflow_runs import Workdir, until

PROFILE = "Using workflow specific profile"
DEAD_SERVER = {"serve": "external", "base_urls": ["http://127.0.0.1:9/v1"], "model": "none"}


def _lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line and not line.startswith(PROFILE)]


def _one_line(work: Workdir, *arguments: str) -> str:
    """Run with --quiet all; return the only line of the failure."""
    done = work.run("--quiet", "all", *arguments, check=False)
    assert done.returncode == 1
    lines = _lines(done.output)
    assert len(lines) == 1, done.output
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--", "anotations"), ("no rule makes anotations", "did you mean annotations?")),
        (("--configfile", "none.yaml"), ("none.yaml does not exist",)),
        (("--configfile", "bad.yaml"), ("bad.yaml, line 2", "not valid YAML")),
        (
            ("--config", "vlm.serve=external"),
            ("--config vlm.serve=external", "--config 'vlm={serve: external}'"),
        ),
        (("--config", "episodes=[99]"), ("config: episodes", "no episode 99", "it has 0-3")),
        (("--directory", "/proc/1/none"), ("/proc/1/none",)),
    ],
)
def test_a_failure_before_the_first_job_is_one_line(workdir, demo_v3, arguments, words):
    workdir.configure(dataset=str(demo_v3))
    bad = workdir.path / "bad.yaml"
    bad.write_text("episodes: [0\nvlm: {")
    arguments = [str(bad) if argument == "bad.yaml" else argument for argument in arguments]
    line = _one_line(workdir, *arguments)
    assert line.startswith("Cuesheet: ")
    for word in words:
        assert word in line


def test_missing_cores_are_one_line(workdir, demo_v3):
    workdir.configure(dataset=str(demo_v3))
    command = [word for word in workdir.command("--quiet", "all") if word not in ("--cores", "2")]
    done = subprocess.run(command, env=workdir.environment(), capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = _lines(done.stdout + done.stderr)
    assert line == "Cuesheet: --cores is missing; say how many CPU cores to use: " + (
        "snakemake --cores all"
    )


def test_a_malformed_dataset_is_one_line(workdir, demo_v3, tmp_path):
    source = copy(demo_v3, tmp_path / "malformed")
    edit_info(source, data_path="frames/file-{file_index:03d}.parquet")
    workdir.configure(dataset=str(source))
    line = _one_line(workdir)
    for word in ("info.json", "data_path", "starts with data/"):
        assert word in line


def test_a_locked_folder_says_how_to_unlock_it_and_a_second_run_that_it_is_one(workdir, demo_v3):
    workdir.configure(dataset=str(demo_v3), episodes=[0])
    first = workdir.start("--quiet", "all")
    until(lambda: list((workdir.path / ".snakemake" / "locks").glob("*")), "a lock")
    until(lambda: list(workdir.path.glob(".cuesheet/runs/*/server.json")), "a supervisor")
    first.send_signal(signal.SIGSTOP)  # so that it does not finish meanwhile
    line = _one_line(workdir)
    assert f"another run (process {first.pid}) works in {workdir.path}" in line
    first.kill()
    first.wait()
    line = _one_line(workdir)
    assert f"{workdir.path} is locked" in line
    assert "snakemake --unlock" in line


def test_a_clean_run_prints_one_line_per_rule_and_the_summary(finished_demo):
    lines = _lines(finished_demo.output)
    by_rule = [line for line in lines if re.match(r"Cuesheet: \w+: (\d+ )?done$", line)]
    assert len(by_rule) == 14
    assert "Cuesheet: annotate_plan: 4 done" in by_rule
    assert len(lines) <= 14 + 15  # the plan, the rules, the summary
    assert "jobid" not in "".join(lines)


def test_a_failed_job_keeps_the_stage_file_of_an_earlier_run(finished_demo, tmp_path, demo_v3):
    work = finished_demo.copy_to(tmp_path / "copy")
    names = [f"results/demo_v3/{stage}/000000.json" for stage in ("plan", "vqa", "validation")]
    before = {name: (work.path / name).read_bytes() for name in names}
    dead = {**DEAD_SERVER, "max_attempts": 1, "check": False}
    work.configure(dataset=str(demo_v3), episodes=[0], seed=5, vlm=dead)
    assert work.run("annotations", check=False).returncode == 1
    assert {name: (work.path / name).read_bytes() for name in names} == before
    work.configure(dataset=str(demo_v3), episodes=[0], seed=5)
    assert work.run("--dry-run", "annotations").jobs["annotate_plan"] == 1


def test_on_a_terminal_progress_is_one_line_that_is_updated(workdir, demo_v3):
    workdir.configure(dataset=str(demo_v3), episodes=[0])
    parent, child = pty.openpty()
    environment = {**workdir.environment(), "CUESHEET_PROGRESS": "0.2", "TERM": "xterm"}
    run = subprocess.Popen(
        workdir.command("annotations"), env=environment, stdout=child, stderr=child
    )
    os.close(child)
    output = b""
    while True:
        try:
            output += os.read(parent, 65536)
        except OSError:  # the other end is closed
            break
    assert run.wait() == 0
    text = output.decode()
    assert text.count("\r\x1b[K") > 5
    assert re.search(r"\r\x1b\[Kcuesheet: episodes \d/1 ", text)
    # On a line of its own, each is erased before the next line is printed.
    assert not re.search(r"^cuesheet: episodes .*\n", text, re.MULTILINE)


def test_a_dry_run_whose_output_is_closed_prints_no_traceback(workdir, demo_v3):
    workdir.configure(dataset=str(demo_v3))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            workdir.command("--dry-run"),
            env=workdir.environment(),
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
        )
    finally:
        os.close(writer)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
