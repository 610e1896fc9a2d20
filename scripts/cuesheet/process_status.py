"""Whether another process on this machine still runs, and signals to its group."""

import contextlib
import os


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process group, if it still exists."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def is_running(pid: int | None, created_at: float | None = None) -> bool:
    """Return whether the process exists and is not a zombie.

    `created_at`: its creation time (s, Unix time), if known; a process that has the same id but
    was created at another time is a different one.
    """
    if pid is None:
        return False
    import psutil  # not at import: most jobs never ask

    try:
        process = psutil.Process(pid)
        if created_at is not None and abs(process.create_time() - created_at) >= 1.0:
            return False
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
