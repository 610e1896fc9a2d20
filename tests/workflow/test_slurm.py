"""The workflow on a real SLURM of this machine (tests/slurm_cluster.py), one job a shard."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_cluster
from real_servers import PYTHON, make_model, vllm_settings
from slurm_runs import (
    SlurmWorkdir,
    annotations,
    answered_twice,
    eventually,
    job_state,
    orphans_in,
    resources,
    slurm,
)
from workflow_runs import REPOSITORY, CountingServer, Workdir

pytestmark = [pytest.mark.slurm, pytest.mark.workflow]

SHARDS = ("00000", "00001")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    try:
        slurm_cluster.start(nodes=1, gpus=2)
    except slurm_cluster.NoClusterError as error:
        pytest.skip(f"no SLURM for tests on this machine: {error}")
    yield
    slurm_cluster.stop()


@pytest.fixture
def work(tmp_path: Path) -> Iterator[SlurmWorkdir]:
    """A working directory; its jobs are ended after the test, whatever became of the run."""
    yield SlurmWorkdir(tmp_path / "work")
    slurm("scancel", "--user", "root")
    eventually(lambda: not slurm("squeue", "--noheader"))


@pytest.fixture
def external(work: SlurmWorkdir, counting_server: CountingServer, demo_v3: Path) -> SlurmWorkdir:
    """The demo in two shards that ask one server of others, which counts."""
    configure_external(work, counting_server, demo_v3)
    return work


def configure_external(work, server, dataset, **changes) -> None:
    vlm = {"serve": "external", "model": "cuesheet-offline-1", "base_urls": [server.base_url]}
    cluster = {"episodes_per_shard": 2}
    work.configure(dataset=str(dataset), vlm=vlm, cluster=cluster, **changes)


def running(work: SlurmWorkdir, shard: str = "00000") -> bool:
    return work.state(shard).get("state") == "running"


def assert_done(work: SlurmWorkdir) -> None:
    assert work.json("results/demo_v3/summary.json")["episodes"]["annotated"] == 4
    assert [work.state(shard)["state"] for shard in SHARDS] == ["done", "done"]
    assert "Nothing to be done" in work.run("--dry-run").output
    assert orphans_in(work.path) == []


# A run where nothing goes wrong


@pytest.fixture(scope="module")
def local_dev(tmp_path_factory, dev_v3) -> Workdir:
    work = Workdir(tmp_path_factory.mktemp("local") / "work")
    work.configure(dataset=str(dev_v3))
    work.run()
    return work


@pytest.fixture(scope="module")
def slurm_dev(cluster, tmp_path_factory, dev_v3) -> SlurmWorkdir:
    """dev_v3 in four shards on two GPUs, each with an offline VLM of its own."""
    work = SlurmWorkdir(tmp_path_factory.mktemp("slurm") / "work")
    work.configure(dataset=str(dev_v3), cluster={"episodes_per_shard": 3})
    work.output = work.run(*resources(gpu=1, slurm_partition="gpu")).output
    return work


def test_four_shards_on_slurm_give_the_files_of_a_local_run_byte_by_byte(local_dev, slurm_dev):
    local, cluster = annotations(local_dev, "dev_v3"), annotations(slurm_dev, "dev_v3")
    assert len(local) > 100
    assert local.keys() == cluster.keys()
    assert [name for name in local if local[name] != cluster[name]] == []


def test_each_gpu_job_has_a_gpu_of_its_own(slurm_dev):
    states = [slurm_dev.state(f"{number:05d}", "dev_v3") for number in range(4)]
    assert len({state["job_id"] for state in states}) == 4
    assert {state["gpus"] for state in states} == {"0", "1"}
    for one in states:
        for other in states:
            overlap = (
                one["started_at"] < other["updated_at"] and other["started_at"] < one["updated_at"]
            )
            assert one is other or not overlap or one["gpus"] != other["gpus"]


def test_servers_on_one_node_do_not_collide(slurm_dev):
    servers = [
        json.loads(path.read_text())
        for path in (slurm_dev.path / ".cuesheet/runs").glob("*/server.json")
    ]
    assert len(servers) == 4
    assert len({server["url"] for server in servers}) == 4
    assert len({server["api_key"] for server in servers}) == 4
    assert {server["state"] for server in servers} == {"stopped"}


def test_a_finished_run_has_nothing_to_do_on_slurm(slurm_dev):
    assert "Nothing to be done" in slurm_dev.run("--dry-run").output


def test_a_deleted_file_sends_its_shard_alone_and_costs_no_call(slurm_dev, tmp_path):
    work = SlurmWorkdir(slurm_dev.copy_to(tmp_path / "copy").path)
    (work.path / "results/dev_v3/plan/000004.json").unlink()
    assert work.run("--dry-run").jobs["annotate_shard"] == 1
    done = work.run(*resources(gpu=1))
    assert done.jobs["annotate_shard"] == 1
    assert work.json("results/dev_v3/plan/000004.json")["provenance"]["calls"][0]["cache_hit"]
    assert "Nothing to be done" in work.run("--dry-run").output


@pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-vllm; run: make vllm")
def test_two_shards_with_a_real_vllm_each_on_a_gpu_of_its_own(work, demo_v3, tmp_path):
    work.configure(
        dataset=str(demo_v3),
        episodes=[1, 2],
        cluster={"episodes_per_shard": 2},
        vlm=vllm_settings(make_model(tmp_path / "tiny-qwen2.5-vl")),
        vqa={"hz": 0.5},
    )
    # Its GPUs follow from the model's settings.
    work.run(*resources(mem_mb=7000))
    assert work.json("results/demo_v3/summary.json")["episodes"]["annotated"] == 2
    states = [work.state(shard) for shard in SHARDS]
    assert {state["gpus"] for state in states} == {"0", "1"}
    commands = set()
    for path in (work.path / ".cuesheet/runs").glob("*/supervisor.log"):
        commands |= set(re.findall(r"vllm\.entrypoints.* --port (\d+)", path.read_text()))
        usage = json.loads(path.with_name("usage.json").read_text())
        assert usage["gpus"] == 1
        assert usage["seconds"]["loading"] > 0
        assert usage["ended"]
    assert len(commands) == 2
    for episode in (1, 2):
        assert work.json(f"results/demo_v3/validation/{episode:06d}.json")["errors"] == []
    assert orphans_in(work.path) == []


# Trouble


def test_a_canceled_shard_is_named_and_goes_on_where_it_was(external, counting_server):
    counting_server.delay_s = 0.3
    run = external.start_and_read("--retries", "0", *resources())
    eventually(lambda: running(external) and external.replies() >= 6, run)
    job = external.state("00000")["job_id"]
    slurm("scancel", job)
    output = run.communicate()[0]
    assert run.returncode != 0
    assert re.search(
        rf"shard 00000 of demo_v3, job {job} on \S+, episodes 0-1: .*cancel.*"
        r"Log: results/demo_v3/logs/annotate_shard/00000\.log",
        output,
    ), output
    assert external.state("00001")["state"] == "done"
    counting_server.delay_s = 0.0
    external.run(*resources())
    assert_done(external)
    assert answered_twice(counting_server) == []


def test_a_shard_that_runs_into_its_time_limit_is_finished_by_the_next_attempt(
    external, counting_server
):
    # SLURM counts minutes. The first attempt waits for an answer until its minute is over.
    stuck = {"left": True}

    def slow_at_first(request):
        if stuck["left"] and "drawer" in str(request) and "Segmentation" in str(request):
            eventually(lambda: not stuck["left"])
        return None

    counting_server.answer_instead = slow_at_first
    run = external.start_and_read("--retries", "1", *resources(runtime="attempt"))
    eventually(lambda: running(external), run)
    first = external.state("00000")["job_id"]
    eventually(lambda: job_state(first) == "TIMEOUT", run)
    stuck["left"] = False
    output = run.communicate()[0]
    assert run.returncode == 0, output
    assert external.state("00000")["job_id"] != first
    assert_done(external)


def test_a_shard_without_enough_memory_is_finished_by_the_next_attempt(external, counting_server):
    # More than Snakemake itself takes, less than with the inner run; ten times that at the second.
    memory = resources(mem_mb="300 if attempt == 1 else 3000")
    done = external.run("--retries", "1", *memory)
    assert "annotate_shard" in done.output
    jobs = re.findall(r"with SLURM jobid (\d+).*rule_annotate_shard", done.output)
    assert len(jobs) > 2
    assert_done(external)
    assert answered_twice(counting_server) == []


def test_a_drained_node_lets_its_job_end_and_takes_the_next_when_it_is_back(
    external, counting_server
):
    counting_server.delay_s = 0.2
    (node,) = slurm("sinfo", "--noheader", "--partition=gpu", "--format=%N").split()
    # Both shards want all of the memory: one after the other.
    run = external.start_and_read(*resources(mem_mb=12000))
    eventually(lambda: any(running(external, shard) for shard in SHARDS), run)
    slurm("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        eventually(lambda: "done" in [external.state(shard).get("state") for shard in SHARDS], run)
        assert sum(bool(external.state(shard)) for shard in SHARDS) == 1
    finally:
        slurm("scontrol", "update", f"NodeName={node}", "State=RESUME")
    output = run.communicate()[0]
    assert run.returncode == 0, output
    assert_done(external)
    assert answered_twice(counting_server) == []


def test_a_killed_head_process_leaves_jobs_that_make_way_for_those_of_the_next_run(
    external, counting_server
):
    counting_server.delay_s = 5.0
    run = external.start_and_read(*resources())
    eventually(lambda: all(running(external, shard) for shard in SHARDS), run)
    before = {external.state(shard)["job_id"] for shard in SHARDS}
    eventually(lambda: external.replies() >= 6, run)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert {job_state(job) for job in before} == {"RUNNING"}
    external.run("--unlock")
    # The jobs that were left behind would take minutes; they end as soon as a new run is there.
    taking_over = external.start_and_read(*resources())
    eventually(lambda: {job_state(job) for job in before}.isdisjoint({"RUNNING"}), taking_over)
    counting_server.delay_s = 0.0
    output = taking_over.communicate()[0]
    assert taking_over.returncode == 0, output
    assert before.isdisjoint(external.state(shard)["job_id"] for shard in SHARDS)
    assert_done(external)
    assert answered_twice(counting_server) == []


def test_a_shard_whose_server_is_never_ready_is_named_and_the_others_are_done(
    work, demo_v3, tmp_path
):
    server = tmp_path / "server.py"
    server.write_text(SERVER_OF_THE_SECOND_GPU_ALONE)
    work.configure(
        dataset=str(demo_v3),
        cluster={"episodes_per_shard": 2},
        vlm={
            "serve": "managed",
            "model": "cuesheet-offline-1",
            "ready_timeout_s": 60,
            "managed": {
                "command": [sys.executable, str(server), "{port}", str(REPOSITORY / "scripts")]
            },
        },
    )
    done = work.run("--retries", "0", *resources(), check=False)
    assert done.returncode != 0
    states = {shard: work.state(shard)["state"] for shard in SHARDS}
    assert sorted(states.values()) == ["done", "failed"]
    (failed,) = [shard for shard in SHARDS if states[shard] == "failed"]
    job = work.state(failed)["job_id"]
    named = rf"shard {failed} of demo_v3, job {job} on .*was not ready within 60 s.*{failed}\.log"
    assert re.search(named, done.output), done.output
    # No episode is marked as bad, and the next run, on a GPU that works, finishes.
    assert not list((work.path / "results/demo_v3/failed").rglob("*.json"))
    server.write_text(SERVER_OF_THE_SECOND_GPU_ALONE.replace("== '0'", "== 'none'"))
    work.run(*resources())
    assert_done(work)


SERVER_OF_THE_SECOND_GPU_ALONE = """
import os, sys, time
while os.environ.get("CUDA_VISIBLE_DEVICES") == '0':
    time.sleep(1)
