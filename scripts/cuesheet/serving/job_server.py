"""Runs the scripts of a run's jobs in forks of one process that has already imported them.

A job for one episode works for some tens of milliseconds but would import for hundreds. So a run
starts this process, and Snakemake starts `job_client` instead of Python: it hands the script over,
a fork runs it, and the client exits as the fork does. For the script this is a process of its own,
with its own arguments, environment, log and exit status, and killed together with its job.

The first job of each script imports its modules here. Everything ends with the run: stdin is a pipe
from Snakemake. Snakemake's benchmark files measure the client, so they are corrected at the end of
the run with what the forks themselves recorded (`cuesheet.job_log`).
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import os
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path

from cuesheet.files import make_temporary_folder
from cuesheet.job_log import INTERRUPTED_STATUS, USAGE_VARIABLE, correct_benchmarks
from cuesheet.process_status import signal_group

SWITCH = "CUESHEET_JOB_SERVER"  # "off": every job starts its own Python
_CLIENT = Path(__file__).with_name("job_client.py")
_SCRIPTS = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1


def usable() -> bool:
    """Return whether this system can fork safely and the job server is not switched off."""
    return sys.platform == "linux" and os.environ.get(SWITCH) != "off"


class JobServer:
    """The job server of a run, as used by the process that runs Snakemake."""

    def __init__(self, folder: Path | str) -> None:
        """Start the server; its log and the usage of its jobs are written to `folder`."""
        self._sockets = make_temporary_folder()
        self.socket = self._sockets / "socket"
        self._usage = Path(folder).resolve() / "job_usage.jsonl"
        os.environ[USAGE_VARIABLE] = str(self._usage)
        # One thread each: a process with threads is not safe to fork.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with (Path(folder) / "jobs.log").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cuesheet.serving.job_server", str(self.socket)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **threads},
                start_new_session=True,
            )

    @property
    def shell_prefix(self) -> str:
        """Bash code for Snakemake's `shell.prefix` that redirects this Python to the client.

        Jobs in other environments (conda, containers) start another Python and are not affected.
        """
        client = shlex.join([sys.executable, "-I", "-S", str(_CLIENT), str(self.socket)])
        python = sys.executable
        return f'set -euo pipefail; function {python} {{ exec {client} {python} "$@"; }}; '

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop the server and all running jobs, and correct the benchmark files."""
        os.environ.pop(USAGE_VARIABLE, None)
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._sockets, ignore_errors=True)
        correct_benchmarks(self._usage)


