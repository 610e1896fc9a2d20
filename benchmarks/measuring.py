"""Shared by the benchmarks: CPU time of processes, whole jobs as Snakemake starts them, results.

CPU seconds are user and system time. On a shared machine they are more meaningful than wall time,
although a high load increases them a little. The load is therefore printed next to every result.
"""

import contextlib
import json
import os
import pickle
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = REPOSITORY / "scripts"
sys.path.insert(0, str(SCRIPTS))


def children_cpu_s() -> float:
    """Return the CPU seconds of all ended children of this process, including their children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def own_cpu_s(work: Callable[[], Any]) -> float:
    """Return the CPU seconds that this process spends in `work`."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def whole_process(command: Sequence[str], output: Path | None = None) -> dict[str, float]:
    """Wall seconds, CPU seconds and peak MB of a process, from its start to its end.

    Its output is written to `output`, if given. Raises SystemExit if it fails.
    """
    begun = time.monotonic()
    with contextlib.ExitStack() as open_files:
        to = open_files.enter_context(output.open("w")) if output else None
        process = subprocess.Popen(command, stdout=to, stderr=to)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = output.read_text()[-4000:] if output else ""
        sys.exit(f"{' '.join(command)} failed with {process.returncode}\n{said}")
    return {
        "wall_s": round(time.monotonic() - begun, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "peak_mb": round(used.ru_maxrss / 1024),
    }


def median(work: Callable[[], float], repeats: int) -> float:
    """Return the median of the values that `work` returns."""
    return statistics.median(work() for _ in range(repeats))


def load() -> dict[str, Any]:
    """Return the load of the machine: CPUs, and the mean number of running processes."""
    return {"cpus": os.cpu_count(), "load_1_min": round(os.getloadavg()[0], 1)}


@dataclass(frozen=True)
class Target:
    """A target for a ratio: at least `wanted`, or at most `wanted` if `at_most` is set."""

    name: str
    value: float
    wanted: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        return self.value <= self.wanted if self.at_most else self.value >= self.wanted

    def as_json(self) -> dict[str, Any]:
        bound = "at_most" if self.at_most else "at_least"
        return {
            "name": self.name,
            "value": round(self.value, 3),
            bound: self.wanted,
            "reached": self.reached,
        }

    def __str__(self) -> str:
        bound = "≤" if self.at_most else "≥"
        mark = "reached" if self.reached else "MISSED"
        return f"{self.name:<58}{self.value:>9.2f}   {bound} {self.wanted:<7g} {mark}"


def publish(
    name: str, targets: list[Target], figures: Mapping[str, Any], path: Path | None
) -> None:
    """Print the targets. Write them and all `figures` as JSON to `path`, if given."""
    at = load()
    print(f"\n{name} (load {at['load_1_min']} on {at['cpus']} CPUs)")
    for target in targets:
        print(f"  {target}")
    if path is not None:
        content = {
            "benchmark": name,
            "machine": at,
            "targets": [target.as_json() for target in targets],
            "figures": figures,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")


class Jobs:
    """Runs scripts as whole jobs like Snakemake does, with and without the job server."""

    def __init__(self, folder: Path) -> None:
        # Here, since processes that are measured import this module as well.
        import psutil

        from cuesheet.serving.job_server import JobServer

        self._folder = folder
        self._count = 0
        (folder / "scripts").mkdir(parents=True)
        self._server = JobServer(folder)
        while not self._server.socket.exists():
            time.sleep(0.01)
        # After a first job of each script the server has imported what it needs.
        self._process = psutil.Process(self._server._process.pid)

    def __enter__(self) -> "Jobs":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def server_cpu_s(self) -> float:
        """Return the CPU seconds of the job server and of its jobs."""
        used = self._process.cpu_times()
        return used.user + used.system + used.children_user + used.children_system

    def run(
        self,
        rule: str,
        *,
        inputs: Mapping[str, Any],
        output: Mapping[str, str],
        params: Mapping[str, Any],
        wildcards: Mapping[str, str],
        served: bool,
    ) -> float:
        """CPU seconds of one job of `rule`, from the shell's start to its end.

        Raises SystemExit if it fails.
        """
        self._count += 1
        log = self._folder / "logs" / f"{self._count:06d}.log"
        script = self._folder / "scripts" / f"tmp{self._count}.{rule}.py"
        script.write_text(
            _preamble(rule, inputs, output, params, wildcards, str(log))
            + (SCRIPTS / f"{rule}.py").read_text()
        )
        prefix = self._server.shell_prefix if served else "set -euo pipefail; "
        before = children_cpu_s() + self.server_cpu_s()
        done = subprocess.run(["bash", "-c", f"{prefix} {sys.executable} {script}"])
        if done.returncode:
            sys.exit(f"{rule} failed:\n{log.read_text() if log.exists() else ''}")
        return children_cpu_s() + self.server_cpu_s() - before


def _preamble(
    rule: str,
    inputs: Mapping[str, Any],
    output: Mapping[str, str],
    params: Mapping[str, Any],
    wildcards: Mapping[str, str],
    log: str,
) -> str:
    """Return the code that Snakemake writes before a script: its pickled object."""
    from snakemake.iocontainers import (
        InputFiles,
        Log,
        OutputFiles,
        Params,
        ResourceList,
        Snakemake,
        Wildcards,
    )

    job = Snakemake(
        InputFiles(fromdict=inputs),
        OutputFiles(fromdict=output),
        Params(fromdict=params),
        Wildcards(fromdict=wildcards),
        1,
        ResourceList(fromdict={}),
        Log(fromdict={"log": log}),
        {},
        rule,
        None,
        str(SCRIPTS),
    )
    return (
        f"import sys; sys.path.append({str(SCRIPTS)!r}); import pickle; "
        f"snakemake = pickle.loads({pickle.dumps(job, protocol=4)!r}); "
        "from snakemake.logging import logger\n"
    )
