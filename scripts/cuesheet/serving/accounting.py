"""Sums of the `usage.json` files of several runs: requests, seconds, GPU hours."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuesheet.files import read_json

# A run whose usage.json is older than this has ended.
STALE_AFTER_S = 30.0
STATE_LABELS = {
    "unused": "before the first call",
    "loading": "loading the model",
    "idle": "ready without a call",
    "failed": "after the server failed",
}


@dataclass
class Account:
    """Sums over runs. `parts`: seconds by stage and by other states of the servers."""

    wall_s: float = 0.0
    gpu_s: float = 0.0
    calls: int = 0
    calls_per_s: float = 0.0
    parts: Counter[str] = field(default_factory=Counter)
    gpu_parts: Counter[str] = field(default_factory=Counter)

    def add(self, usage: dict[str, Any], now: float) -> None:
        wall_s = max(0.0, usage["updated_at"] - usage["started_at"])
        self.wall_s += wall_s
        self.gpu_s += wall_s * usage["gpus"]
        self.calls += sum(usage["calls"].values())
        if not usage["ended"] and now - usage["updated_at"] < STALE_AFTER_S:
            self.calls_per_s += usage["calls_per_s"]
        parts = {STATE_LABELS[name]: usage["seconds"].get(name, 0.0) for name in STATE_LABELS}
        parts |= usage["busy_by_stage"]
        for name, seconds in parts.items():
            self.parts[name] += seconds
            self.gpu_parts[name] += seconds * usage["gpus"]

    def as_json(self) -> dict[str, Any]:
        return {
            "wall_s": round(self.wall_s, 1),
            "gpu_s": round(self.gpu_s, 1),
            "calls": self.calls,
            "calls_per_s": round(self.calls_per_s, 2),
            "seconds": {name: round(value, 1) for name, value in self.parts.most_common()},
            "gpu_seconds": {name: round(value, 1) for name, value in self.gpu_parts.most_common()},
        }

    def as_text(self) -> str:
        """Return one line about the time of the model servers, in GPU hours if there are GPUs."""
        parts, total, unit = self.parts, self.wall_s, "server time"
        if self.gpu_s:
            parts, total, unit = self.gpu_parts, self.gpu_s, "GPU time"
        shown = ", ".join(f"{name} {in_words(s)}" for name, s in parts.most_common() if s >= 0.5)
        return f"{unit} {in_words(total)}" + (f": {shown}" if shown else "")

    def short_text(self) -> str:
        """Return one line for the end of a run with GPUs: what it used, and how much was idle."""
        up_s = self.wall_s - self.parts[STATE_LABELS["unused"]]
        idle_s = self.parts[STATE_LABELS["idle"]]
        return (
            f"the model server used {self.gpu_s / 3600:.2f} GPU hours: it was up for "
            f"{in_words(up_s)}, {in_words(idle_s)} of them without a request"
        )


def in_words(seconds: float) -> str:
    """Return a duration such as `12 s`, `3.4 min` or `5.67 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.2f} h"


def read_usages(runs: Path) -> list[dict[str, Any]]:
    """Return the usage of every run below `.cuesheet/runs`; incomplete files are skipped."""
    usages = map(read_json, sorted(runs.glob("*/usage.json")))
    return [usage for usage in usages if usage]


def account_of(usages: Iterable[dict[str, Any]], datasets: Collection[str], now: float) -> Account:
    """Return the sums of all runs that had one of these datasets; each run counts once."""
    account = Account()
    for usage in usages:
        if not set(datasets).isdisjoint(usage["datasets"]):
            account.add(usage, now)
    return account
