"""Shards without a cluster: one job for several episodes, one after the other on this machine."""

import json
import shutil

import pytest
from slurm_runs import annotations
from workflow_runs import CLUSTER_PYTHON, REPOSITORY, Workdir, needs_cluster_plugins

pytestmark = pytest.mark.workflow

TWO = {"shards": "always", "episodes_per_shard": 2}
SLURM_PROFILE = ("--workflow-profile", str(REPOSITORY / "profiles" / "slurm"))


@pytest.fixture(scope="module")
def sharded_demo(tmp_path_factory, demo_v3) -> Workdir:
    """The demo in two shards, media apart; tests copy it and do not change it."""
    work = Workdir(tmp_path_factory.mktemp("sharded") / "work")
    work.configure(dataset=str(demo_v3), cluster={**TWO, "media": "separate"})
    assert work.run().jobs == {
        "index_episodes": 1,
        "detect_signals": 1,
        "prepare_shard": 2,
        "annotate_shard": 2,
        "merge_language": 1,
        "finalize_dataset": 1,
        "summarize_dataset": 1,
        "write_report": 1,
        "build_review": 1,
    }
    return work


def test_shards_give_the_same_files_as_a_run_without(sharded_demo, finished_demo):
    one, other = annotations(finished_demo, "demo_v3"), annotations(sharded_demo, "demo_v3")
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def test_a_run_can_resume_with_and_without_shards(sharded_demo, tmp_path, demo_v3):
    work = sharded_demo.copy_to(tmp_path / "copy")
    work.configure(dataset=str(demo_v3))
    jobs = work.run("--dry-run").jobs
    assert not any(rule.startswith(("annotate", "extract", "decode")) for rule in jobs), jobs


def test_a_changed_prompt_sends_every_shard_and_asks_only_what_changed(
    sharded_demo, tmp_path, demo_v3
):
    work = sharded_demo.copy_to(tmp_path / "copy")
    prompts = tmp_path / "prompts"
    shutil.copytree(REPOSITORY / "config/prompts", prompts)
    work.configure(
        dataset=str(demo_v3), prompts_dir=str(prompts), cluster={**TWO, "media": "separate"}
    )
    work.run()
    before = {path: path.read_bytes() for path in (work.path / ".cache").rglob("*.json")}
    count = prompts / "vqa_count.md"
    count.write_text(count.read_text() + "\nCount with care.\n")
    assert work.run().jobs["annotate_shard"] == 2
    new = [path for path in (work.path / ".cache").rglob("*.json") if path not in before]
    assert new
    assert all("CountQA" in path.read_text() for path in new)
    assert "Nothing to be done" in work.run("--dry-run").output


def test_a_correction_sends_the_shard_of_its_episode_alone(sharded_demo, tmp_path, demo_v3):
    work = sharded_demo.copy_to(tmp_path / "copy")
    spans = [
        {"start_s": 0.0, "end_s": 3.0, "label": "do what a person wrote"},
        {"start_s": 3.0, "end_s": 7.6, "label": "move away"},
    ]
    value = {"format": 1, "dataset": "demo_v3", "episode_index": 2}
    correction = work.path / "corrections/demo_v3/000002.json"
    correction.parent.mkdir(parents=True)
    correction.write_text(json.dumps({**value, "subtasks": spans, "verdict": "good"}))
    untouched = (work.path / "results/demo_v3/shards/00000.json").stat().st_mtime_ns
    done = work.run()
    assert done.jobs["annotate_shard"] == 1
    assert "prepare_shard" not in done.jobs
    assert (work.path / "results/demo_v3/shards/00000.json").stat().st_mtime_ns == untouched
    plan = work.json("results/demo_v3/plan/000002.json")
    assert "do what a person wrote" in [row["content"] for row in plan["persistent"]]
    people = work.json("results/demo_v3/summary.json")["people"]
    assert people == {"good": [2], "bad": [], "corrected": [2]}
    assert "Nothing to be done" in work.run("--dry-run").output