class _Server:
    def __init__(self, path: str) -> None:
        self._clients: dict[int, socket.socket] = {}  # by process id of the fork
        self._selector = selectors.DefaultSelector()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(128)
        wake_read, self._wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(wake_read, selectors.EVENT_READ, self._reap)
        self._selector.register(0, selectors.EVENT_READ)

    def serve(self) -> list[str] | None:
        """Serve until stdin is closed, then return None; in a fork, return the script to run."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == 0:
                    if os.read(0, 4096):
                        continue
                    for pid in self._clients:
                        signal_group(pid, signal.SIGKILL)
                    return None
                if script := key.data(key.fileobj):
                    return script

    def _accept(self, listener: socket.socket) -> list[str] | None:
        client, _ = listener.accept()
        numbers: list[int] = []
        try:
            head, numbers, _, _ = socket.recv_fds(client, 4, 3)
            length = int.from_bytes(head, "big")
            folder, arguments, environment = _parse(client.recv(length, socket.MSG_WAITALL))
            return self._fork(client, numbers, folder, arguments, environment)
        except (OSError, ValueError) as error:
            print(f"a request could not be read: {error}", flush=True)
            client.close()
            return None
        finally:
            for number in numbers:
                with contextlib.suppress(OSError):  # closed in the fork
                    os.close(number)

    def _fork(
        self,
        client: socket.socket,
        numbers: list[int],
        folder: bytes,
        arguments: list[str],
        environment: dict[bytes, bytes],
    ) -> list[str] | None:
        # Snakemake's copy of scripts/NAME.py is called RANDOM.NAME.py.
        _preload(Path(arguments[0]).name.split(".")[-2])
        server = os.getpid()
        pid = os.fork()
        if pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.setpgid(pid, pid)
            self._clients[pid] = client
            passed = functools.partial(self._pass_signals, pid)
            self._selector.register(client, selectors.EVENT_READ, passed)
            return None
        self._close()
        _become(server, numbers, folder, environment)
        return arguments

    def _close(self) -> None:
        """In a fork: close everything that belongs to the server."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            elif key.fd:
                os.close(key.fd)
        os.close(self._wake_write)
        self._selector.close()

    def _pass_signals(self, pid: int, client: socket.socket) -> None:
        """Pass on the signals that a client received; kill its fork if the client is gone."""
        try:
            numbers = client.recv(16)
        except OSError:
            numbers = b""
        for number in numbers:
            signal_group(pid, number)
        if not numbers:
            self._selector.unregister(client)
            signal_group(pid, signal.SIGKILL)

    def _reap(self, wake_read: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wake_read, 4096)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                client = self._clients.pop(ended[0])
                with contextlib.suppress(KeyError):
                    self._selector.unregister(client)
                with contextlib.suppress(OSError):
                    code = os.waitstatus_to_exitcode(ended[1])
                    client.sendall(code.to_bytes(4, "big", signed=True))
                client.close()


def _parse(request: bytes) -> tuple[bytes, list[str], dict[bytes, bytes]]:
    """Return folder, script with arguments, and environment; see `job_client.main`."""
    folder, count, *rest = request.split(b"\0")
    arguments = [os.fsdecode(word) for word in rest[: int(count)]]
    if not arguments:
        raise ValueError("it names no script")
    pairs = (variable.partition(b"=") for variable in rest[int(count) :])
    return folder, arguments, {name: value for name, _, value in pairs}


@functools.cache
def _preload(name: str) -> None:
    """Import scripts/`name`.py and call its `warm_up`, if any. Failures show up in the job."""
    if not (_SCRIPTS / f"{name}.py").is_file():
        return
    try:
        getattr(importlib.import_module(name), "warm_up", lambda: None)()
    except Exception:
        traceback.print_exc()
    gc.collect()
    gc.freeze()  # collections in the forks would copy every page that holds an object


def _become(
    server: int, numbers: list[int], folder: bytes, environment: dict[bytes, bytes]
) -> None:
    """Take over the files, folder and environment of the client; die with the server."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)
    for target, number in enumerate(numbers):
        os.dup2(number, target)
    os.chdir(folder)
    os.environb.clear()
    os.environb.update(environment)


def _run(script: list[str]) -> int:
    """Run a script in a fork, and return the exit status that Python would have."""
    sys.argv = script
    sys.path[0] = os.path.dirname(script[0])
    try:
        runpy.run_path(script[0], run_name="__main__")
    except KeyboardInterrupt:  # before the script could write it to its log
        print("interrupted", file=sys.stderr)
        return INTERRUPTED_STATUS
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    server, status = os.getpid(), 0

    def end() -> None:
        if os.getpid() != server:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    # A fork ends when its threads and exit handlers are done. If Python also deleted all modules,
    # it would copy the memory that the fork shares with the server, which takes 30 CPU ms per job.
    atexit.register(end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Every script starts with these. Snakemake imports its `io` only when it reads a job's object.
    for module in ("snakemake.logging", "snakemake.iocontainers", "snakemake.io"):
        importlib.import_module(module)
    sys.path.insert(1, str(_SCRIPTS))
    # While the model server is checked. The other scripts import mostly the same modules.
    _preload("index_episodes")
    script = _Server(sys.argv[1]).serve()
    if script is not None:  # in a fork
        status = _run(script)


if __name__ == "__main__":
    main()
