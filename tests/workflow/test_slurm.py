"""The workflow on a real SLURM of this machine (tests/slurm_cluster.py), one job per shard."""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import slurm_cluster
from processes import kill_all, processes_in
from real_servers import PYTHON, make_model, vllm_settings
from slurm_runs import (
    Hold,
    SlurmWorkdir,
    annotations,
    answered_twice,
    eventually,
    job_state,
    orphans_in,
    resources,
    slurm,
)
from workflow_runs import CountingServer, Workdir, needs_cluster_plugins

pytestmark = [pytest.mark.slurm, pytest.mark.workflow, needs_cluster_plugins]

SHARDS = ("00000", "00001")
# Merging and what follows are the same without a cluster, and each is one more job.
TARGET = "annotations"
FOUR = ["0-3"]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    try:
        slurm_cluster.start(nodes=1, gpus=2)
    except slurm_cluster.NoClusterError as error:
        pytest.skip(f"no SLURM for tests on this machine: {error}")
    yield
    slurm_cluster.stop()


@pytest.fixture(scope="module")
def indexed(tmp_path_factory, demo_v3: Path) -> Workdir:
    """A working directory with the index of the demo, which is one more job on SLURM."""
    work = Workdir(tmp_path_factory.mktemp("indexed") / "work")
    work.configure(dataset=str(demo_v3))
    work.run("results/demo_v3/signals/layout.json")
    shutil.rmtree(work.path / ".cuesheet")  # tests look at those of their own runs
    return work


@pytest.fixture
def work(indexed: Workdir, tmp_path: Path) -> Iterator[SlurmWorkdir]:
    """A copy of it; its jobs are ended after the test, whatever became of the run."""
    yield SlurmWorkdir(indexed.copy_to(tmp_path / "work").path)
    slurm("scancel", "--user", "root")
    eventually(lambda: not slurm("squeue", "--noheader"))
    kill_all(processes_in(tmp_path / "work"))


@pytest.fixture
def external(work: SlurmWorkdir, counting_server: CountingServer, demo_v3: Path) -> SlurmWorkdir:
    """The demo in two shards that ask one server of others, which counts."""
    configure_external(work, counting_server, demo_v3)
    return work


def configure_external(work, server, dataset, **changes) -> None:
    vlm = server.vlm
    cluster = {"episodes_per_shard": 2}
    work.configure(dataset=str(dataset), vlm=vlm, cluster=cluster, vqa={"hz": 0.5}, **changes)


def running(work: SlurmWorkdir, shard: str = "00000") -> bool:
    return work.state(shard).get("state") == "running"


def assert_done(work: SlurmWorkdir, shards: Sequence[str] = SHARDS) -> None:
    done = (work.path / "results/demo_v3/validation").glob("*.json")
    assert {path.stem for path in done} == {"000000", "000001", "000002", "000003"}
    assert [work.state(shard)["state"] for shard in shards] == ["done"] * len(shards)
    assert "Nothing to be done" in work.run(TARGET, "--dry-run").output
    eventually(lambda: orphans_in(work.path) == [])


# A run without failures


@pytest.fixture(scope="module")
def local_dev(tmp_path_factory, dev_v3) -> Workdir:
    work = Workdir(tmp_path_factory.mktemp("local") / "work")
    work.configure(dataset=str(dev_v3), episodes=FOUR)
    work.run()
    return work


@pytest.fixture(scope="module")
def slurm_dev(cluster, tmp_path_factory, dev_v3) -> SlurmWorkdir:
    """dev_v3 in four shards on two GPUs, each with a demo model of its own."""
    work = SlurmWorkdir(tmp_path_factory.mktemp("slurm") / "work")
    work.configure(dataset=str(dev_v3), episodes=FOUR, cluster={"episodes_per_shard": 1})
    work.output = work.run(*resources(gpu=1, slurm_partition="gpu")).output
    return work


def test_four_shards_on_slurm_give_the_files_of_a_local_run_byte_by_byte(local_dev, slurm_dev):
    local, cluster = annotations(local_dev, "dev_v3"), annotations(slurm_dev, "dev_v3")
    assert len(local) > 100
    assert local.keys() == cluster.keys()
    assert [name for name in local if local[name] != cluster[name]] == []


def test_each_gpu_job_has_its_own_gpu(slurm_dev):
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
    (work.path / "results/dev_v3/plan/000002.json").unlink()
    assert work.run("--dry-run").jobs["annotate_shard"] == 1
    done = work.run(TARGET, *resources(gpu=1))
    assert done.jobs["annotate_shard"] == 1
    assert work.json("results/dev_v3/plan/000002.json")["provenance"]["calls"][0]["cache_hit"]
    assert "Nothing to be done" in work.run(TARGET, "--dry-run").output


@pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-vllm; run: make vllm")
def test_two_shards_with_a_real_vllm_each_on_its_own_gpu(work, demo_v3, tmp_path):
    work.configure(
        dataset=str(demo_v3),
        episodes=[1, 2],
        cluster={"episodes_per_shard": 2},
        vlm=vllm_settings(make_model(tmp_path / "tiny-qwen2.5-vl")),
        vqa={"hz": 0.5},
    )
    # Its GPUs follow from the model's settings.
    work.run(TARGET, *resources(mem_mb=7000))
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
    eventually(lambda: orphans_in(work.path) == [])


# Trouble: what is paid are answers of the counting server, and none is paid twice


def test_shards_that_the_cluster_ends_are_named_and_resume(
    work, counting_server, demo_v3, tmp_path
):
    """One is out of memory, one out of time, one canceled; the fourth is done meanwhile."""
    program, eat = tmp_path / "relay.py", tmp_path / "eat"
    program.write_text(RELAY)
    words = [sys.executable, str(program), "{port}", counting_server.base_url, str(eat)]
    vlm = {"serve": "managed", "model": "cuesheet-demo-1", "managed": {"command": words}}
    cluster = {"episodes_per_shard": 1}
    work.configure(dataset=str(demo_v3), vlm=vlm, cluster=cluster, vqa={"hz": 0.5})
    asks = resources(mem_mb=2500, runtime=10)
    shards = ("00000", "00001", "00002", "00003")
    hold = Hold(counting_server, after=8)
    run = work.start(TARGET, "--retries", "0", *asks, reads_output=True)

    # The two on the two GPUs wait for answers, so that nothing is lost that was paid.
    eventually(lambda: sum(running(work, shard) for shard in shards) == 2, run)
    ended = [shard for shard in shards if running(work, shard)]
    eventually(hold.holds_everything, run)
    jobs = [work.state(shard)["job_id"] for shard in ended]
    eat.write_text(jobs[0])
    slurm("scontrol", "update", f"JobId={jobs[1]}", "EndTime=now+2")
    eventually(lambda: not {job_state(job) for job in jobs} & {"RUNNING", "COMPLETING"}, run)
    hold.release()

    # The third has seconds to get the answers that it waits for.
    counting_server.delay_s = 0.3
    others = [shard for shard in shards if shard not in ended]
    eventually(lambda: any(running(work, shard) for shard in others), run)
    ended.append(next(shard for shard in others if running(work, shard)))
    before = work.replies()
    eventually(lambda: work.replies() >= before + 4, run)
    jobs.append(work.state(ended[2])["job_id"])
    slurm("scancel", jobs[2])
    output = run.communicate()[0]
    assert run.returncode != 0
    causes = ("memory.*OUT_OF_MEMORY", "time limit.*TIMEOUT", "cancel")
    for shard, job, cause in zip(ended, jobs, causes, strict=True):
        assert re.search(
            rf"shard {shard} of demo_v3, job {job} on \S+, episodes {int(shard)}: .*{cause}.*"
            rf"Log: results/demo_v3/logs/annotate_shard/{shard}\.log",
            output,
        ), output
    assert {work.state(shard)["state"] for shard in shards if shard not in ended} == {"done"}

    eat.unlink()
    counting_server.delay_s = 0.0
    again = work.run(TARGET, *asks)
    assert again.jobs["annotate_shard"] == 3
    assert_done(work, shards)
    assert answered_twice(counting_server) == []


# A model server in the shard's job that passes everything on, and takes memory when told so.
RELAY = """
import http.server, os, signal, sys, threading, time, urllib.error, urllib.request
port, upstream, eat = int(sys.argv[1]), sys.argv[2], sys.argv[3]

class Relay(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.ask(None)
    def do_POST(self): self.ask(self.rfile.read(int(self.headers["Content-Length"])))
    def log_message(self, *arguments): pass
    def ask(self, body):
        where = upstream.removesuffix("/v1") + self.path
        request = urllib.request.Request(where, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as reply:
                status, content = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

def take_memory():
    while not os.path.exists(eat) or open(eat).read() != os.environ["SLURM_JOB_ID"]:
        time.sleep(0.2)
    kept = b"x" * 3_000_000_000
    time.sleep(600)

threading.Thread(target=take_memory, daemon=True).start()
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Relay)
server.daemon_threads = False
# A signal to the job reaches this process too: it answers what it was asked, then it ends.
end = lambda *_: threading.Thread(target=server.shutdown).start()
signal.signal(signal.SIGTERM, end)
server.serve_forever()
server.server_close()
"""