def test_images_on_scratch_are_removed_after_the_shard_and_answers_are_the_same(
    tmp_path, demo_v3, counting_server, finished_demo, monkeypatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("NODE_DISK", str(scratch))
    work = Workdir(tmp_path / "work")
    vlm = counting_server.vlm
    cluster = {**TWO, "scratch": "$NODE_DISK"}
    work.configure(dataset=str(demo_v3), cluster=cluster, vlm=vlm)
    places = set()

    def look(request: dict) -> None:
        kept = (work.path / "results/demo_v3/keyframes").glob("*/*/*.png")
        places.update(path.resolve().relative_to(tmp_path).parts[0] for path in kept)

    counting_server.answer_instead = look
    work.run()
    assert places == {"scratch"}
    assert list(scratch.iterdir()) == []
    keyframes = work.path / "results/demo_v3/keyframes"
    assert len(list(keyframes.glob("*/keyframes.json"))) == 4
    assert [path for path in keyframes.glob("*/*") if path.is_symlink()] == []
    assert list(keyframes.rglob("*.png")) == []
    data = "results/demo_v3/annotated/data/chunk-000/file-000.parquet"
    assert (work.path / data).read_bytes() == (finished_demo.path / data).read_bytes()
    # Created again when they are needed.
    asked = len(counting_server.asked)
    (work.path / "results/demo_v3/plan/000002.json").unlink()
    assert work.run().jobs["annotate_shard"] == 1
    assert len(counting_server.asked) == asked
    assert list(scratch.iterdir()) == []
    assert "Nothing to be done" in work.run("--dry-run").output


def test_new_episodes_leave_finished_shards_alone(tmp_path, demo_v3):
    work = Workdir(tmp_path / "work")
    settings = {"dataset": str(demo_v3), "vqa": {"enabled": False}, "cluster": TWO}
    work.configure(**settings, episodes=[0, 1])
    work.run()
    made = (work.path / "results/demo_v3/shards/00000.json").stat().st_mtime_ns
    work.configure(**settings, episodes=[0, 1, 2])
    assert work.run().jobs["annotate_shard"] == 1
    assert (work.path / "results/demo_v3/shards/00000.json").stat().st_mtime_ns == made
    assert work.json("results/demo_v3/summary.json")["episodes"]["annotated"] == 3


def test_a_judge_without_a_server_is_refused_before_anything_starts(
    sharded_demo, tmp_path, demo_v3
):
    work = sharded_demo.copy_to(tmp_path / "copy")
    truth = tmp_path / "truth.csv"
    truth.write_text("episode,start_s,end_s,text\n0,0.0,2.5,approach the puck\n0,2.5,7.5,rest\n")
    settings = {"dataset": str(demo_v3), "evaluate": {"reference": str(truth), "judge": True}}
    work.configure(**settings, cluster={**TWO, "media": "separate"})
    done = work.run(check=False)
    assert done.returncode
    assert "config: evaluate.judge: found true in a run with one job per shard" in done.output
    assert "Traceback" not in done.output
    # As the message says: afterwards, without shards, nothing but the judge is asked.
    work.configure(**settings, cluster={"shards": "never"})
    jobs = work.run().jobs
    assert not any(rule.startswith(("annotate", "extract", "decode")) for rule in jobs), jobs
    assert work.json("results/demo_v3/evaluation.json")["judged_labels"] > 0


@needs_cluster_plugins
def test_a_judge_on_a_cluster_is_an_error_before_anything_is_submitted(tmp_path, demo_v3):
    work = Workdir(tmp_path / "work")
    work.python = CLUSTER_PYTHON
    settings = {"reference": str(tmp_path / "truth.csv"), "judge": True}
    (tmp_path / "truth.csv").write_text("episode,start_s,end_s,text\n0,0.0,2.5,approach the puck\n")
    work.configure(dataset=str(demo_v3), evaluate=settings, cluster={"episodes_per_shard": 2})
    done = work.run("--dry-run", *SLURM_PROFILE, check=False)
    assert done.returncode
    assert "config: evaluate.judge: found true in a run with one job per shard" in done.output


@needs_cluster_plugins
def test_the_slurm_profile_plans_shards_without_a_cluster(tmp_path, demo_v3):
    work = Workdir(tmp_path / "work")
    work.python = CLUSTER_PYTHON
    work.configure(dataset=str(demo_v3), cluster={"episodes_per_shard": 1})
    jobs = work.run("--dry-run", *SLURM_PROFILE).jobs
    assert jobs["annotate_shard"] == 4
    assert not any(rule.startswith(("annotate_plan", "decode")) for rule in jobs)
