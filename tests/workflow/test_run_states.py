"""`cuesheet status` after runs that finished, failed or were interrupted, without a cluster."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from workflow_runs import Workdir, until

pytestmark = pytest.mark.workflow

DEAD_SERVER = {
    "serve": "external",
    "model": "any",
    "base_urls": ["http://127.0.0.1:9/v1"],
    "max_attempts": 1,
}


def first_line(work: Workdir) -> str:
    """The first line that the command prints, without the time of the run."""
    command = [sys.executable, "-m", "cuesheet.app.cli", "status"]
    done = subprocess.run(command, cwd=work.path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[0]


def test_a_finished_run_is_finished(finished_demo):
    assert first_line(finished_demo).endswith(": finished")


def test_a_run_whose_server_does_not_answer_failed_with_the_cause(workdir, demo_v3):
    workdir.configure(dataset=str(demo_v3), episodes=[0], vlm=DEAD_SERVER)
    assert workdir.run(check=False).returncode == 1
    assert ": failed: the model server does not answer" in first_line(workdir)


def test_a_run_with_failed_jobs_failed_with_the_cause_until_it_is_repeated(workdir, demo_v3):
    workdir.configure(dataset=str(demo_v3), episodes=[0], vlm={**DEAD_SERVER, "check": False})
    assert workdir.run(check=False).returncode == 1
    line = first_line(workdir)
    assert ": failed: annotate_" in line
    assert "127.0.0.1:9" in line
    workdir.configure(dataset=str(demo_v3), episodes=[0])
    workdir.run()
    assert first_line(workdir).endswith(": finished")


def test_an_interrupted_run_is_stopped(workdir, demo_v3):
    workdir.configure(dataset=str(demo_v3))
    run = workdir.start()
    until(lambda: list(workdir.path.glob("results/demo_v3/keyframes/*")), "the first keyframes")
    assert first_line(workdir).endswith(": running")
    os.killpg(run.pid, signal.SIGINT)
    run.wait(120)
    assert first_line(workdir).endswith(": stopped")


def test_progress_counts_what_was_requested(finished_demo, tmp_path, monkeypatch):
    """One deleted plan as a single target: one of one, not three of four."""
    work = finished_demo.copy_to(tmp_path / "copy")
    target = "results/demo_v3/plan/000003.json"
    (work.path / target).unlink()
    shutil.rmtree(work.path / ".cache")
    slow = {**work.environment(), "CUESHEET_PROGRESS": "0.2"}
    monkeypatch.setattr(work, "environment", lambda: slow)
    lines = work.run("--quiet", "all", "--", target).output.splitlines()
    shown = [line for line in lines if line.startswith("cuesheet: ") and " calls/s" in line]
    assert shown, lines
    assert all(line.startswith("cuesheet: keyframes 1/1 plan ") for line in shown), shown
    assert "plan 1/1" in shown[-1]
    assert first_line(work).endswith(": finished")
