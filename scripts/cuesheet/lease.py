"""Leases: files on a shared disk by which one process at a time does a piece of work.

Invariants:
- A lease is created by a hard link to a complete private file, so of several processes exactly one
  gets it, and nobody reads half of one. If the disk has no hard links, it is created exclusively.
- Its holder renews it every few seconds. A lease that was not renewed for STALE_AFTER_S is free. If
  its holder ran on this machine, it is free as soon as that process has ended.
- A lease that is free in this way is removed only by the process that holds the lease on its
  removal, so two processes that wait for it cannot both get it.

Locks of the file system are not used, because not every cluster's disk has them.
"""

import errno
import functools
import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from cuesheet import files
from cuesheet.process_status import is_running

RENEW_EVERY_S = 5.0
# Longer than file attributes are cached on network disks.
STALE_AFTER_S = 75.0
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS, errno.EXDEV)


class LeaseLostError(Exception):
    """Another process holds the lease now."""


class Lease:
    """The exclusive right to the work that the file `path` represents."""

    def __init__(
        self,
        path: Path | str,
        about: dict[str, Any],
        *,
        content: dict[str, Any] | None = None,
        source: Path | None = None,
        disk_time: Callable[[], float] | None = None,
    ) -> None:
        """Prepare a lease; nothing is written.

        `about` is information for those who wait, such as the id of a job. Leases that share their
        `content` (from `identity`) become links to the file `source`, which has it. `disk_time`
        returns the Unix time (s) by the clock of the disk; without it, a file is written.
        """
        self.path = Path(path)
        self._content = content or {**about, **identity()}
        self._source = source
        self._disk_time = disk_time or self._measure_disk_time
        self._renewed_at = 0.0

    def try_acquire(self) -> dict[str, Any] | None:
        """Take the lease if it is free. Return None, or the content of the current holder."""
        if self._create():
            return None
        holder = self._read()
        if holder is None:  # released just now
            return None if self._create() else (self._read() or {})
        if not self._is_over(holder):
            return holder
        removal = Lease(
            self.path.with_name(f"{self.path.name}.removal"),
            {},
            content=self._content,
            source=self._source,
            disk_time=self._disk_time,
        )
        if removal.try_acquire() is not None:
            return holder
        try:
            if self._read() == holder:
                self.path.unlink(missing_ok=True)
            return None if self._create() else (self._read() or {})
        finally:
            removal.release()

    def renew(self) -> None:
        """Renew the lease, at most every RENEW_EVERY_S. Raises LeaseLostError."""
        if time.monotonic() - self._renewed_at < RENEW_EVERY_S:
            return
        holder = self._read()
        if holder is not None and not self._is_mine(holder):
            raise LeaseLostError(f"{self.path} is held by {describe(holder)}")
        try:
            os.utime(self.path)
        except FileNotFoundError:
            if not self._create():
                raise LeaseLostError(f"{self.path} is held by another process") from None
        self._renewed_at = time.monotonic()

    def release(self) -> None:
        """Free the lease if this process still holds it."""
        holder = self._read()
        if holder is not None and self._is_mine(holder):
            self.path.unlink(missing_ok=True)

    def _is_mine(self, holder: dict[str, Any]) -> bool:
        return holder.get("token") == self._content["token"]

    def _create(self) -> bool:
        """Create the file with its content; return False if there is one already."""
        try:
            if self._source is not None:
                os.link(self._source, self.path)
            else:
                with files.temporary_file(self.path) as (handle, temporary):
                    os.write(handle, json.dumps(self._content).encode())
                    os.link(temporary, self.path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            return self._create_without_links()
        self._renewed_at = time.monotonic()
        return True

    def _create_without_links(self) -> bool:
        try:
            with self.path.open("x", encoding="utf-8") as file:
                json.dump(self._content, file)
        except FileExistsError:
            return False
        self._renewed_at = time.monotonic()
        return True

    def _read(self) -> dict[str, Any] | None:
        """Return what the holder wrote; {} if it cannot be read, None if there is no lease."""
        try:
            content = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def _is_over(self, holder: dict[str, Any]) -> bool:
        here = _this_process()
        if all(holder.get(key) == here[key] for key in ("host", "pid_namespace")):
            return not is_running(holder.get("pid"), holder.get("pid_created"))
        try:
            return self._disk_time() - self.path.stat().st_mtime > STALE_AFTER_S
        except FileNotFoundError:
            return True

    def _measure_disk_time(self) -> float:
        with files.temporary_file(self.path) as (handle, _):
            return os.fstat(handle).st_mtime


def describe(holder: dict[str, Any]) -> str:
    """Return the holder in words: `job 17 on node3 (pid 4711)`."""
    job = f"job {holder['job_id']} " if holder.get("job_id") else "a run "
    return f"{job}on {holder.get('host', 'an unknown machine')} (pid {holder.get('pid', '?')})"


def identity() -> dict[str, Any]:
    """Return what identifies a holder: its process, and a token of its own."""
    return {**_this_process(), "token": secrets.token_hex(8)}


def _this_process() -> dict[str, Any]:
    return _describe_process(os.getpid())


@functools.lru_cache(maxsize=1)
def _describe_process(pid: int) -> dict[str, Any]:
    process = psutil.Process(pid)
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return {
        "host": socket.gethostname(),
        "pid_namespace": namespace,
        "pid": pid,
        "pid_created": process.create_time(),
    }
