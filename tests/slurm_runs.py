"""Runs of the workflow on the test cluster, and the states of their jobs."""

import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import PATIENCE_S, command_of, processes_in
from workflow_runs import CLUSTER_PYTHON, REPOSITORY, CountingServer, Workdir


class SlurmWorkdir(Workdir):
    """A working directory whose runs send their jobs to SLURM, in shards."""

    python = CLUSTER_PYTHON

    def command(self, *arguments: str) -> list[str]:
        cores = ["--cores", "2"]
        words = super().command()
        start = words.index(cores[0])
        return [
            *(self.python, str(REPOSITORY / "tests" / "slurm_snakemake.py")),
            *words[words.index("--snakefile") : start],
            *("--workflow-profile", str(REPOSITORY / "profiles" / "slurm")),
            *("--set-threads", "annotate_shard=1", "prepare_shard=1"),
            # A cluster without accounting, and without the patience that real ones need.
            *("--slurm-status-command", "squeue", "--slurm-no-account"),
            *("--slurm-init-seconds-before-status-checks", "1"),
            *("--seconds-between-status-checks", "1", "--latency-wait", "5"),
            *arguments,
        ]

    def state(self, shard: str, dataset: str = "demo_v3") -> dict:
        """What the shard's job wrote of itself; empty before it began."""
        path = self.path / f"results/{dataset}/shards/{shard}.state.json"
        try:
            return json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            return {}

    def replies(self) -> int:
        """Replies that are kept."""
        return len(list((self.path / ".cache" / "vlm").glob("??/*.json")))


def resources(**of_a_shard: object) -> list[str]:
    """Arguments that set what each shard's job asks SLURM for."""
    values = {"mem_mb": 3000, "runtime": 30, **of_a_shard}
    return ["--set-resources", *(f"annotate_shard:{key}={value}" for key, value in values.items())]


def slurm(*command: str) -> str:
    """Run one of SLURM's commands and return what it prints."""
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=PATIENCE_S
    ).stdout.strip()


def job_state(job_id: str) -> str:
    said = slurm("scontrol", "--oneliner", "show", "job", job_id)
    return dict(word.partition("=")[::2] for word in said.split())["JobState"]


def eventually(holds: Callable[[], object], run: subprocess.Popen | None = None) -> None:
    """Wait until it is so; fails if the run ends before, or after minutes."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if run is not None and run.poll() is not None:
            said = run.communicate()[0] or ""
            pytest.fail(f"the run ended before, with {run.returncode}:\n{said[-6000:]}")
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)


class Hold:
    """From the `after`th answer on, every question waits; when it is released, it gets none.

    A job that is killed meanwhile loses no answer: those that wait get an error, which is not paid.
    """

    def __init__(self, server: CountingServer, after: int) -> None:
        self._server = server
        self._after = after
        self._waiting: list[dict] = []
        self._released = threading.Event()
        server.answer_instead = self._answer

    def _answer(self, request: dict) -> tuple[int, bytes] | None:
        if self._released.is_set() or len(self._server.answered) < self._after:
            return None
        self._waiting.append(request)
        self._released.wait(PATIENCE_S)
        return 503, b"{}"

    def holds_everything(self) -> bool:
        asked, answered = len(self._server.asked), len(self._server.answered)
        return len(self._waiting) > 0 and len(self._waiting) == asked - answered

    def release(self) -> None:
        self._released.set()


def answered_twice(server: CountingServer) -> list[str]:
    """Questions about images that the server gave more than one good answer to.

    Questions of words alone may be the same in several shards, which ask at the same time.
    """
    asked = Counter(
        json.dumps(body, sort_keys=True) for body in server.answered if "image_url" in str(body)
    )
    return [question[:200] for question, count in asked.items() if count > 1]


def without_times(content: object) -> object:
    """A stage file's content without what no two runs have in common: times, who was asked."""
    if isinstance(content, dict):
        return {
            key: without_times(value)
            for key, value in content.items()
            if key not in ("finished_at", "latency_s", "cache_hit", "attempts", "stage_files")
        }
    if isinstance(content, list):
        return [without_times(item) for item in content]
    return content


def annotations(work: Workdir, dataset: str) -> dict[str, object]:
    """Every annotation and validation of a run, times apart, and every other file's bytes."""
    results = work.path / "results" / dataset
    found: dict[str, object] = {}
    for folder in ("plan", "interjections", "vqa", "validation"):
        for path in sorted((results / folder).glob("*.json")):
            found[str(path.relative_to(results))] = without_times(json.loads(path.read_text()))
    for folder in ("annotated", "keyframes", "clips"):
        for path in sorted((results / folder).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(results))] = path.read_bytes()
    return found


def orphans_in(folder: Path) -> list[str]:
    """Processes that still work in a folder.

    But for Snakemake's own around a job: its handler of signals takes a lock that it may hold, so
    that SIGTERM can make it wait for ever. SLURM with cgroups kills it; here it has none.
    """
    commands = [command_of(process) for process in processes_in(folder)]
    return [" ".join(words)[:200] for words in commands if words and "--target-jobs" not in words]
