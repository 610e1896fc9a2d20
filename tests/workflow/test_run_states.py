"""`cuesheet status` after runs that finished, failed or were interrupted, without a cluster."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from processes import PATIENCE_S
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


def test_an_outage_is_one_line_fails_every_job_and_marks_no_episode_as_bad(workdir, demo_v3):
    settings = {"dataset": str(demo_v3), "episodes": [0, 1], "vqa": {"enabled": False}}
    workdir.configure(**settings, vlm={**DEAD_SERVER, "check": False})
    done = workdir.run("--quiet", "all", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.output
    assert ".smk" not in done.output
    (failed,) = re.findall(r"demo_v3 episode (\d): annotate_plan failed: (.+)", done.output)
    assert "1 more job failed for the same reason: " in done.output
    log = workdir.path / f"results/demo_v3/logs/annotate_plan/00000{failed[0]}.log"
    cause = log.read_text().strip().splitlines()[-1].removeprefix("ERROR: ")
    assert failed[1].startswith(cause)
    line = first_line(workdir)
    assert ": failed: annotate_" in line
    assert "127.0.0.1:9" in line
    workdir.configure(**settings, output={"on_missing": "leave_unannotated"})
    workdir.run()
    assert first_line(workdir).endswith(": finished")
    episodes = workdir.json("results/demo_v3/summary.json")["episodes"]
    assert (episodes["annotated"], episodes["left_out"]) == (2, [])


def test_an_interrupted_run_prints_no_traceback_and_is_stopped(workdir, demo_v3, counting_server):
    is_over = threading.Event()
    counting_server.answer_instead = lambda request: is_over.wait(PATIENCE_S) and None
    workdir.configure(dataset=str(demo_v3), episodes=[1], vlm=counting_server.vlm)
    run = workdir.start(reads_output=True)
    until(lambda: counting_server.asked, "the first request")
    assert first_line(workdir).endswith(": running")
    os.killpg(run.pid, signal.SIGINT)
    is_over.set()
    output, _ = run.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in output
    assert "KeyboardInterrupt" not in output
    assert "Run the same command again to continue" in output, output
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
    assert re.search(r"plan 1/1 \| .* tokens", shown[-1])
    assert first_line(work).endswith(": finished")
