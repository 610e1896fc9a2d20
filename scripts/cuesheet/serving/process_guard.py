"""Run a command and kill its process tree when stdin is closed.

    python -I process_guard.py GRACE_S COMMAND [ARGUMENT ...]

A model server has children and grandchildren (vLLM: one engine core process per GPU and more) and
must not outlive the run, even if the supervisor is killed and cannot clean up. This process stands
between the two. It ends the command when stdin, a pipe from the supervisor, is closed, or on
SIGTERM, SIGINT or SIGHUP: SIGTERM first, SIGKILL for the whole tree after GRACE_S seconds. It exits
the way the command did. On Linux it adopts orphaned descendants, so that none escapes.
"""

import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

POLL_S = 0.1
KILL_TIMEOUT_S = 2.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> int:
    """Run the command to its end and return its exit status."""
    grace_s, command = float(arguments[0]), arguments[1:]
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, preexec_fn=_die_with(os.getpid())
        )
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return 126 if isinstance(error, PermissionError) else 127
    while not stopped and _is_running(child):
        ready, _, _ = select.select([0], [], [], POLL_S)
        stopped = stopped or bool(ready and not os.read(0, 4096))
    if _is_running(child):
        child.terminate()
    deadline = time.monotonic() + grace_s
    while _is_running(child) and time.monotonic() < deadline:
        time.sleep(POLL_S / 2)
    _kill_tree(child)
    return _exit_like(child.returncode)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _die_with(parent: int) -> Callable[[], None]:
    """Return what the child runs before the command: it is killed when `parent` ends."""

    def prepare() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _is_running(child: subprocess.Popen[bytes]) -> bool:
    """Reap adopted processes that have ended, and return whether the command still runs."""
    while child.poll() is None:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        if ended is None:
            return True
        if ended.si_pid != child.pid:
            os.waitpid(ended.si_pid, 0)
    return False


def _kill_tree(child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while time.monotonic() < deadline:
        _is_running(child)  # reaps the command
        remaining = psutil.Process().children(recursive=True)
        if not remaining:
            break
        for process in remaining:
            try:
                process.kill()
                if process.ppid() == os.getpid() and process.pid != child.pid:
                    process.wait(POLL_S)
            except (psutil.NoSuchProcess, psutil.TimeoutExpired):
                continue


def _exit_like(code: int | None) -> int:
    """Exit with the command's status, or by the signal that ended it."""
    if code is not None and code >= 0:
        return code
    number = signal.SIGKILL if code is None else signal.Signals(-code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