def test_a_shard_that_is_put_back_and_a_drained_node_need_no_new_run(external, counting_server):
    counting_server.delay_s = 0.2
    (node,) = slurm("sinfo", "--noheader", "--partition=gpu", "--format=%N").split()
    # Both shards want all of the memory: one after the other.
    run = external.start(TARGET, "--retries", "0", *resources(mem_mb=12000), reads_output=True)
    eventually(lambda: any(running(external, shard) for shard in SHARDS), run)
    (put_back,) = [shard for shard in SHARDS if running(external, shard)]
    eventually(lambda: external.replies() >= 4, run)
    # Like preemption in a partition with REQUEUE.
    job = external.state(put_back)["job_id"]
    slurm("scontrol", "requeue", job)
    eventually(lambda: not running(external, put_back), run)
    eventually(lambda: any(running(external, shard) for shard in SHARDS), run)
    slurm("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        eventually(lambda: "done" in [external.state(shard).get("state") for shard in SHARDS], run)
        assert [external.state(shard).get("state") for shard in SHARDS].count("done") == 1
    finally:
        slurm("scontrol", "update", f"NodeName={node}", "State=RESUME")
    output = run.communicate()[0]
    assert run.returncode == 0, output
    assert external.state(put_back)["job_id"] == job
    assert_done(external)
    assert answered_twice(counting_server) == []


def test_a_killed_head_process_leaves_jobs_that_make_way_for_those_of_the_next_run(
    external, counting_server
):
    counting_server.delay_s = 5.0
    run = external.start(TARGET, *resources(), reads_output=True)
    eventually(lambda: all(running(external, shard) for shard in SHARDS), run)
    before = {external.state(shard)["job_id"] for shard in SHARDS}
    eventually(lambda: external.replies() >= 6, run)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert {job_state(job) for job in before} == {"RUNNING"}
    external.run("--unlock")
    # The jobs that were left behind would take minutes; they end as soon as a new run is there.
    taking_over = external.start(TARGET, *resources(), reads_output=True)
    eventually(lambda: {job_state(job) for job in before}.isdisjoint({"RUNNING"}), taking_over)
    counting_server.delay_s = 0.0
    output = taking_over.communicate()[0]
    assert taking_over.returncode == 0, output
    assert before.isdisjoint(external.state(shard)["job_id"] for shard in SHARDS)
    assert_done(external)
    assert answered_twice(counting_server) == []


def test_a_shard_whose_server_is_never_ready_is_named_and_the_others_are_done(
    work, counting_server, demo_v3, tmp_path
):
    server = tmp_path / "server.py"
    server.write_text(ONLY_ON_THE_SECOND_GPU + RELAY)
    words = [sys.executable, str(server), "{port}", counting_server.base_url, "never"]
    managed = {"command": words}
    vlm = {"serve": "managed", "model": "cuesheet-demo-1", "managed": managed}
    vlm["ready_timeout_s"] = 30
    cluster = {"episodes_per_shard": 2}
    work.configure(dataset=str(demo_v3), cluster=cluster, vlm=vlm, vqa={"hz": 0.5})
    done = work.run(TARGET, "--retries", "0", *resources(), check=False)
    assert done.returncode != 0
    states = {shard: work.state(shard)["state"] for shard in SHARDS}
    assert sorted(states.values()) == ["done", "failed"]
    (failed,) = [shard for shard in SHARDS if states[shard] == "failed"]
    job, episodes = work.state(failed)["job_id"], {"00000": "0-1", "00001": "2-3"}[failed]
    assert re.search(
        rf"shard {failed} of demo_v3, job {job} on \S+, episodes {episodes}: "
        rf".*was not ready within 30 s.*Log: results/demo_v3/logs/annotate_shard/{failed}\.log",
        done.output,
    ), done.output
    # No episode is marked as bad, and the next run, on a GPU that works, finishes.
    assert not list((work.path / "results/demo_v3/failed").rglob("*.json"))
    server.write_text(RELAY)
    work.run(TARGET, *resources())
    assert_done(work)
    assert answered_twice(counting_server) == []


ONLY_ON_THE_SECOND_GPU = """
import os, time
while os.environ.get("CUDA_VISIBLE_DEVICES") == "0":
    time.sleep(1)
"""


def test_one_bad_episode_leaves_its_shard_and_the_others_done(external, counting_server):
    def refuse(request):
        bad = "drawer" in str(request) and "Segmentation" in str(request["response_format"])
        return (400, json.dumps({"error": {"message": "no"}}).encode()) if bad else None

    counting_server.answer_instead = refuse
    # The data file is not written without the episode.
    done = external.run("--retries", "0", *resources(), check=False)
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
    again = external.run(TARGET, *resources())
    assert again.jobs["annotate_shard"] == 1
    assert_done(external)
    assert answered_twice(counting_server) == []
