"""Model server processes that a run owns: start, wait for ready, restart, stop.

A `Launch` is one command; a `Replica` is one process of it at a time; `ManagedBackend` keeps a
number of replicas alive and hands their URLs to the gateway. Nothing starts before the first call.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from cuesheet.errors import CuesheetError
from cuesheet.run_link import tail_of
from cuesheet.upstream import Affinity, BackendFailedError, Upstream

log = logging.getLogger(__name__)

POLL_S = 0.1
PROBE_TIMEOUT_S = 5.0
STOP_GRACE_S = 5.0
OFFLINE_KEY_ENV = "CUESHEET_MODEL_SERVER_KEY"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Launch:
    """One command that serves an OpenAI API on 127.0.0.1, at `port` or at the one it writes.

    `environment` is added to the run's own. `api_key` is what the server will ask for.
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    api_key: str
    port: int | None = None
    port_file: Path | None = None


def offline_launch(folder: Path) -> Callable[[str], Launch]:
    """Return what makes the command of an offline server, by replica name; fresh at each start."""

    def launch(name: str) -> Launch:
        port_file = folder / f"{name}.port"
        port_file.unlink(missing_ok=True)
        key = secrets.token_urlsafe(24)
        argv = [sys.executable, "-m", "cuesheet.offline_vlm", "--port", "0"]
        argv += ["--port-file", str(port_file), "--api-key-env", OFFLINE_KEY_ENV]
        paths = [str(Path(__file__).resolve().parents[1])]
        paths += [rest for rest in [os.environ.get("PYTHONPATH")] if rest]
        return Launch(
            argv,
            {"PYTHONPATH": os.pathsep.join(paths), OFFLINE_KEY_ENV: key},
            key,
            port_file=port_file,
        )

    return launch


class ServerFailedError(CuesheetError):
    """A model server did not come up; carries the end of its log."""


class Replica:
    """One model server process, in a process group of its own."""

    def __init__(
        self,
        name: str,
        launch: Callable[[str], Launch],
        log_path: Path,
        model: str,
        ready_timeout_s: float,
        timeout_s: float,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self.model = model
        self.ready_timeout_s = ready_timeout_s
        self.timeout_s = timeout_s
        self._launch = launch
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> Upstream:
        """Start the process and wait until it serves the model. Raises ServerFailedError."""
        launch = self._launch(self.name)
        begun = time.monotonic()
        with self.log_path.open("ab") as output:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *launch.argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **launch.environment},
                    start_new_session=True,
                    preexec_fn=_die_with_parent(),
                )
            except OSError as error:
                raise ServerFailedError(
                    f"{self.name}: {launch.argv[0]} cannot be started: {error}"
                ) from error
        log.info("%s: pid %d: %s", self.name, self._process.pid, " ".join(launch.argv))
        try:
            url = await self._until_ready(launch, begun + self.ready_timeout_s)
        except BaseException:
            await self.stop()
            raise
        log.info("%s: ready at %s after %.1f s", self.name, url, time.monotonic() - begun)
        return Upstream(url, launch.api_key, self.timeout_s, local=True)

    async def wait(self) -> int:
        """Wait for the process to end and return its exit status (minus the signal's number)."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """End the process and its group: SIGTERM, and SIGKILL after a grace time."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            _signal_group(process.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_GRACE_S)
            except TimeoutError:
                log.warning("%s: still there %g s after SIGTERM", self.name, STOP_GRACE_S)
        # Also where the process has ended: workers of its group may have stayed.
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()

    async def _until_ready(self, launch: Launch, deadline: float) -> str:
        missing = "its port is not known"
        headers = {"Authorization": f"Bearer {launch.api_key}"}
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
            while time.monotonic() < deadline:
                assert self._process is not None
                if self._process.returncode is not None:
                    raise ServerFailedError(self._with_log(_ending(self._process.returncode)))
                port = launch.port or _port_in(launch.port_file)
                if port is not None:
                    missing = await self._what_is_missing(http, f"http://127.0.0.1:{port}")
                    if not missing:
                        return f"http://127.0.0.1:{port}/v1"
                await asyncio.sleep(POLL_S)
        raise ServerFailedError(
            self._with_log(
                f"was not ready within {self.ready_timeout_s:g} s: {missing} (vlm.ready_timeout_s)"
            )
        )

    async def _what_is_missing(self, http: aiohttp.ClientSession, root: str) -> str:
        """Return what keeps the server from being ready; empty if it is."""
        try:
            async with http.get(f"{root}/health") as health:
                if health.status != 200:
                    return f"/health answers {health.status}"
            async with http.get(f"{root}/v1/models") as response:
                if response.status != 200:
                    return f"/v1/models answers {response.status}"
                models = [model["id"] for model in (await response.json(content_type=None))["data"]]
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"no answer ({type(error).__name__})"
        except (ValueError, KeyError, TypeError) as error:
            return f"/v1/models answers something else than a list of models ({error})"
        if models and self.model not in models:
            raise ServerFailedError(
                self._with_log(
                    f"serves {', '.join(models)} and not the model {self.model!r}; check vlm.model"
                )
            )
        return "" if models else "/v1/models lists no model yet"

    def _with_log(self, what: str) -> str:
        tail = tail_of(self.log_path)
        end = f"\nlast lines of {self.log_path}:\n{tail}" if tail else f"\nlog: {self.log_path}"
        return f"{self.name} {what}{end}"


class ManagedBackend:
    """Keeps replicas alive from the first call on; a dead one is restarted, a number of times."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        model: str,
        max_restarts: int,
        on_failed: Callable[[str], None],
    ) -> None:
        self._replicas = list(replicas)
        self._model = model
        self._max_restarts = max_restarts
        self._on_failed = on_failed
        self._affinity = Affinity()
        self._serving: dict[str, Upstream] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._given_up: dict[str, str] = {}
        self._error: str | None = None
        self._changed = asyncio.Event()

    async def pick(self, group: str) -> Upstream:
        if not self._keepers:
            log.info("first call that the cache does not answer: starting the model server")
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
                    # What never came up will not come up: say so at once.
                    self._give_up(replica, cause)
                    return
            except Exception as error:
                log.exception("%s: cannot be watched", replica.name)
                self._give_up(replica, f"{replica.name}: {type(error).__name__}: {error}")
                return
            else:
                self._serving[replica.name] = upstream
                self._notify()
                status = await replica.wait()
                del self._serving[replica.name]
                await replica.stop()
                await upstream.close()
                tail = tail_of(replica.log_path)
                cause = f"{replica.name} {_ending(status)}\nlast lines of its log:\n{tail}"
            if restarts == self._max_restarts:
                self._give_up(
                    replica, f"{cause}\nrestarted {restarts} times already (vlm.max_restarts)"
                )
                return
            restarts += 1
            log.warning("%s; restart %d of %d", cause, restarts, self._max_restarts)
            await asyncio.sleep(min(10.0, 0.25 * 2**restarts))

    def _give_up(self, replica: Replica, cause: str) -> None:
        log.error("%s", cause)
        self._given_up[replica.name] = cause
        if len(self._given_up) == len(self._replicas):
            self._error = cause
            self._on_failed(cause)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _port_in(path: Path | None) -> int | None:
    if path is None:
        return None
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _ending(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
        return f"was ended by signal {-status}"
    return f"ended with exit status {status}"


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _die_with_parent() -> Callable[[], Any] | None:
    """Return what makes a child end when this process is killed, where the system can (Linux).

    Runs between fork and exec, so what it needs is looked up before. The kernel ties the signal to
    the thread that forks: this must be called from the main thread, which lives as long as we do.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
