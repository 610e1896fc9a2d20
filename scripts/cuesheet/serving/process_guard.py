"""Run a command on a leash: when whoever holds the other end of stdin goes, all of it ends.

    python -I -S leash.py GRACE_S COMMAND [ARGUMENT ...]

A model server has children and grandchildren (vLLM: one engine core process a GPU and more) and
must not outlive the run, not even where the supervisor is killed and can end nothing. So this small
process stands between the two. It starts the command and waits until stdin, a pipe from the
supervisor, is closed, or the command ends, or it gets SIGTERM or SIGINT. Then it asks the command
to end, waits for GRACE_S seconds, kills what is left, descendants in sessions of their own too, and
ends the way the command did. On Linux it adopts orphaned descendants, so none gets away; elsewhere
it kills the process group, which it must lead.

Only the standard library, and little of it: about 10 ms and 9 MB a server.
"""

import os
import select
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_LINUX = sys.platform == "linux"
_PATIENCE_S = 2.0  # for killed processes to be gone


def main(arguments: list[str]) -> int:
    """Run until it is over; the exit status is the command's."""
    grace_s, command = float(arguments[0]), arguments[1:]
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in _HANDLED:
        signal.signal(number, lambda *_: None)
    prctl = _prctl()
    if prctl:
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = _start(command, prctl)
    status = _wait(child, wake_read, None)
    if status is None:
        _send(child, signal.SIGTERM)
        status = _wait(child, wake_read, time.monotonic() + grace_s)
    status = _kill_all(child, status)
    return _end_like(status)


def _prctl():
    if not _LINUX:
        return None
    import ctypes

    return ctypes.CDLL(None).prctl


def _start(command, prctl):
    """Fork and execute; the child dies with this process, if the system can do that."""
    leash = os.getpid()
    # A signal that comes before the command runs must wait for it, not get lost in this handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        return child
    try:
        signal.set_wakeup_fd(-1)
        for number in _HANDLED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        if prctl:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != leash:
                os._exit(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]} cannot be started: {error.strerror}\n".encode())
        os._exit(126 if isinstance(error, PermissionError) else 127)
    finally:
        os._exit(1)


def _wait(child, wake_read, deadline):
    """The child's wait status; None once the leash is let go, or at `deadline` where one is given.

    After the leash is let go only the child and the deadline count.
    """
    status = None
    while status is None:
        watched = [wake_read] if deadline else [wake_read, 0]
        left_s = max(0.0, deadline - time.monotonic()) if deadline else None
        ready, _, _ = select.select(watched, [], [], left_s)
        woken_by = os.read(wake_read, 4096) if wake_read in ready else b""
        status = _reap(child)
        if status is not None:
            break
        if deadline is None and any(number != signal.SIGCHLD for number in woken_by):
            return None
        if 0 in ready and not os.read(0, 4096):
            return None
        if deadline and time.monotonic() >= deadline:
            return None
    return status


def _reap(child):
    """Take leave of everything that ended; the wait status of `child` if that was among it."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == child:
            found = status
        if pid == 0:
            return found


def _kill_all(child, status):
    """Kill what is left, until nothing is; return the wait status of `child`."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        pids = _descendants() if _LINUX else []
        for pid in pids:
            _send(pid, signal.SIGKILL)
        if status is None:
            _send(child, signal.SIGKILL)
        ended = _reap(child)
        status = ended if status is None else status
        if not pids and status is not None:
            break
        time.sleep(0.01)
    return signal.SIGKILL if status is None else status


def _descendants():
    """Every process below this one. Those whose parent ended have become its own children."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(name))
    found, open_pids = [], [os.getpid()]
    while open_pids:
        below = children.get(open_pids.pop(), [])
        found += below
        open_pids += below
    return found


def _send(pid, number):
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _end_like(status):
    """Exit as the command did: with its status, or by its signal."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.set_wakeup_fd(-1)
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    return 128 - code


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
