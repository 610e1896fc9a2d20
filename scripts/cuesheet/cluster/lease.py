"""A lease on a shard: one job works on it, and only as long as it says that it lives.

A file on the shared disk. Its holder touches it every few seconds; one that was not touched for a
minute is free. A holder on the same machine that is gone frees it at once. Locks of the file
system are not used: not every cluster's disk has them.
"""

import json
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

import psutil

from cuesheet import files
from cuesheet.process_status import is_running

BEAT_S = 5.0
# Longer than file attributes are cached on network disks.
STALE_S = 75.0


class LeaseLostError(Exception):
    """Somebody else holds the lease now."""


class Lease:
    """`about` (a job's id and the like) is written into the file, for those who wait for it."""

    def __init__(self, path: Path | str, about: dict[str, Any]) -> None:
        self.path = Path(path)
        self._content = {**about, **_identity(), "token": secrets.token_hex(8)}
        self._beaten = 0.0

    def try_acquire(self) -> dict[str, Any] | None:
        """Take the lease if it is free. Returns None, or what its living holder wrote."""
        holder = self._read()
        if holder is not None and not self._is_over(holder):
            return holder
        files.write_json(self.path, self._content)
        self._beaten = time.monotonic()
        return None

    def beat(self) -> None:
        """Say that the holder lives, now and then. Raises LeaseLostError."""
        if time.monotonic() - self._beaten < BEAT_S:
            return
        holder = self._read()
        if holder is not None and holder.get("token") != self._content["token"]:
            raise LeaseLostError(f"{self.path} is held by {describe(holder)}")
        try:
            os.utime(self.path)
        except FileNotFoundError:
            files.write_json(self.path, self._content)
        self._beaten = time.monotonic()

    def release(self) -> None:
        holder = self._read()
        if holder is not None and holder.get("token") == self._content["token"]:
            self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        try:
            return json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}

    def _is_over(self, holder: dict[str, Any]) -> bool:
        here = _identity()
        if all(holder.get(key) == here[key] for key in ("host", "pid_namespace")):
            return not is_running(holder.get("pid"), holder.get("pid_created"))
        return self._age_s() > STALE_S

    def _age_s(self) -> float:
        """Seconds since the last beat, both times taken by the clock of the disk."""
        try:
            with files.atomic_path(self.path.with_suffix(".clock")) as probe:
                return probe.stat().st_mtime - self.path.stat().st_mtime
        except FileNotFoundError:
            return float("inf")
        finally:
            self.path.with_suffix(".clock").unlink(missing_ok=True)


def describe(holder: dict[str, Any]) -> str:
    """The holder in words: `job 17 on node3 (pid 4711)`."""
    job = f"job {holder['job_id']} " if holder.get("job_id") else "a run "
    return f"{job}on {holder.get('host', 'an unknown machine')} (pid {holder.get('pid', '?')})"


def _identity() -> dict[str, Any]:
    process = psutil.Process()
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return {
        "host": socket.gethostname(),
        "pid_namespace": namespace,
        "pid": process.pid,
        "pid_created": process.create_time(),
    }
