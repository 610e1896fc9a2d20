"""Looks at processes that may end at any moment: one that ends while it is inspected is not there.

Every test that lists processes uses these functions, and every wait in a test uses `eventually`.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

PATIENCE_S = 600  # far beyond what anything takes, on a busy machine too


def imported_after(code: str) -> set[str]:
    """Return the names of the modules that a new Python process has imported after `code`."""
    # A module that is imported at its first use has another type until then.
    names = "[name for name, module in sys.modules.items() if type(module) is type(sys)]"
    text = f"{code}\nimport sys\nprint(*{names})"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def matching(holds: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Return the live processes of this machine for which `holds` is true."""
    return [process for process in psutil.process_iter() if _holds(process, holds)]


def _holds(process: psutil.Process, holds: Callable[[psutil.Process], bool]) -> bool:
    try:
        return holds(process) and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return the processes that work in `folder`: a run's, and all that they started."""
    return matching(lambda process: process.cwd() == str(folder))


def command_of(process: psutil.Process) -> list[str]:
    """Return the command line of a process; empty if it has ended."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


def descendants(process: psutil.Process | int) -> list[psutil.Process]:
    """Return all processes below one; none if it has ended."""
    try:
        process = psutil.Process(process) if isinstance(process, int) else process
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs and is not a zombie."""
    return _holds(process, lambda one: one.is_running())


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """Kill processes; those that have ended in the meantime are skipped."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def eventually(holds: Callable[[], object], still: Callable[[], bool] = lambda: True) -> None:
    """Wait until `holds()` is true; fail after PATIENCE_S, or if `still()` is false before."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert still() or holds(), "what should happen can no longer happen"
        assert time.monotonic() < deadline, f"it did not happen within {PATIENCE_S} s"
        time.sleep(0.05)
