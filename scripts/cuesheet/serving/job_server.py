"""Runs the scripts of a run's jobs in forks of one process that has imported them already.

A job that handles one episode works for some tens of milliseconds and would import for hundreds.
So the run starts this process beside its gateway, and Snakemake starts `job_client` in
place of Python: it hands the script over, a fork runs it, and it ends as the fork does. To the
script and to Snakemake it is a process of its own, as ever: with its own arguments, environment,
log and exit status; killed with its job, and a job that is killed takes no other along. What it
imports, it may have imported before it began.

What a script imports is imported here when the first job of that script comes. Everything ends with
the run: stdin is a pipe from Snakemake, which closes however that ends.
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
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

SWITCH = "CUESHEET_JOB_SERVER"  # "off": every job is a Python of its own
LOG_NAME = "jobs.tsv"
_CLIENT = Path(__file__).with_name("job_client.py")
_SCRIPTS = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1
_REQUEST_TIMEOUT_S = 10.0


class JobServer:
    """The job server of a run, as the process that runs Snakemake sees it."""

    def __init__(self, folder: Path | str) -> None:
        """Start it; its log, one line a job, goes into `folder`."""
        self._sockets = Path(tempfile.mkdtemp(prefix="cuesheet-jobs-"))
        self.socket = self._sockets / "socket"
        log = Path(folder) / LOG_NAME
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cuesheet.serving.job_server", str(self.socket)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,
            )

    @staticmethod
    def _environment() -> dict[str, str]:
        # One thread each: a process with threads is not safe to fork.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        rest = os.environ.get("PYTHONPATH")
        path = f"{_SCRIPTS}{os.pathsep}{rest}" if rest else str(_SCRIPTS)
        return {**os.environ, **threads, "PYTHONPATH": path}

    @property
    def shell_prefix(self) -> str:
        """Bash that has this interpreter's path call the client; for Snakemake's `shell.prefix`.

        A job in another environment (conda, a container) calls another Python and is not concerned.
        """
        client = shlex.join([sys.executable, "-I", "-S", str(_CLIENT), str(self.socket)])
        python = shlex.quote(sys.executable)
        return f'set -euo pipefail; function {python} {{ exec {client} {python} "$@"; }}; '

    def stop(self, timeout_s: float = 10.0) -> None:
        """End it, and any job that still runs. May be called twice."""
        self._process.stdin.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._sockets, ignore_errors=True)


def usable() -> bool:
    """Whether this system forks safely and nobody switched the job server off."""
    return sys.platform == "linux" and os.environ.get(SWITCH) != "off"


class _Job:
    def __init__(self, pid: int, name: str, client: socket.socket) -> None:
        self.pid = pid
        self.name = name
        self.client = client
        self.begun_s = time.monotonic()

    def signal(self, number: int) -> None:
        # Its group, which it leads: the programs that it started get the signal as well.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class _Server:
    def __init__(self, path: str) -> None:
        self._jobs: dict[int, _Job] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(128)
        wake_read, self._wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(0, selectors.EVENT_READ, self._leash)
        self._selector.register(wake_read, selectors.EVENT_READ, self._reap)
        self._open = True

    def serve(self) -> None:
        """Until the leash is let go; then kill what runs."""
        while self._open:
            for key, _ in self._selector.select():
                key.data(key.fileobj)
        for job in self._jobs.values():
            job.signal(signal.SIGKILL)

    def _leash(self, _: object) -> None:
        self._open = bool(os.read(0, 4096))

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        files: list[int] = []
        try:
            client.settimeout(_REQUEST_TIMEOUT_S)
            head, files, _, _ = socket.recv_fds(client, 4, 3)
            folder, arguments, environment = _parse(_receive(client, int.from_bytes(head, "big")))
            if len(files) != 3:
                raise ValueError("no stdin, stdout and stderr came with it")
        except (OSError, ValueError) as error:
            print(f"a request could not be read: {error}", flush=True)
            client.close()
        else:
            client.settimeout(None)
            self._start(client, files, folder, arguments, environment)
        for number in files:
            os.close(number)

    def _start(
        self,
        client: socket.socket,
        files: list[int],
        folder: bytes,
        arguments: list[str],
        environment: dict[bytes, bytes],
    ) -> None:
        # Snakemake's copy of scripts/NAME.py is called RANDOM.NAME.py.
        name = Path(arguments[0]).name.split(".")[-2]
        _preload(name)
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._close()
            _become(server, files, folder, environment)
            _run(arguments)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)
        job = _Job(pid, name, client)
        self._jobs[pid] = job
        self._selector.register(client, selectors.EVENT_READ, functools.partial(self._told, job))

    def _close(self) -> None:
        """In a fork: let go of everything that is the server's."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            elif key.fd != 0:
                os.close(key.fd)
        os.close(self._wake_write)
        self._selector.close()

    def _told(self, job: _Job, client: socket.socket) -> None:
        """Signals that the client got; nothing, when it is gone."""
        try:
            numbers = client.recv(16)
        except OSError:
            numbers = b""
        for number in numbers:
            job.signal(number)
        if not numbers:
            self._selector.unregister(client)
            job.signal(signal.SIGKILL)

    def _reap(self, wake_read: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wake_read, 4096)
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if job := self._jobs.pop(pid, None):
                self._report(job, os.waitstatus_to_exitcode(status), used)

    def _report(self, job: _Job, code: int, used) -> None:
        wall_s, cpu_s = time.monotonic() - job.begun_s, used.ru_utime + used.ru_stime
        print(
            f"{job.name}\t{code}\t{wall_s:.3f}\t{cpu_s:.3f}\t{used.ru_maxrss / 1024:.0f}",
            flush=True,
        )
        with contextlib.suppress(KeyError):
            self._selector.unregister(job.client)
        with contextlib.suppress(OSError):
            job.client.sendall(code.to_bytes(4, "big", signed=True))
        job.client.close()


