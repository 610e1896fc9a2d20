"""Output of the status command for the files of a run."""

import json
import os
from pathlib import Path

import pytest

from cuesheet.app import cli
from cuesheet.cluster.status import as_text, status_of

NOW = 1_800_000_000.0
RUN = "20270115-080000-1-abcdef"


def write(path: Path, content: object, age_s: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    os.utime(path, (NOW - age_s, NOW - age_s))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four shards of two: one done, one running, one that fell silent, one waiting."""
    results = tmp_path / "results" / "demo"
    shards = {f"{n:05d}": [[2 * n, 2 * n + 1]] for n in range(4)}
    run = {"run": RUN, "started_at": NOW - 600, "stages": ["plan", "vqa"], "shards": shards}
    write(results / "shards/run.json", run)
    for index in (0, 1, 2):
        for stage in ("plan", "vqa", "validation"):
            write(results / stage / f"{index:06d}.json", {}, age_s=100)
    write(results / "plan/000003.json", {})
    write(results / "shards/00000.json", {})
    write(results / "failed/annotate_vqa/000005.json", {"error": "no drawer", "log": "x.log"})
    for shard, state, job in (("0", "done", "7"), ("1", "running", "8"), ("2", "running", "9")):
        content = {"run": RUN, "state": state, "job_id": job, "host": "node1", "gpus": "0,1"}
        content |= {"log": f"{shard}.log", "started_at": NOW - 300}
        write(results / f"shards/0000{shard}.state.json", content)
    write(results / "shards/00001.lease", {}, age_s=4)
    write(results / "shards/00002.lease", {}, age_s=400)
    usage = {
        "datasets": ["demo"],
        "gpus": 2,
        "started_at": NOW - 300,
        "updated_at": NOW - 3,
        "ended": False,
        "calls": {"plan": 10, "vqa": 20},
        "calls_per_s": 1.5,
        "seconds": {"unused": 20.0, "loading": 60.0, "busy": 200.0, "idle": 17.0, "failed": 0.0},
        "busy_by_stage": {"plan": 50.0, "vqa": 150.0},
    }
    write(tmp_path / ".cuesheet/runs/a/usage.json", usage)
    silent = {**usage, "updated_at": NOW - 200}
    write(tmp_path / ".cuesheet/runs/b/usage.json", silent)
    write(tmp_path / ".cuesheet/runs/c/usage.json", {**usage, "datasets": ["other"]})
    return tmp_path


def test_episodes_and_shards_are_counted_by_state(folder):
    status = status_of(folder / "results/demo", folder / ".cuesheet/runs", NOW)
    assert status["episodes"] == {"total": 8, "done": 3, "running": 1, "failed": 1, "waiting": 3}
    states = {name: shard["state"] for name, shard in status["shards"].items()}
    assert states == {"00000": "done", "00001": "running", "00002": "failed", "00003": "waiting"}
    assert status["failed"] == {"5": "no drawer"}
    # Three episodes in ten minutes, four to go.
    assert status["eta_s"] == 800


@pytest.mark.parametrize(
    ("job", "lease_age_s", "said", "state"),
    [
        (None, None, "waiting", "running"),
        ("running", 4, "running: 1/2 (episodes 0, 4), job 7 on node1, GPU 0, 5.0 min", "running"),
        ("running", 400, "failed: 1/2 (episodes 0, 4)", "running"),
        ("failed", None, "failed: 1/2 (episodes 0, 4)", "failed"),
        ("done", None, "done", "stopped"),
    ],
)
def test_the_job_that_drafts_labels_is_shown(folder, job, lease_age_s, said, state):
    results = folder / "results/demo"
    record = json.loads((results / "shards/run.json").read_bytes())
    write(results / "shards/run.json", {**record, "drafted": [[0, 0], [4, 4]]})
    write(results / "vocabulary/drafts/000004.json", {})
    if state != "running":
        # Without it, the running shard determines the state of the run.
        for shard in ("00001", "00002"):
            (results / f"shards/{shard}.state.json").unlink()
    content = {"run": RUN, "state": job, "job_id": "7", "host": "node1", "gpus": "0"}
    content |= {"log": "vocabulary.log", "started_at": NOW - 300}
    if job is not None:
        write(results / "shards/vocabulary.state.json", content)
    if job == "done":
        write(results / "shards/vocabulary.json", {})
    if lease_age_s is not None:
        write(results / "shards/vocabulary.lease", {}, age_s=lease_age_s)
    status = status_of(results, folder / ".cuesheet/runs", NOW)
    assert status["state"] == state
    (line,) = [one for one in as_text(status, NOW).splitlines() if one.startswith("  Labels: ")]
    assert line.startswith(f"  Labels:   {said}")


def test_a_run_that_drafts_no_labels_says_nothing_about_them(folder):
    status = status_of(folder / "results/demo", folder / ".cuesheet/runs", NOW)
    assert status["drafting"] is None
    assert "Labels:" not in as_text(status, NOW)


def test_gpu_seconds_are_summed_over_the_runs_of_the_dataset(folder):
    usage = status_of(folder / "results/demo", folder / ".cuesheet/runs", NOW)["usage"]
    assert usage["gpu_s"] == 2 * (297 + 100)
    assert usage["calls"] == 60
    # Of the run that still says something.
    assert usage["calls_per_s"] == 1.5
    assert usage["gpu_seconds"]["vqa"] == 600.0
    assert usage["gpu_seconds"]["ready without a call"] == 68.0


def test_the_text_names_shard_job_gpu_and_log(folder):
    text = as_text(status_of(folder / "results/demo", folder / ".cuesheet/runs", NOW), NOW)
    assert text.splitlines()[0].endswith(": running")
    assert "3 done, 1 running, 1 failed, 3 waiting of 8" in text
    assert "running 00001: 1/2 (episodes 2-3), job 8 on node1, GPU 0,1, 5.0 min; log 1.log" in text
    assert "failed 00002: 0/2 (episodes 4-5), job 9" in text
    assert "failed episode 5: no drawer" in text


def test_a_folder_without_a_run_is_said_in_words(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["status"]) == 1
    assert "no run was started in this folder" in capsys.readouterr().err
    assert cli.main(["status", "demo"]) == 1
    assert "no run in this folder contained demo" in capsys.readouterr().err


def test_a_dataset_is_named_by_its_name_or_by_its_folder(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    texts = []
    for name in ("demo", "results/demo", "results/demo/", str(folder / "results/demo")):
        assert cli.main(["status", name, "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        texts.append((found["dataset"], found["episodes"]))
    assert texts == [("demo", {**texts[0][1], "total": 8, "done": 3})] * 4
    config = {"totals": {"other": {"episodes": ["000000"], "stages": ["plan"]}}}
    write(Path(".cuesheet/runs/x/config.json"), config)
    assert cli.main(["status", "nope"]) == 1
    assert "no run in this folder contained nope; its runs contained demo, other" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("outcome", "usage_age_s", "log", "state"),
    [
        (None, 1, "", "running"),
        (None, 300, "", "stopped"),
        ({"finished": True, "error": None}, 300, "", "finished"),
        ({"finished": False, "error": "no server"}, 300, "", "failed: no server"),
        ({"finished": False, "error": None}, 300, "ERROR: interrupted", "stopped"),
        ({"finished": False, "error": None}, 300, "ERROR: disk full", "failed: merge: disk full"),
        (
            {"finished": False, "error": None},
            300,
            "ERROR: 2 problems:\n  a\n  b",
            "failed: merge: 2 problems",
        ),
    ],
)
def test_the_state_of_a_run_without_shards(folder, outcome, usage_age_s, log, state):
    results, runs = folder / "results/demo", folder / ".cuesheet/runs"
    (results / "shards/run.json").unlink()
    totals = {"demo": {"episodes": ["000000", "000001"], "stages": ["plan", "vqa"]}}
    write(runs / RUN / "config.json", {"totals": totals}, age_s=500)
    usage = {**json.loads((runs / "c/usage.json").read_bytes()), "ended": outcome is not None}
    write(runs / RUN / "usage.json", usage, age_s=usage_age_s)
    if outcome is not None:
        write(runs / RUN / "outcome.json", outcome)
    for name, age_s, text in (("merge.log", 10, log), ("old/b.log", 900, "ERROR: old")):
        write(results / "logs" / name, None)
        (results / "logs" / name).write_text(f"line\n{text}\n")
        os.utime(results / "logs" / name, (NOW - age_s, NOW - age_s))
    text = as_text(status_of(results, runs, NOW), NOW)
    assert text.splitlines()[0].partition(": ")[2] == state


def test_a_run_of_a_single_target_counts_its_episode_alone(folder):
    results, runs = folder / "results/demo", folder / ".cuesheet/runs"
    (results / "shards/run.json").unlink()
    jobs = {name: {"episodes": ["000003"], "replaced": {}} for name in ("keyframes", "plan")}
    totals = {"episodes": ["000000", "000003"], "stages": ["plan", "vqa"], "jobs": jobs}
    write(runs / RUN / "config.json", {"totals": {"demo": totals}})
    status = status_of(results, runs, NOW)
    assert status["episodes"] == {"total": 1, "done": 1, "running": 0, "failed": 0, "waiting": 0}
