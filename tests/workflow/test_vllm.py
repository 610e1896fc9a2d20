"""A real vLLM with a tiny random model, started, watched and ended by the run.

The model writes random words. So nothing is said here about what they mean: only that replies have
the form that was asked for, that the rows hold what must always hold, and that no process stays.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from real_vllm import PATIENCE_S, PYTHON, make_model, settings
from workflow_runs import Workdir

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.workflow,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-vllm; run: make vllm"),
]

EPISODE = 1
STAGES = ("plan", "interjections", "vqa")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny-qwen2.5-vl")


def configure(work: Workdir, model: Path, dataset: Path, **changes: object) -> None:
    work.configure(dataset=str(dataset), episodes=[EPISODE], vlm=settings(model), **changes)


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workdir]:
    """A working directory; whatever still runs in it after the test is ended."""
    (tmp_path / "work").mkdir()
    yield Workdir(tmp_path / "work")
    for process in processes_in(tmp_path / "work"):
        process.kill()


def processes_in(folder: Path) -> list[psutil.Process]:
    """Processes that work in `folder`: the run's, and all that they started, however indirectly."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def model_servers_in(folder: Path) -> list[psutil.Process]:
    """The processes of vLLM itself that were started by a command line."""
    return [
        process
        for process in processes_in(folder)
        if "vllm.entrypoints.openai.api_server" in (words := process.cmdline())
        and not any(word.endswith("leash.py") for word in words)
    ]


def eventually(holds: Callable[[], object], run: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert run is None or run.poll() is None, "the run ended before"
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def calls_of(work: Workdir) -> list[dict]:
    return [
        call
        for stage in STAGES
        for call in work.json(f"results/demo_v3/{stage}/{EPISODE:06d}.json")["provenance"]["calls"]
    ]


def assert_complete(work: Workdir) -> None:
    """The dataset is there with every frame, and the checks of the workflow found no error."""
    assert work.json(f"results/demo_v3/validation/{EPISODE:06d}.json")["errors"] == []
    path = work.path / "results/demo_v3/annotated/data/chunk-000/file-000.parquet"
    frames = [row for row in pq.read_table(path).to_pylist() if row["episode_index"] == EPISODE]
    assert len(frames) == 46
    subtasks = [row for row in frames[0]["language_persistent"] if row["style"] == "subtask"]
    assert subtasks
    assert min(row["timestamp"] for row in subtasks) == 0.0


def run_folder(work: Workdir) -> Path:
    (folder,) = (work.path / ".cuesheet" / "runs").iterdir()
    return folder


def test_an_episode_is_annotated_and_every_reply_fits_at_once(work, model, demo_v3):
    configure(work, model, demo_v3, plan={"relabel": True, "rephrasings": {"mode": "axes"}})
    output = work.run().output
    assert_complete(work)
    calls = calls_of(work)
    assert {call["prompt"] for call in calls} >= {"plan_describe", "plan_segment", "plan_relabel"}
    assert [call for call in calls if call["outcome"] != "ok" or call["attempts"] != 1] == []
    assert processes_in(work.path) == []

    # The second question about the same pictures finds them in the server's cache.
    segment = next(call for call in calls if call["name"].startswith("segment"))
    usage = work.json(f".cache/vlm/{segment['key'][:2]}/{segment['key']}.json")["reply"]["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] / 2
    counted = (run_folder(work) / "replica-0.metrics.txt").read_text()
    hits = float(re.search(r"^vllm:prefix_cache_hits_total\{.*\} (\S+)", counted, re.M)[1])
    queries = float(re.search(r"^vllm:prefix_cache_queries_total\{.*\} (\S+)", counted, re.M)[1])
    print(f"prefix cache: {hits:.0f} of {queries:.0f} tokens; segment: {usage}")
    print((run_folder(work) / "supervisor.log").read_text())
    assert hits > 0
    assert "failed" not in output


def test_clips_are_taken_and_a_killed_vllm_is_replaced_in_the_middle_of_a_run(work, model, demo_v3):
    configure(
        work, model, demo_v3, plan={"frames": {"mode": "clip"}}, vqa={"hz": 5, "types": ["count"]}
    )
    run = work.start()
    replies = work.path / ".cache" / "vlm"
    eventually(lambda: len(list(replies.rglob("*.json"))) >= 3, run)
    (server,) = model_servers_in(work.path)
    keys = {server.parent().environ()["VLLM_API_KEY"]}
    server.kill()
    eventually(lambda: [p for p in model_servers_in(work.path) if p.pid != server.pid], run)
    (after,) = model_servers_in(work.path)
    keys.add(after.parent().environ()["VLLM_API_KEY"])
    assert run.wait(PATIENCE_S) == 0
    assert_complete(work)
    calls = calls_of(work)
    assert len(calls) > 30
    assert {call["outcome"] for call in calls} == {"ok"}
    assert processes_in(work.path) == []
    assert "restart 1 of 3" in (run_folder(work) / "supervisor.log").read_text()
    # The servers' keys are in no file, their own logs included.
    assert len(keys) == 2
    for path in work.path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [key for key in keys if key.encode() in content], path


@pytest.mark.parametrize("killed", ["snakemake", "supervisor"])
def test_nothing_is_left_of_vllm_where_what_watches_it_is_killed(work, model, demo_v3, killed):
    configure(work, model, demo_v3)
    run = work.start()
    # vLLM, its engine core, its worker and more are there, below the leash.
    eventually(
        lambda: [p for p in model_servers_in(work.path) if len(p.children(recursive=True)) >= 2],
        run,
    )
    if killed == "snakemake":
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    else:
        pid = work.json(str(run_folder(work).relative_to(work.path) / "server.json"))["pid"]
        os.kill(pid, signal.SIGKILL)
        assert run.wait(PATIENCE_S) != 0
    begun = time.monotonic()
    eventually(lambda: processes_in(work.path) == [])
    print(f"gone {time.monotonic() - begun:.1f} s after the end of {killed}")
