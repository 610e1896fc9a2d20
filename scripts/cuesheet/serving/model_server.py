"""Model server processes that a run owns: start, wait until ready, restart, stop.

A `Launch` is one command. A `Replica` runs it as one process at a time, behind a process guard
(`cuesheet.serving.process_guard`), so that it ends with the supervisor. `ManagedBackend` restarts
replicas that end and gives their URLs to the gateway. No server starts before the first request.
"""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from cuesheet.errors import CuesheetError
from cuesheet.files import read_end
from cuesheet.process_status import signal_group
from cuesheet.serving import log_diagnosis
from cuesheet.serving.backends import Affinity, BackendFailedError
from cuesheet.serving.launch_command import Launch
from cuesheet.serving.log_diagnosis import Cause
from cuesheet.serving.upstream import Upstream
from cuesheet.vlm.gateway_client import tail_of

log = logging.getLogger(__name__)

POLL_S = 0.1
PROBE_TIMEOUT_S = 5.0
METRICS_TIMEOUT_S = 1.0
STOP_GRACE_S = 5.0
# Longer than the process guard takes to end its process tree.
STOP_TIMEOUT_S = STOP_GRACE_S + 5.0
STARTS = 4
_GUARD = str(Path(__file__).with_name("process_guard.py"))


class ServerFailedError(CuesheetError):
    """A model server did not start; the message has the cause and the end of its log."""

    def __init__(self, message: str, cause: Cause | None = None) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass
class Replica:
    """One model server process, in its own process group."""

    name: str
    launch: Callable[[str], Launch]
    log_path: Path
    model: str
    ready_timeout_s: float
    timeout_s: float
    url: str | None = None
    _process: asyncio.subprocess.Process | None = None
    _log_begin: int = 0
    _begun: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int | None:
        """The process guard's id; the server is below it, in the same process group."""
        return self._process.pid if self._process else None

    async def start(self) -> Upstream:
        """Start the process and wait until it serves the model. Raises ServerFailedError.

        If another program took the port, or this version of the server does not know an optional
        argument, the server is started again without it.
        """
        for left in range(STARTS - 1, -1, -1):
            launch = self.launch(self.name)
            try:
                return await self._start_once(launch)
            except ServerFailedError as error:
                if error.cause is None:
                    raise
                may_retry = error.cause.kind == "port_taken" or (
                    error.cause.kind == "bad_argument" and launch.leave_out(str(error.cause))
                )
                if not (may_retry and left):
                    raise
                log.warning("%s: %s; starting it again", self.name, error.cause.words)
        raise AssertionError

    async def _start_once(self, launch: Launch) -> Upstream:
        self._begun = time.monotonic()
        with self.log_path.open("ab") as output:
            self._log_begin = output.tell()
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", _GUARD, str(STOP_GRACE_S), *launch.argv),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=launch.full_environment(),
                start_new_session=True,
            )
        log.info("%s: pid %d: %s", self.name, self._process.pid, launch.words())
        try:
            url = await self._wait_until_ready(launch, self._begun + self.ready_timeout_s)
        except BaseException:
            await self.stop()
            raise
        self.url = url
        log.info("%s: ready at %s after %.1f s", self.name, url, time.monotonic() - self._begun)
        return Upstream(url, launch.api_key, self.timeout_s, launch.structured)

    def loading(self) -> tuple[float, str]:
        """Return the seconds since its start, and the last line of its log."""
        line = log_diagnosis.last_line(read_end(self.log_path, self._log_begin))
        return time.monotonic() - self._begun, line

    async def wait(self) -> int:
        """Wait for the process to end and return its exit status (minus the signal's number)."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Stop the process tree: SIGTERM, and SIGKILL after a grace time."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            begun = time.monotonic()
            await self._save_metrics()
            assert process.stdin is not None
            process.stdin.close()  # tells the process guard to stop
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
                log.info("%s: ended after %.1f s", self.name, time.monotonic() - begun)
            except TimeoutError:
                log.warning("%s: still running after %g s", self.name, STOP_TIMEOUT_S)
        # If the process guard itself was killed, other processes of its group may remain.
        signal_group(process.pid, signal.SIGKILL)
        await process.wait()
        self.url = None

    async def _save_metrics(self) -> None:
        """Write the server's metrics (Prometheus text) next to its log, if it has any."""
        if self.url is None:
            return
        timeout = aiohttp.ClientTimeout(total=METRICS_TIMEOUT_S)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError):
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.get(f"{self.url.removesuffix('/v1')}/metrics") as answer,
            ):
                if answer.status == 200:
                    self.log_path.with_suffix(".metrics.txt").write_text(await answer.text())

    async def _wait_until_ready(self, launch: Launch, deadline: float) -> str:
        missing = "its port is not known"
        headers = {"Authorization": f"Bearer {launch.api_key}"}
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
            while time.monotonic() < deadline:
                assert self._process is not None
                if self._process.returncode is not None:
                    raise self._failed(_ending(self._process.returncode))
                if port := launch.port or _port_in(launch.port_file):
                    root = f"http://127.0.0.1:{port}"
                    missing = await self._missing(http, root, launch.lists_model)
                    if not missing:
                        return f"{root}/v1"
                await asyncio.sleep(POLL_S)
        raise self._failed(
            f"was not ready within {self.ready_timeout_s:g} s: {missing} (vlm.ready_timeout_s)"
        )

    async def _missing(self, http: aiohttp.ClientSession, root: str, lists_model: bool) -> str:
        """Return why the server is not ready; empty if it is ready."""
        try:
            async with http.get(f"{root}/health") as health:
                if health.status != 200:
                    return f"/health returned {health.status}"
            if not lists_model:
                return ""
            async with http.get(f"{root}/v1/models") as response:
                if response.status != 200:
                    return f"/v1/models returned {response.status}"
                models = [model["id"] for model in (await response.json(content_type=None))["data"]]
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"no response ({type(error).__name__})"
        except (ValueError, KeyError, TypeError) as error:
            return f"/v1/models did not return a list of models ({error})"
        if models and self.model not in models:
            raise self._failed(
                f"serves {', '.join(models)} and not the model {self.model!r}; check vlm.model"
            )
        return "" if models else "/v1/models lists no model yet"

    def _failed(self, what: str) -> ServerFailedError:
        """Return the error with its cause, if the log of this start names it, and the log's end."""
        cause = log_diagnosis.cause_in(read_end(self.log_path, self._log_begin))
        because = f": {cause.words}" if cause else ""
        return ServerFailedError(f"{self.name} {what}{because}{self.log_end()}", cause)

    def log_end(self) -> str:
        """Return the last lines of the log, under its path."""
        tail = tail_of(self.log_path)
        return f"\nlast lines of {self.log_path}:\n{tail}" if tail else f"\nlog: {self.log_path}"


