"""The job of one shard: an inner run of the same workflow, for the shard's episodes only.

The inner run shares the results folder with the outer run and with other shards. It does not use
Snakemake's lock: the lease of the shard guarantees that no two jobs write the same files. It has
its own gateway and model server. It ends if its job gets a signal, if the outer run has ended, or
if a newer outer run has started.
"""

import contextlib
import math
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cuesheet
from cuesheet import files
from cuesheet.artifacts.failures import ANNOTATION_RULES, episode_failures
from cuesheet.artifacts.finished import complete_episodes
from cuesheet.artifacts.layout import RUNS, VOCABULARY_JOB, Layout, episode_name
from cuesheet.artifacts.stage_files import digest
from cuesheet.errors import CuesheetError, SurroundingsError
from cuesheet.lease import Lease, LeaseLostError, describe
from cuesheet.media import scratch
from cuesheet.serving.accounting import read_usages
from cuesheet.serving.budget import share_of_budget
from cuesheet.serving.usage import job_id
from cuesheet.text import to_ranges
from cuesheet.vlm.gateway_client import SERVER_FAILED
from cuesheet.vlm.run_environment import SERVER_FILE_VARIABLE

# Environment variable of an inner run: the file that lists its episodes.
SHARD_VARIABLE = "CUESHEET_SHARD_FILE"
# Environment variable of the jobs of an outer run: its id. shards/run.json has that of the newest.
OUTER_RUN_VARIABLE = "CUESHEET_OUTER_RUN"
# Line of an inner run that ends before its first job, before the cause.
NOT_STARTED = "Cuesheet: the jobs of the shard were not started: "

POLL_S = 0.25
CHECK_RUN_EVERY_S = 2.0
END_TIMEOUT_S = 15.0
INNER_RULES = (
    "media",
    "annotations",
    "extract_clip",
    *ANNOTATION_RULES,
)
# The lists of labels belong to all shards, so no shard makes them.
VOCABULARY_RULES = ("vocabularies", "draft_vocabulary", "build_vocabulary")


def inner_environment(
    outer: Mapping[str, str], variables: Mapping[str, str], about_file: Path
) -> dict[str, str]:
    """Return the environment of a shard's inner run.

    It finds this library in an environment that does not have it installed, such as the one that
    `--sdm conda` creates for the shard's job.
    """
    library = str(Path(cuesheet.__file__).parents[1])
    environment = {**outer, **variables, SHARD_VARIABLE: str(about_file)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [library, outer.get("PYTHONPATH")]))
    environment.pop(SERVER_FILE_VARIABLE, None)
    return environment


