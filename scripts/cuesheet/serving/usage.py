"""The time of the model servers of a run by state: `usage.json` in the run's folder.

The file is written every few seconds, so a killed run leaves it too. It has seconds of wall time
in five parts: before the first request that needs a server, loading, busy (by stage, in proportion
to the requests in flight), ready without a request, and failed. Multiplied by the number of GPUs,
these are GPU seconds.
"""

import contextlib
import os
import socket
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cuesheet import files

WRITE_EVERY_S = 5.0
RATE_WINDOW_S = 30.0
JOB_VARIABLES = ("SLURM_JOB_ID", "AWS_BATCH_JOB_ID")
_PARTS = {"idle": "unused", "starting": "loading", "ready": "idle", "failed": "failed"}


def job_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the cluster's id of the job that this process belongs to; None outside of a job."""
    return next((environment[name] for name in JOB_VARIABLES if environment.get(name)), None)


class Rate:
    """The rate of events in a sliding window, from their total count at several times."""

    def __init__(self, window_s: float, began: float) -> None:
        self._window_s = window_s
        self._recent: deque[tuple[float, int]] = deque([(began, 0)])

    def of(self, now: float, count: int) -> float:
        """Return the events per second, given the time and the total count at that time."""
        self._recent.append((now, count))
        while len(self._recent) > 2 and now - self._recent[0][0] > self._window_s:
            self._recent.popleft()
        begun, before = self._recent[0]
        return (count - before) / (now - begun) if now > begun else 0.0


class Usage:
    """Counts a run's seconds. `server` returns the state of the model servers."""

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        gpus: int,
        server: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._about = {"job_id": job_id(), "host": socket.gethostname(), "gpus": gpus, **about}
        self._server = server
        self._clock = clock
        self.sent: Callable[[], Mapping[str, int]] = dict  # requests and tokens of the run
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._by_stage: defaultdict[str, float] = defaultdict(float)
        self._calls: Counter[str] = Counter()
        self._in_flight: Counter[str] = Counter()
        self._began = time.time()
        self._first_call: float | None = None
        self._last = clock()
        self._rate = Rate(RATE_WINDOW_S, self._last)

    @contextlib.contextmanager
    def busy(self, stage: str) -> Iterator[None]:
        """Count a request of `stage` that a model server answers during the block."""
        self.tick()
        self._first_call = self._first_call or time.time()
        self._in_flight[stage] += 1
        try:
            yield
        finally:
            self.tick()
            self._in_flight[stage] -= 1
            self._calls[stage] += 1

    def tick(self) -> None:
        """Add the time since the last tick to the part it belongs to."""
        now = self._clock()
        passed, self._last = now - self._last, now
        in_flight = self._in_flight.total()
        if in_flight:
            self._seconds["busy"] += passed
            for stage, count in self._in_flight.items():
                self._by_stage[stage] += passed * count / in_flight
        else:
            self._seconds[_PARTS.get(self._server(), "unused")] += passed

    def as_json(self, ended: bool = False) -> dict[str, Any]:
        self.tick()
        return {
            "format": 1,
            **self._about,
            "started_at": round(self._began, 3),
            "first_call_at": self._first_call and round(self._first_call, 3),
            "updated_at": round(time.time(), 3),
            "ended": ended,
            "seconds": {
                part: round(self._seconds[part], 3)
                for part in ("unused", "loading", "busy", "idle", "failed")
            },
            "busy_by_stage": {k: round(v, 3) for k, v in sorted(self._by_stage.items())},
            "calls": dict(sorted(self._calls.items())),
            "sent": dict(self.sent()),
            "calls_per_s": 0.0
            if ended
            else round(self._rate.of(self._last, self._calls.total()), 3),
        }

    def write(self, ended: bool = False) -> None:
        files.write_json(self._path, self.as_json(ended))
