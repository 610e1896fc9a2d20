"""The progress line of a run, from finished files and the gateway's counters.

The environment variable `CUESHEET_PROGRESS` is `off` or the number of seconds between two lines.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from cuesheet import files
from cuesheet.artifacts.finished import finished_of_jobs
from cuesheet.serving.accounting import in_words
from cuesheet.serving.usage import Rate

STAGES = ("keyframes", "plan", "interjections", "vqa", "validation")
SHOWN = ("keyframes", "plan", "interjections", "vqa")
# File next to server.json that Snakemake's logger plugin shows (see `Progress`).
PROGRESS_FILE = "progress.txt"
TTY_EVERY_S = 1.0
ELSE_EVERY_S = 15.0
RATE_WINDOW_S = 20.0


@dataclass(frozen=True)
class Done:
    """How many episodes each stage has finished, and how many of them were requested."""

    stages: Mapping[str, int]
    requested: Mapping[str, int]

    @property
    def finished(self) -> int:
        return sum(self.stages.values())

    @property
    def left(self) -> int:
        return sum(self.requested.values()) - self.finished

    def of(self, stage: str) -> str:
        """Return the count of a stage, such as 3/12."""
        return f"{self.stages[stage]}/{self.requested[stage]}"


def count_done(results: Path, totals: Mapping[str, Mapping[str, Any]]) -> Done:
    """Count finished files below `results` for the episodes of `totals`.

    `totals` maps a dataset to {"episodes": ["000003", …]}; files of other episodes do not count.
    If it also has "stages": ["plan", …], only those stages count. If it has "jobs" (see
    `cuesheet.artifacts.finished.Jobs`), only what the targets of the run need counts, and files
    that the run replaces count when they are replaced.
    """
    counts, requested = Counter[str](), Counter[str]()
    for dataset, run in totals.items():
        jobs = run.get("jobs")
        if jobs is None:
            stages = run.get("stages", STAGES)
            jobs = {stage: {"episodes": run["episodes"], "replaced": {}} for stage in stages}
        for stage, wanted in jobs.items():
            counts[stage] += len(finished_of_jobs(results / dataset, stage, wanted))
            requested[stage] += len(wanted["episodes"])
    in_order = [stage for stage in STAGES if stage in requested]
    return Done(
        {stage: counts[stage] for stage in in_order},
        {stage: requested[stage] for stage in in_order},
    )


class Progress:
    """Composes and prints the line. `stats` returns the gateway's counters, as in `/stats`."""

    def __init__(
        self,
        results: Path,
        totals: Mapping[str, Mapping[str, Any]],
        stats: Callable[[], Mapping[str, Any]],
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        file: Path | None = None,
    ) -> None:
        """Write the line to `file`, if given, for Snakemake's logger plugin; else print it."""
        self._results = results
        self._totals = totals
        self._stats = stats
        self._out = out if out is not None else sys.stderr
        self._clock = clock
        self._file = file
        began = clock()
        self._began = began, count_done(results, totals).finished
        self._rate = Rate(RATE_WINDOW_S, began)
        self._printed: tuple[Any, ...] | None = None

    def every_s(self) -> float | None:
        """Return the seconds between two lines; None for no lines."""
        override = os.environ.get("CUESHEET_PROGRESS", "").strip().lower()
        if override in ("off", "0", "no", "false"):
            return None
        try:
            return max(0.2, float(override))
        except ValueError:
            in_place = self._file is not None or self._out.isatty()
            return TTY_EVERY_S if in_place else ELSE_EVERY_S

    def line(self) -> str | None:
        """Return the line, or None if nothing has changed since the last one."""
        now = self._clock()
        stats = self._stats()
        done = count_done(self._results, self._totals)
        calls = int(stats["completed"])
        calls_per_s = self._rate.of(now, calls)
        server = stats.get("server")
        state = (done, calls, server, stats["retries"], stats["failures"])
        if state == self._printed or (
            self._printed is None and not stats["calls"] and not done.finished
        ):
            return None
        self._printed = state
        stages = " ".join(f"{stage} {done.of(stage)}" for stage in SHOWN if stage in done.stages)
        tokens = stats["prompt_tokens"] + stats["completion_tokens"]
        parts = [
            f"episodes {done.of('validation')}" if "validation" in done.stages else "",
            stages,
            f"{calls_per_s:.1f} calls/s, {stats['cache_hits']} cached",
            f"{_short(tokens)} tokens",
        ]
        if pending := int(stats["calls"]) - calls:
            parts.append(f"{pending} pending")
        for counter in ("retries", "failures"):
            if stats[counter]:
                parts.append(f"{stats[counter]} {counter}")
        if server in ("starting", "failed"):
            parts.append(f"model server {server}")
        eta_s = self._eta_s(now, done)
        if eta_s is not None:
            parts.append(f"left {in_words(eta_s)}")
        return "cuesheet: " + " | ".join(part for part in parts if part)

    def print(self) -> bool:
        """Print the line if it has changed; return False if the terminal is closed."""
        line = self.line()
        if line is None:
            return True
        try:
            if self._file is not None:
                files.write_text(self._file, line)
            else:
                print(line, file=self._out, flush=True)
        except (OSError, ValueError):
            return False
        return True

    def _eta_s(self, now: float, done: Done) -> float | None:
        began, at_first = self._began
        completed = done.finished - at_first
        if completed <= 0 or done.left <= 0:
            return None
        return done.left * (now - began) / completed


def _short(count: int) -> str:
    if count < 1000:
        return str(count)
    if count < 1_000_000:
        return f"{count / 1000:.1f}k"
    return f"{count / 1_000_000:.1f}M"
