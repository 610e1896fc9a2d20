"""Counts the jobs of a run by rule, and describes those that failed."""

import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuesheet.text import as_ranges
from snakemake_logger_plugin_cuesheet.errors import NO_SPACE

# Cause of a job that was ended by ^C (`cuesheet.job_log`).
INTERRUPTED = "interrupted"
# The last lines of a log that can hold the cause of a failure.
_TAIL_BYTES = 20_000
_MAX_CAUSE_LINES = 12
_SMALLEST_LOG = 4096  # bytes of free space that the cause of a failure may need
# Rules that only name targets.
_TARGETS = {"all", "media", "annotations", "datasets", "exports", "reports", "evaluate"}


@dataclass(frozen=True)
class Job:
    """A job by the names of its wildcards. `log`: its log file, if it has one."""

    rule: str
    wildcards: Mapping[str, str]
    log: str | None

    @property
    def label(self) -> str:
        """What the job works on, such as `demo_v3 episode 3, camera front`."""
        named = dict(self.wildcards)
        parts = [named.pop("dataset")] if "dataset" in named else []
        if "episode" in named:
            parts.append(f"episode {int(named.pop('episode'))}")
        for name in ("camera", "shard", "data_file"):
            if name in named:
                parts.append(f"{name.replace('_', ' ')} {named[name]}")
        return " ".join(parts[:2]) + "".join(f", {part}" for part in parts[2:])


class Jobs:
    """The jobs of a run: how many are planned, finished and failed, and why."""

    def __init__(self) -> None:
        self.failures = 0
        self._planned: Counter[str] = Counter()
        self._over: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._jobs: dict[int, Job] = {}
        self._causes: dict[str, str] = {}  # normalized cause -> log of its first job
        self._repeated: dict[str, list[Job]] = defaultdict(list)

    def planned(self, stats: Mapping[str, Any]) -> str | None:
        """Take Snakemake's numbers of jobs by rule; return them as one line."""
        counts = {rule: n for rule, n in stats.items() if rule not in _TARGETS | {"total"}}
        if not counts or self._planned:
            return None
        self._planned.update(counts)
        listed = ", ".join(f"{rule} {count}" for rule, count in counts.items())
        total = sum(counts.values())
        return f"{total} job{'s' if total != 1 else ''}: {listed}"

    def started(
        self, jobid: int, rule: str, wildcards: Mapping[str, Any] | None, logs: Sequence[str]
    ) -> None:
        self._jobs[jobid] = Job(rule, dict(wildcards or {}), logs[0] if logs else None)

    def notices(self, jobid: int) -> list[str]:
        """Return what a job that is about to finish found out about its dataset."""
        job = self._jobs.get(jobid)
        if job is None or job.rule != "index_episodes":
            return []
        return [f"{job.wildcards['dataset']}: {text}" for text in warnings_in(job.log)]

    def finished(self, jobid: int) -> str | None:
        """Count a finished job; return a line if it was the last one of its rule."""
        job = self._jobs.pop(jobid, None)
        return self._count(job.rule) if job else None

    def _count(self, rule: str) -> str | None:
        self._over[rule] += 1
        total, failed = self._planned[rule], self._failed[rule]
        if rule in _TARGETS or self._over[rule] < total:
            return None
        if failed:
            return f"{rule}: {total - failed} of {total} done, {failed} failed"
        return f"{rule}: {total} done" if total > 1 else f"{rule}: done"

    def failed(self, jobid: int, rule: str, logs: Sequence[str], message: str | None) -> list[str]:
        """Count a failed job; return its cause, unless an earlier job failed for the same one."""
        job = self._jobs.pop(jobid, None) or Job(rule, {}, logs[0] if logs else None)
        self.failures += 1
        self._failed[rule] += 1
        log = logs[0] if logs else job.log
        cause = cause_in(log) or message or _unrecorded(log)
        if cause == INTERRUPTED:
            return []
        key = _normalized(cause)
        lines = []
        if key in self._causes:
            self._repeated[key].append(job)
        else:
            self._causes[key] = cause
            about = f"{job.label}: " if job.label else ""
            lines.append(f"{about}{rule} failed: {cause}" + (f"\n  log: {log}" if log else ""))
        if status := self._count(rule):
            lines.append(status)
        return lines

    def repeated_causes(self) -> list[str]:
        """Return one line per cause that affected several jobs, and forget them."""
        lines = []
        for key, jobs in self._repeated.items():
            cause = self._causes[key].splitlines()[0]
            noun = "job" if len(jobs) == 1 else "jobs"
            same = f"{len(jobs)} more {noun} failed for the same reason"
            lines.append(f"{same}: {_listed(jobs)}. The reason: {cause}")
        self._repeated.clear()
        return lines


def _normalized(cause: str) -> str:
    """Return the cause without what differs from job to job: numbers, calls, paths of episodes."""
    without_call = re.sub(r"call '[^']*' \([^)]*\): ", "", cause)
    return re.sub(r"\d+", "#", re.sub(r"camera [^\s,:]+", "camera", without_call))


def _unrecorded(log: str | None) -> str:
    """Return the cause of a job whose log says none; a full disk keeps it from saying it."""
    folder = Path(log).parent if log else Path()
    if folder.is_dir() and shutil.disk_usage(folder).free < _SMALLEST_LOG:
        return NO_SPACE
    return "no cause is recorded"


def _listed(jobs: Sequence[Job]) -> str:
    """Write jobs as `annotate_plan of demo_v3 episodes 0, 2-5; merge_language of demo_v3`."""
    episodes: dict[str, set[int]] = {}
    for job in jobs:
        dataset = job.wildcards.get("dataset")
        name = f"{job.rule} of {dataset}" if dataset else job.rule
        found = episodes.setdefault(name, set())
        if "episode" in job.wildcards:
            found.add(int(job.wildcards["episode"]))
    listed = []
    for name, found in episodes.items():
        noun = " episodes " if len(found) > 1 else " episode "
        listed.append(f"{name}{noun}{as_ranges(found)}" if found else name)
    return "; ".join(listed)


def warnings_in(log: str | None) -> list[str]:
    """Return the warnings in a job's log (`cuesheet.job_log`)."""
    try:
        text = Path(log or "").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return re.findall(r"^\S+ \S+ WARNING cuesheet: (.*)$", text, re.MULTILINE)


def cause_in(log: str | None) -> str | None:
    """Return the last error in a job's log (`cuesheet.job_log`), else its last line."""
    try:
        text = Path(log or "").read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return None
    _, found, error = f"\n{text}".rpartition("\nERROR: ")
    lines = [line.rstrip() for line in (error if found else text).splitlines() if line.strip()]
    if not lines:
        return None
    if not found:
        last = lines[-1].strip()
        return INTERRUPTED if last == "KeyboardInterrupt" else last
    return "\n".join(lines[:_MAX_CAUSE_LINES])
