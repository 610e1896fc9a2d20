"""The shards of a run: which episodes they do, what they depend on, and what is left to do."""

import json
from pathlib import Path

import pytest

from cuesheet.cluster.plan import ShardPlan, ShardPlans
from cuesheet.cluster.report import report_unfinished, start_record
from cuesheet.config.cluster import ClusterConfig
from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError
from cuesheet.workflow.run_dataset import RunDataset

FRONT = "observation.images.front"
STAGES = ("plan", "vqa")


@pytest.fixture
def plan_of(demo_v3, tmp_path):
    """Plan demo_v3, whose four episodes are two per shard."""

    def make(selected=(0, 1, 2, 3), **changes) -> ShardPlan:
        dataset = RunDataset(
            "demo",
            read_dataset(demo_v3, "demo"),
            selected,
            FRONT,
            [FRONT],
            demo_v3,
            results_root=tmp_path,
            **changes,
        )
        return ShardPlan(dataset, ClusterConfig(episodes_per_shard=2), STAGES)

    return make


def write(path: Path, value: object = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value or {}))


def finish(plan: ShardPlan, *episodes: int) -> None:
    for index in episodes:
        for stage in ("validation", *STAGES):
            write(plan.layout.stage_file(stage, index))


def test_a_shard_has_only_selected_episodes_and_empty_shards_are_left_out(plan_of):
    assert plan_of().shards == {"00000": [0, 1], "00001": [2, 3]}
    assert plan_of(selected=[2]).shards == {"00001": [2]}
    assert plan_of(kept=frozenset({0, 1})).shards == {"00001": [2, 3]}


def test_an_unknown_shard_is_an_error_that_names_an_existing_one(plan_of):
    with pytest.raises(CuesheetError, match=r"demo has no shard 00007 .*for example 0000"):
        plan_of().episodes("00007")


def test_an_episode_that_failed_before_is_not_worked_on(plan_of):
    assert plan_of(left_out=frozenset({1})).worked_on("00000") == [0]


def test_the_minutes_of_a_shard_are_its_video_at_the_configured_speed(plan_of):
    plan = plan_of()
    lengths = [plan.dataset.source.episode(index).length for index in (0, 1)]
    expected = sum(lengths) / plan.dataset.source.fps / 60 / ClusterConfig().video_speed
    assert plan.minutes("00000") == pytest.approx(expected)


def test_the_shares_of_all_jobs_follow_one_another(plan_of):
    first, second = plan_of(), plan_of(selected=[0, 1, 2])
    second.drafted = [0]
    plans = ShardPlans({"a": first, "b": second})
    assert plans.shares == {
        ("a", "vocabulary"): (0.0, 0.0),
        ("b", "vocabulary"): (0.0, 1 / 8),
        ("a", "00000"): (1 / 8, 3 / 8),
        ("a", "00001"): (3 / 8, 5 / 8),
        ("b", "00000"): (5 / 8, 7 / 8),
        ("b", "00001"): (7 / 8, 1.0),
    }


def test_a_verdict_changes_what_a_shard_depends_on_but_not_its_media(plan_of, monkeypatch):
    plan = plan_of()
    sources, media = plan.sources("00000"), plan.media_sources("00000")
    verdict = staticmethod(lambda index: "bad" if index == 1 else None)
    monkeypatch.setattr(RunDataset, "verdict", verdict)
    assert plan.sources("00000") != sources
    assert plan.media_sources("00000") == media


def test_markers_are_those_of_the_shards_of_the_episodes(plan_of):
    plan = plan_of()
    assert plan.markers_of([3, 2]) == [plan.marker("00001")]
    assert plan.markers_of([0, 3]) == [plan.marker("00000"), plan.marker("00001")]


def test_a_marker_without_all_its_annotations_is_invalidated(plan_of):
    plan = plan_of()
    finish(plan, 0, 1, 2)
    for shard in plan.shards:
        write(Path(plan.marker(shard)), {"failed": []})
    assert plan.gaps() == {"00001": [3]}
    ShardPlans(demo=plan).invalidate_incomplete_shards()
    assert Path(plan.marker("00000")).exists()
    assert not Path(plan.marker("00001")).exists()


def unfinished(plan: ShardPlan, run: str) -> list[str]:
    lines: list[str] = []
    report_unfinished({"demo": plan}, run, lines.append)
    return lines


def write_state(plan: ShardPlan, shard: str, run: str, **more: object) -> None:
    state = {"run": run, "host": "node7", "state": "failed", "targets": ["annotations"]}
    write(plan.layout.shard_state(shard), {**state, "episodes": [[2, 3]], "log": "x.log", **more})


def test_the_record_of_a_run_has_its_stages_and_its_shards(plan_of):
    plan = plan_of()
    run = start_record({"demo": plan})
    record = json.loads(plan.layout.shard_run.read_text())
    assert record["run"] == run
    assert record["stages"] == list(STAGES)
    assert sorted(record["shards"]) == ["00000", "00001"]
    assert plan.layout.shard_assignment.is_file()
    assert start_record({"demo": plan}) != run


def test_a_shard_that_ended_without_a_marker_is_reported_with_its_cause_and_log(plan_of):
    plan = plan_of()
    write_state(plan, "00001", "now", error="shard 00001 of demo has no model server.")
    assert unfinished(plan, "now") == [
        "Cuesheet: shard 00001 of demo, on node7, episodes 2-3: has no model server. Log: x.log"
    ]
    assert unfinished(plan, "another run") == []


def test_a_finished_shard_reports_its_failed_episodes_only(plan_of):
    plan = plan_of()
    write_state(plan, "00001", "now", state="done")
    write(Path(plan.marker("00001")), {"failed": ["000003"]})
    write(plan.layout.failed / "annotate_plan" / "000003.json", {"error": "No.", "log": "p.log"})
    assert unfinished(plan, "now") == [
        "Cuesheet: episode 3 (shard 00001 of demo, on node7) failed: No. Log: p.log"
    ]
    write(Path(plan.marker("00001")), {"failed": []})
    assert unfinished(plan, "now") == []


@pytest.mark.parametrize(
    ("state", "log", "cause"),
    [
        ("TIMEOUT", "", "raise `runtime`"),
        ("FAILED", "slurmstepd: error: Detected 1 oom_kill event", "raise `mem_mb`"),
        ("COMPLETED", "", "ended without an error message"),
    ],
)
def test_the_cause_of_a_lost_job_is_what_slurm_says(
    plan_of, tmp_path, monkeypatch, state, log, cause
):
    (tmp_path / "slurm.log").write_text(log)
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(
        f'#!/bin/sh\necho "JobId=$4 JobState={state} StdOut={tmp_path}/slurm.log"\n'
    )
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:/usr/bin:/bin")
    plan = plan_of()
    write_state(plan, "00001", "now", job_id="41")
    (line,) = unfinished(plan, "now")
    assert "job 41 on node7" in line
    assert cause in line