def _receive(client: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        received = client.recv(min(1 << 20, length - len(data)))
        if not received:
            raise ValueError("it ends early")
        data += received
    return bytes(data)


def _parse(request: bytes) -> tuple[bytes, list[str], dict[bytes, bytes]]:
    """Folder, script and its arguments, environment; see `job_client.main`."""
    folder, count, *rest = request.split(b"\0")
    arguments = [os.fsdecode(word) for word in rest[: int(count)]]
    pairs = (variable.partition(b"=") for variable in rest[int(count) :])
    if not arguments:
        raise ValueError("it names no script")
    return folder, arguments, {name: value for name, _, value in pairs}


@functools.cache
def _preload(name: str) -> None:
    """Import what scripts/`name`.py imports, and call its `warm_up` if it has one.

    What cannot be imported fails in the job itself.
    """
    if not (_SCRIPTS / f"{name}.py").is_file():
        return
    try:
        module = importlib.import_module(name)
        if hasattr(module, "warm_up"):
            module.warm_up()
    except Exception:
        traceback.print_exc()
    gc.collect()
    gc.freeze()  # or collections in the forks would copy every page that holds an object


def _become(server: int, files: list[int], folder: bytes, environment: dict[bytes, bytes]) -> None:
    """Make the fork what the client is: files, folder, environment; and one that dies with us."""
    os.setpgid(0, 0)
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)
    for target, number in enumerate(files):
        os.dup2(number, target)
        os.close(number)
    os.chdir(folder)
    os.environb.clear()
    os.environb.update(environment)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _run(arguments: list[str]) -> None:
    """Run the script as Python would and end the process; never returns."""
    code = 1
    try:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(arguments[0])
        with _exit_code() as result:
            runpy.run_path(arguments[0], run_name="__main__")
        code = result[0]
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


@contextlib.contextmanager
def _exit_code() -> Iterator[list[int]]:
    result = [0]
    try:
        yield result
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            result[0] = end.code or 0
        else:
            print(end.code, file=sys.stderr)
            result[0] = 1
    except BaseException:
        traceback.print_exc()
        result[0] = 1


def main(arguments: list[str]) -> None:
    _libc()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("rule\texit_code\twall_s\tcpu_s\tmax_rss_mb", flush=True)
    server = _Server(arguments[0])
    # What every script of Snakemake's begins with.
    importlib.import_module("snakemake.logging")
    importlib.import_module("snakemake.iocontainers")
    server.serve()


if __name__ == "__main__":
    main(sys.argv[1:])
