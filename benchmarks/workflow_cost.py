"""Runs the workflow and measures its cost: CPU seconds by process, wall time, memory."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import measuring
import psutil
from measuring import REPOSITORY

_SAMPLE_S = 0.25


class Watch(threading.Thread):
    """Observes a process and its descendants a few times per second.

    Afterwards, `peak_mb` is their peak memory together (proportional set size, which counts shared
    memory once), and `cpu_s` contains the CPU seconds of the processes named in `names`, without
    those of their ended children.
    """

    def __init__(self, pid: int, names: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self._root, self._names = psutil.Process(pid), names
        self._ended = threading.Event()
        self.peak_mb = 0.0
        self.cpu_s = dict.fromkeys(names, 0.0)

    def run(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            try:
                below = self._root.children(recursive=True)
            except psutil.NoSuchProcess:
                return
            self.peak_mb = max(self.peak_mb, sum(map(_pss_mb, [self._root, *below])))
            for process in below:
                self._look_at(process)

    def _look_at(self, process: psutil.Process) -> None:
        try:
            command = process.cmdline()
            # The forks of the job server have its command line; their parent is it.
            if self._root.pid != process.ppid():
                return
            used = process.cpu_times()
        except psutil.Error:
            return
        for label, module in self._names.items():
            if module in command:
                self.cpu_s[label] = used.user + used.system

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _pss_mb(process: psutil.Process) -> float:
    try:
        with open(f"/proc/{process.pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def run(
    work: Path, settings: dict[str, Any], cores: int, *options: str, job_server: bool = True
) -> dict[str, Any]:
    """Run the workflow in `work` with a configuration. Return its cost in seconds and MB.

    Raises SystemExit if it fails.
    """
    (work / "config").mkdir(parents=True, exist_ok=True)
    (work / "config" / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(work), "--cores", str(cores), *options]
    environment = {**os.environ, "CUESHEET_PROGRESS": "off"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or every process compiles the library
    environment["CUESHEET_JOB_SERVER"] = "on" if job_server else "off"
    names = {"gateway": "cuesheet.serving.lifecycle", "job_server": "cuesheet.serving.job_server"}
    before, begun = measuring.children_cpu_s(), time.monotonic()
    with (work / "snakemake.out").open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        watch = Watch(process.pid, names)
        watch.start()
        code = process.wait()
        watch.stop()
    if code:
        sys.exit(f"the workflow failed:\n{(work / 'snakemake.out').read_text()[-4000:]}")
    total_s = measuring.children_cpu_s() - before
    jobs = jobs_of(work)
    forks_s = sum(found["cpu_s"] for found in jobs.values())
    parts = {label: round(used, 2) for label, used in watch.cpu_s.items()}
    rest_s = total_s - forks_s - sum(parts.values())
    return {
        "wall_s": round(time.monotonic() - begun, 2),
        "cpu_s": round(total_s, 2),
        "peak_mb": round(watch.peak_mb),
        "jobs": jobs,
        "jobs_cpu_s": round(forks_s, 2),
        **{f"{label}_cpu_s": used for label, used in parts.items()},
        "snakemake_and_clients_cpu_s": round(rest_s, 2),
    }


def jobs_of(work: Path) -> dict[str, dict[str, float]]:
    """Return number, CPU seconds and peak memory (MB) of the jobs of the last run, by rule."""
    records = sorted((work / ".cuesheet" / "runs").glob("*/job_usage.jsonl"))
    found: dict[str, dict[str, float]] = defaultdict(
        lambda: {"count": 0, "cpu_s": 0.0, "peak_mb": 0.0}
    )
    for line in records[-1].read_text().splitlines() if records else ():
        job = json.loads(line)
        parts = Path(job["benchmark"]).with_suffix("").parts
        of_rule = found[parts[parts.index("benchmarks") + 1]]
        of_rule["count"] += 1
        of_rule["cpu_s"] += job["cpu_s"]
        of_rule["peak_mb"] = max(of_rule["peak_mb"], job["max_rss_mb"])
    return {rule: {**of, "cpu_s": round(of["cpu_s"], 3)} for rule, of in sorted(found.items())}