class ShardJob:
    """One attempt at one shard.

    Args:
        dataset: name of the dataset.
        shard: name of the shard, or VOCABULARY_JOB.
        work: the param of this name of the job's rule (rules/common.smk).
        threads: threads of the job.
        log: the job's log file.
    """

    def __init__(
        self, dataset: str, shard: str, work: Mapping[str, Any], threads: int, log: str
    ) -> None:
        self.dataset = dataset
        self.shard = shard
        self.episodes: Sequence[int] = work["episodes"]
        self._work = work
        self._results = Path(work["results"])
        self._log = log
        # In a SLURM job, only the allocated CPUs count: the node may have many more.
        cpus = int(os.environ.get("SLURM_CPUS_PER_TASK") or threads)
        self._jobs = max(1, math.ceil(cpus * work["jobs_per_cpu"]))
        self._stopped_by: str | None = None
        self._state: dict[str, Any] = {}

    @property
    def layout(self) -> Layout:
        return Layout(self._results)

    @property
    def _log_name(self) -> str:
        """The log below the run's folder; with a storage provider the job writes to a copy."""
        return self._log[max(0, self._log.rfind(f"{self._results}/")) :]

    @property
    def name(self) -> str:
        if self.shard == VOCABULARY_JOB:
            return f"the labels of {self.dataset}"
        return f"shard {self.shard} of {self.dataset}"

    def run(self) -> None:
        """Run the shard. Raises SurroundingsError if it could not be finished."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        parent = os.getppid()
        # Not every cluster passes the environment on: then the job belongs to the newest run.
        self._run = os.environ.get(OUTER_RUN_VARIABLE) or newest_run(self.layout)
        self._state = {
            "format": 1,
            "shard": self.shard,
            "episodes": to_ranges(self.episodes),
            "targets": list(self._work["targets"]),
            "run": self._run,
            "job_id": job_id(),
            "host": socket.gethostname(),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "log": self._log_name,
            "started_at": round(time.time(), 3),
        }
        lease = Lease(self.layout.shard_lease(self.shard), {"job_id": job_id()})
        self._wait_for(lease, parent)
        try:
            self._write_state("running")
            with self._scratch() as variables:
                self._run_inner(self._command(), variables, lease, parent)
        except CuesheetError as error:
            self._write_state("failed", error=str(error))
            raise
        finally:
            lease.release()
        self._write_state("done")

    def _on_signal(self, number: int, _: object) -> None:
        self._stopped_by = f"it received {signal.Signals(number).name}"

    def _wait_for(self, lease: Lease, parent: int) -> None:
        """Wait until no other job works on the shard. A job of an earlier run ends by itself."""
        announced = False
        while (holder := lease.try_acquire()) is not None:
            if not announced:
                print(f"{self.name} is in use by {describe(holder)}; waiting until it ends")
                announced = True
            if self._is_over(parent):
                raise SurroundingsError(f"{self.name} was not started: {self._stopped_by}")
            time.sleep(1.0)

    def _is_over(self, parent: int) -> bool:
        if self._stopped_by is None and os.getppid() != parent:
            self._stopped_by = "the run that started it has ended"
        if self._stopped_by is None and self._run:
            newest = newest_run(self.layout)
            if newest not in (None, self._run):
                self._stopped_by = f"a newer run ({newest}) has started"
        return self._stopped_by is not None

    def _command(self) -> list[str]:
        private = Path(".cuesheet") / "shards" / self.dataset
        private.mkdir(parents=True, exist_ok=True, mode=0o700)
        config_file = private / f"{self.shard}.config.json"
        config, (start, end) = self._work["config"], self._work["share"]
        shared = share_of_budget(config, start, end, self._earlier_attempts())
        files.write_json(config_file, shared, mode=0o600)
        about = {"dataset": self.dataset, "shard": self.shard, "episodes": list(self.episodes)}
        self._about_file = private / f"{self.shard}.shard.json"
        files.write_json(self._about_file, about)
        return [
            *(sys.executable, "-m", "snakemake", *self._work["targets"]),
            *("--snakefile", self._work["snakefile"], "--configfile", str(config_file)),
            *("--cores", str(self._jobs), "--executor", "local", "--scheduler", "greedy"),
            # Neither the profile of the outer run nor that of the user.
            *("--profile", "none", "--workflow-profile", "none"),
            *("--nolock", "--keep-going", "--rerun-incomplete", "--show-failed-logs"),
            *("--rerun-triggers", "mtime", "params", "input", "software-env"),  # as in profiles/
            *("--quiet", "rules", "reason", "host"),
            *("--allowed-rules", *INNER_RULES),
            *(VOCABULARY_RULES if self.shard == VOCABULARY_JOB else ()),
            *self._work["options"],
        ]

    def _earlier_attempts(self) -> list[dict[str, Any]]:
        """Return the usage of the attempts at this shard that this run made before."""
        since = files.read_json(self.layout.shard_run).get("started_at", 0.0)
        return [
            usage
            for usage in read_usages(RUNS)
            if usage.get("shard") == self.shard
            and self.dataset in usage["datasets"]
            and usage["started_at"] >= since
        ]

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[dict[str, str]]:
        """Return the environment variables that put images on the node's disk, if configured."""
        scratch.remove_without_images(self._results, self.episodes)
        if self._work["scratch"] is None:
            yield {}
            return
        disk = scratch.resolve(self._work["scratch"])
        files.remove_temporary_folders(disk)
        with files.temporary_folder(disk) as folder:
            try:
                yield {scratch.SCRATCH_VARIABLE: str(folder)}
            finally:
                scratch.unlink_images(self._results, self.episodes)

    def _run_inner(
        self, command: Sequence[str], variables: Mapping[str, str], lease: Lease, parent: int
    ) -> None:
        environment = inner_environment(os.environ, variables, self._about_file)
        sys.stdout.flush()
        started_at = time.time()
        # In its own process group, so that all its jobs can be killed at once.
        inner = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, process_group=0
        )
        checked_at = time.monotonic()
        try:
            while inner.poll() is None and self._stopped_by is None:
                time.sleep(POLL_S)
                lease.renew()
                if time.monotonic() - checked_at > CHECK_RUN_EVERY_S:
                    checked_at = time.monotonic()
                    self._is_over(parent)
        except LeaseLostError as error:
            self._stopped_by = str(error)
        finally:
            if self._stopped_by is not None:
                # Before anything else, because the job may be killed before the inner run ends.
                self._write_state("ending", error=f"{self.name} was ended: {self._stopped_by}")
            _end(inner)
        if self._stopped_by is not None:
            raise SurroundingsError(
                f"{self.name} was ended after {time.time() - started_at:.0f} s: "
                f"{self._stopped_by}. {self._done_so_far()}; all responses are cached. Run the "
                "same command to resume."
            )
        if inner.returncode:
            self._check_failures(started_at)

    def _missing(self) -> list[int]:
        if "annotations" not in self._work["targets"]:
            return []
        complete = complete_episodes(self._results, self._work["stages"])
        return [index for index in self.episodes if index not in complete]

    def _done_so_far(self) -> str:
        return f"{len(self.episodes) - len(self._missing())} of {len(self.episodes)} episodes done"

    def _check_failures(self, started_at: float) -> None:
        """Raise SurroundingsError unless every missing episode failed in this run."""
        failures = episode_failures(self._results, self.episodes, since=started_at - 5.0)
        unexplained = [index for index in self._missing() if index not in failures]
        if unexplained or not failures:
            raise SurroundingsError(
                f"{self.name} could not be finished ({self._done_so_far()}): {self._cause()}"
            )
        print(f"{self.name}: {len(failures)} of {len(self.episodes)} episodes failed:")
        for index, failure in failures.items():
            print(f"  episode {index}: {failure['error']}\n    log: {failure['log']}")

    def _cause(self) -> str:
        """Return why the inner run or its model server did not start or ended, from the log."""
        sys.stdout.flush()
        budget = r"(?=(?:nothing of )?vlm\.budget\.)"
        lines = rf"^(?:cuesheet: (?:{SERVER_FAILED}|{budget})|{NOT_STARTED})(.+)"
        said = re.findall(lines, Path(self._log).read_text(), re.M)
        return f"{said[-1].rstrip('.')}." if said else "the cause is above in its log."

    def marker(self) -> dict[str, Any]:
        """Return the content of the shard's marker. It changes only if an annotation does."""
        validations = {
            episode_name(index): digest(self.layout.validation(index)) for index in self.episodes
        }
        return {
            "format": 1,
            "dataset": self.dataset,
            "shard": self.shard,
            "validations": {name: found for name, found in validations.items() if found},
            "failed": [name for name, found in validations.items() if not found],
        }

    def _write_state(self, state: str, **more: Any) -> None:
        # CPU time of this job and of its child processes that have ended.
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu_s = round(sum(each.ru_utime + each.ru_stime for each in used), 1)
        now = {"state": state, "updated_at": round(time.time(), 3), "cpu_s": cpu_s, **more}
        self._state = {**self._state, **now}
        files.write_json(self.layout.shard_state(self.shard), self._state)


def _end(inner: subprocess.Popen[bytes]) -> None:
    """End the inner run with SIGINT, and kill what is left of it after END_TIMEOUT_S."""
    if inner.poll() is None:
        inner.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            inner.wait(END_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(inner.pid, signal.SIGKILL)
    inner.wait()


def newest_run(layout: Layout) -> str | None:
    """Return the id of the outer run that started last; None if it is unknown."""
    return files.read_json(layout.shard_run).get("run")
