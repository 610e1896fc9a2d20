"""Inspected episodes: requests, rows of left-out episodes, and reruns."""

import json

import pyarrow.parquet as pq
import pytest
from workflow_runs import CountingServer, Workdir

pytestmark = pytest.mark.workflow

DATA = "results/demo_v3/annotated/data/chunk-000/file-000.parquet"


def failing(task):
    """A reply that a task was not achieved."""

    def instead(body):
        if body["response_format"]["json_schema"]["name"] != "EpisodeVerdict":
            return None
        if task not in body["messages"][1]["content"][-1]["text"]:
            return None
        reply = {"why": "The drawer is shut.", "achieved": "no", "retried": False}
        message = {"role": "assistant", "content": json.dumps(reply)}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return 200, json.dumps({"model": "cuesheet-demo-1", "choices": [choice]}).encode()

    return instead


def rows_by_episode(work: Workdir) -> dict[int, int]:
    table = pq.read_table(work.path / DATA, columns=["episode_index", "language_persistent"])
    return {row["episode_index"]: len(row["language_persistent"]) for row in table.to_pylist()}


def test_a_failed_episode_is_left_out_and_listed_and_switching_it_off_asks_nothing(
    workdir: Workdir, counting_server: CountingServer, demo_v3
):
    settings = {
        "dataset": str(demo_v3),
        "episodes": [0, 1],
        "vqa": {"enabled": False},
        "interjections": {"enabled": False},
        "vlm": counting_server.vlm,
    }
    workdir.configure(**settings)
    assert "inspect_episode" not in workdir.run("annotations").jobs
    counting_server.asked.clear()
    counting_server.answer_instead = failing("Open a drawer")
    workdir.configure(**settings, inspect={"enabled": True}, output={"leave_out": "failed"})
    jobs = workdir.run("all", "exports").jobs
    assert jobs["inspect_episode"] == 2
    assert "annotate_plan" not in jobs
    plans = [workdir.json(f"results/demo_v3/plan/00000{n}.json") for n in (0, 1)]
    kinds = counting_server.kinds()
    assert kinds.count("EpisodeVerdict") == 2
    assert kinds.count("SubtaskVerdict") == sum(len(plan["subtasks"]) for plan in plans)
    assert len(kinds) == 2 + kinds.count("SubtaskVerdict")
    rows = rows_by_episode(workdir)
    assert rows[0] > 0
    assert rows[1] == 0
    summary = workdir.json("results/demo_v3/summary.json")
    assert summary["inspection"]["failed"] == summary["inspection"]["left_out"] == [1]
    assert summary["calls"]["total"] >= len(kinds)
    text = (workdir.path / "results/demo_v3/summary.txt").read_text()
    assert "1 failed (1)" in text
    page = (workdir.path / "results/demo_v3/report.html").read_text()
    assert page.index('href="review/index.html#episode=1"') < page.index("failed, without rows")
    assert "The drawer is shut." in page

    lines = (workdir.path / "results/demo_v3/inspections.jsonl").read_text().splitlines()
    exported = [json.loads(line) for line in lines]
    assert [(one["episode_index"], one["verdict"], one["has_rows"]) for one in exported][1] == (
        1, "failed", False
    )  # fmt: skip

    counting_server.asked.clear()
    workdir.configure(**settings)
    jobs = workdir.run().jobs
    assert counting_server.asked == []
    assert "inspect_episode" not in jobs
    assert rows_by_episode(workdir)[1] > 0
    assert workdir.json("results/demo_v3/summary.json")["inspection"]["left_out"] == []


def test_a_sharded_run_inspects_inside_its_shards(workdir: Workdir, demo_v3):
    workdir.configure(
        dataset=str(demo_v3),
        episodes=[0, 1],
        vqa={"enabled": False},
        interjections={"enabled": False},
        inspect={"enabled": True},
        cluster={"shards": "always", "episodes_per_shard": 2},
    )
    assert "inspect_episode" not in workdir.run("annotations").jobs
    found = [workdir.json(f"results/demo_v3/inspection/00000{n}.json") for n in (0, 1)]
    assert all(one["episode"]["achieved"] in ("yes", "no") for one in found)
    (workdir.path / "results/demo_v3/inspection/000001.json").unlink()
    assert workdir.run("--dry-run", "annotations").jobs["annotate_shard"] == 1