class ManagedBackend:
    """Starts replicas at the first request, and restarts those that end."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        model: str,
        max_restarts: int,
        on_failed: Callable[[str], None],
    ) -> None:
        """`on_failed` is called with the cause if no replica runs or will be started."""
        self._replicas = replicas
        self._model = model
        self._max_restarts = max_restarts
        self._on_failed = on_failed
        self._affinity = Affinity()
        self._serving: dict[str, Upstream] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._failed_replicas: dict[str, str] = {}
        self._error: str | None = None
        self._changed = asyncio.Event()

    async def pick(self, group: str) -> Upstream:
        if not self._keepers:
            log.info("first request that is not cached: starting the model server")
            self._keepers = [
                asyncio.create_task(self._keep(replica), name=replica.name)
                for replica in self._replicas
            ]
        while True:
            if self._error is not None:
                raise BackendFailedError(self._error)
            chosen = self._affinity.choose(list(self._serving.values()), group)
            if chosen is not None:
                return chosen
            await self._changed.wait()

    async def default_model(self) -> str:
        return self._model

    async def models(self) -> list[str]:
        return [self._model]

    def state(self) -> str:
        if self._error is not None:
            return "failed"
        if self._serving:
            return "ready"
        return "starting" if self._keepers else "idle"

    def loading(self) -> dict[str, tuple[float, str]]:
        """Return the starting replicas by name: for how long (s), and their last log line."""
        return {
            replica.name: replica.loading()
            for replica, keeper in zip(self._replicas, self._keepers, strict=False)
            if replica.name not in self._serving and not keeper.done()
        }

    async def close(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(replica.stop() for replica in self._replicas))
        for upstream in self._serving.values():
            await upstream.close()
        self._serving.clear()

    async def _keep(self, replica: Replica) -> None:
        restarts = 0
        while True:
            try:
                upstream = await replica.start()
            except CuesheetError as error:
                cause = str(error)
                if restarts == 0:
                    # A server that never started will not start: fail at once.
                    self._fail(replica, cause)
                    return
            except Exception as error:
                log.exception("%s: unexpected error", replica.name)
                self._fail(replica, f"{replica.name}: {type(error).__name__}: {error}")
                return
            else:
                self._serving[replica.name] = upstream
                self._notify()
                status = await replica.wait()
                del self._serving[replica.name]
                await replica.stop()
                await upstream.close()
                cause = f"{replica.name} {_ending(status)}{replica.log_end()}"
            if restarts == self._max_restarts:
                self._fail(
                    replica, f"{cause}\nit was restarted {restarts} times (vlm.max_restarts)"
                )
                return
            restarts += 1
            log.warning("%s; restart %d of %d", cause, restarts, self._max_restarts)
            await asyncio.sleep(min(10.0, 0.25 * 2**restarts))

    def _fail(self, replica: Replica, cause: str) -> None:
        log.error("%s", cause)
        self._failed_replicas[replica.name] = cause
        if len(self._failed_replicas) == len(self._replicas):
            self._error = cause
            self._on_failed(cause)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _port_in(path: Path | None) -> int | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int(path.read_text()) if path else None
    return None


def _ending(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
        return f"was ended by signal {-status}"
    return f"ended with exit status {status}"
