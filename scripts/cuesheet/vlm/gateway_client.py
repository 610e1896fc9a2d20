"""The connection of a job to the run's gateway: server.json, and HTTP on loopback.

A stage job is short and there are thousands of them, so it imports no HTTP package (httpx costs
about 90 CPU ms per job): requests go through http.client of the standard library, one connection
and one thread per request in flight.
"""

import asyncio
import contextlib
import functools
import http.client
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cuesheet.errors import SurroundingsError
from cuesheet.files import read_end, read_json
from cuesheet.process_status import is_running

# Printed by a run whose model server failed; the cause follows.
SERVER_FAILED = "the model server failed: "

POLL_S = 0.1
READY_TIMEOUT_S = 120.0
LOG_TAIL_LINES = 15
MAX_THREADS = 256  # more than any stage has requests in flight; idle ones are never started


class GatewayGoneError(SurroundingsError):
    """The run's gateway does not answer."""


@dataclass(frozen=True)
class GatewayClient:
    """The URL of the gateway, and the run's own key.

    `model_root`: the model behind the served name, as the server lists it; "" if it does not.
    """

    url: str
    api_key: str
    server_file: Path
    model_root: str = ""
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(MAX_THREADS, "gateway"), repr=False
    )

    @functools.cached_property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    async def post(
        self, path: str, body: dict[str, Any], headers: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """POST `body` to `path` below the URL; return status and JSON.

        There is no time limit here: the gateway bounds every attempt, and a gateway that dies
        drops the connection. Raises GatewayGoneError.
        """
        parts = self._parts
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._threads, self._post, connection, path, body, headers
            )
        except asyncio.CancelledError:
            # An interrupted job would wait for its threads, and these for their responses, which
            # the gateway caches without them.
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
            raise

    def _post(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        body: dict[str, Any],
        headers: dict[str, str],
    ) -> tuple[int, dict[str, Any]]:
        try:
            connection.request(
                "POST",
                self._parts.path.rstrip("/") + path,
                json.dumps(body, ensure_ascii=False, allow_nan=False).encode(),
                {
                    "Content-Type": "application/json",
                    "Authorization": f"Bearer {self.api_key}",
                    **headers,
                },
            )
            response = connection.getresponse()
            content = response.read()
            if "json" not in response.getheader("Content-Type", ""):
                text = content.decode(errors="replace")[:2000]
                return response.status, {"error": {"message": text}}
            return response.status, json.loads(content)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise GatewayGoneError(
                f"the run's gateway at {self.url} does not answer ({error}); it ends with the run "
                f"that started it. {_log_hint(self.server_file)}"
            ) from error
        finally:
            connection.close()


async def wait_until_ready(server_file: Path | str) -> GatewayClient:
    """Wait for the gateway and return how to reach it.

    Raises CuesheetError when the run's server failed (with its cause and the end of its log), has
    stopped, or is not ready in time.
    """
    path = Path(server_file)
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        state = _read_state(path)
        if state["state"] == "ready":
            root = state.get("model_root") or ""
            return GatewayClient(state["url"], state["api_key"], path, root)
        if state["state"] == "failed":
            raise SurroundingsError(
                f"the run's model server failed: {state.get('error')}\n{log_tails(state)}".rstrip()
            )
        if state["state"] == "stopped":
            raise SurroundingsError(
                f"the model server of {path} has stopped; it ends with the run that started it. "
                "Start the workflow again"
            )
        if state.get("pid") and not is_running(state["pid"]):
            raise SurroundingsError(
                f"the process of the run's gateway (pid {state['pid']}, from {path}) ended "
                f"unexpectedly. {_log_hint(path)}\n{log_tails(state)}".rstrip()
            )
        if time.monotonic() > deadline:
            raise SurroundingsError(
                f"the run's gateway was not ready within {READY_TIMEOUT_S:g} s (state "
                f"{state['state']!r} in {path}). {_log_hint(path)}"
            )
        await asyncio.sleep(POLL_S)


def log_tails(state: dict[str, Any]) -> str:
    """Return the last lines of every log that server.json names, under their paths."""
    tails = {path: tail_of(Path(path)) for path in state.get("logs", {}).values()}
    return "\n".join(f"last lines of {path}:\n{tail}" for path, tail in tails.items() if tail)


def tail_of(path: Path, lines: int = LOG_TAIL_LINES) -> str:
    """Return the last lines of a text file, indented; empty if there is none."""
    return "\n".join(f"    {line}" for line in read_end(path).splitlines()[-lines:])


def _read_state(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise SurroundingsError(
            f"{path} is not there: this job was not started by a run of the workflow, or the run "
            "has been cleaned up. Start it with snakemake"
        ) from error
    except ValueError as error:
        raise SurroundingsError(
            f"{path} is not JSON ({error}); start the workflow again"
        ) from error


def _log_hint(server_file: Path) -> str:
    log = read_json(server_file).get("logs", {}).get("supervisor")
    return f"Its log: {log}. Start the workflow again" if log else "Start the workflow again"