sys.path.insert(0, sys.argv[2])
from cuesheet.offline_vlm.__main__ import main
sys.exit(main(["--port", sys.argv[1], "--workers", "1"]))
"""


def test_one_bad_episode_leaves_its_shard_and_the_others_done(external, counting_server):
    def refuse(request):
        bad = "drawer" in str(request) and "Segmentation" in str(request["response_format"])
        return (400, json.dumps({"error": {"message": "no"}}).encode()) if bad else None

    counting_server.answer_instead = refuse
    done = external.run(*resources(), check=False)
    assert done.returncode != 0
    job = external.state("00000")["job_id"]
    assert re.search(
        rf"episode 1 \(shard 00000 of demo_v3, job {job} on \S+\) failed: .*400 no.*"
        r"Log: results/demo_v3/logs/annotate_plan/000001\.log",
        done.output,
    ), done.output
    assert external.json("results/demo_v3/shards/00000.json")["failed"] == ["000001"]
    validated = (external.path / "results/demo_v3/validation").glob("*.json")
    assert {path.stem for path in validated} == {"000000", "000002", "000003"}
    counting_server.answer_instead = lambda request: None
    again = external.run(*resources())
    assert again.jobs["annotate_shard"] == 1
    assert_done(external)
    counting_server.answered = [body for body in counting_server.answered if not refuse(body)]
    assert answered_twice(counting_server) == []
