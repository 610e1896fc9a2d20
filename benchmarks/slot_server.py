"""A model server that takes a fixed time per request and processes a fixed number at once.

    python benchmarks/slot_server.py --port-file FILE [--reply-s 0.5] [--slots 64]

At most `--slots` requests are processed at once, `--reply-s` seconds each; the others wait. The
reply is `{"label": "cup"}`. With `--upstream URL`, it is the reply of that server, which is
requested once and then takes `--reply-s`. `GET /stats` returns the utilization of the slots since
the last `POST /reset`, and the time of the first request on the monotonic clock: `first_at`, and
without the check of the server `first_of_jobs_at`. With an upstream it also returns the size of all
distinct requests, which is counted while they are recorded.
"""

import argparse
import asyncio
import hashlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import request_size

CHECK = b'"ServerCheck"'  # the reply schema of the check of the server
REPLY = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": '{"label": "cup"}'},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020},
}


def shares(changes: list[tuple[float, int]], slots: int) -> dict[str, float]:
    """Return the utilization of the slots.

    `changes` contains (time in s, slots in use from then on). `used` is the share of slots in use
    from the first request to the last. `used_with_work` is the same until the last moment at which
    all slots were in use, because after that there is not enough work.
    """
    begin, end = changes[0][0], changes[-1][0]
    last_full = begin
    for (_, used), (until, _) in itertools.pairwise(changes):
        if used >= slots:
            last_full = until
    filled = [at for at, used in changes if used >= slots]
    return {
        "span_s": end - begin,
        "used": _mean(changes, end) / slots,
        "used_with_work": _mean(changes, last_full) / slots,
        "ramp_s": (filled[0] if filled else end) - begin,
    }


def _mean(changes: list[tuple[float, int]], end: float) -> float:
    """Return the mean number of slots in use from the first change to `end`."""
    begin = changes[0][0]
    busy = sum(
        used * (min(until, end) - at)
        for (at, used), (until, _) in itertools.pairwise(changes)
        if at < end
    )
    return busy / (end - begin) if end > begin else 0.0


class SlotServer:
    """The state of the server: its slots, its requests and its utilization."""

    def __init__(self, reply_s: float, slots: int, upstream: str | None) -> None:
        self.reply_s, self.slots, self._upstream = reply_s, slots, upstream
        self._free = asyncio.Semaphore(slots)
        self._known: dict[str, bytes] = {}
        self._sizes: Counter[str] = Counter()
        self.reset()

    def reset(self) -> None:
        self.calls = self.used = self.recorded = 0
        self.changes: list[tuple[float, int]] = []
        self.first_of_jobs_at: float | None = None

    def _change(self, by: int) -> None:
        self.used += by
        self.changes.append((time.monotonic(), self.used))

    async def reply(self, body: bytes) -> bytes:
        """Return the response to a request."""
        self.calls += 1
        answer = json.dumps(REPLY).encode()
        if self._upstream:
            key = hashlib.sha256(body).hexdigest()
            if key not in self._known:
                self.recorded += 1
                self._sizes.update(request_size.size_of(body))
                self._known[key] = await self._ask(body)
                return self._known[key]
            answer = self._known[key]
        async with self._free:
            if self.first_of_jobs_at is None and CHECK not in body:
                self.first_of_jobs_at = time.monotonic()
            self._change(1)
            try:
                await asyncio.sleep(self.reply_s)
            finally:
                self._change(-1)
        return answer

    async def _ask(self, body: bytes) -> bytes:
        import aiohttp

        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{self._upstream}/chat/completions",
                data=body,
                headers={"Content-Type": "application/json"},
            ) as response,
        ):
            response.raise_for_status()
            return await response.read()

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = {"calls": self.calls, "recorded": self.recorded}
        found["sizes"] = {"requests": len(self._known), **self._sizes}
        if len(self.changes) < 2:
            return found
        begin = self.first_of_jobs_at or self.changes[0][0]
        of_jobs = [change for change in self.changes if change[0] >= begin]
        return {
            **found,
            "first_at": self.changes[0][0],
            "first_of_jobs_at": begin,
            "used_by_jobs": shares(of_jobs, self.slots)["used"],
            **shares(self.changes, self.slots),
        }


def serve(options: argparse.Namespace) -> None:
    from aiohttp import web

    async def run() -> None:
        server = SlotServer(options.reply_s, options.slots, options.upstream)

        async def chat(request: web.Request) -> web.Response:
            return web.Response(
                body=await server.reply(await request.read()), content_type="application/json"
            )

        async def models(_: web.Request) -> web.Response:
            return web.json_response({"object": "list", "data": [{"id": options.model}]})

        async def stats(_: web.Request) -> web.Response:
            return web.json_response(server.stats())

        async def reset(request: web.Request) -> web.Response:
            server.reset()
            return web.json_response({})

        app = web.Application(client_max_size=2**28)
        app.router.add_post("/v1/chat/completions", chat)
        app.router.add_get("/v1/models", models)
        app.router.add_get("/stats", stats)
        app.router.add_post("/reset", reset)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=2048)
        await site.start()
        temporary = options.port_file.with_suffix(".new")
        temporary.write_text(str(runner.addresses[0][1]))
        temporary.rename(options.port_file)
        await asyncio.Event().wait()

    asyncio.run(run())


class Running:
    """A server in its own process."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"
        self.base_url = f"{self._address}/v1"

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._address}/stats", timeout=30) as response:
            return json.load(response)

    def reset(self) -> None:
        urllib.request.urlopen(f"{self._address}/reset", data=b"", timeout=30).close()


@contextmanager
def running(
    reply_s: float, slots: int, *, upstream: str | None = None, model: str = "m"
) -> Iterator[Running]:
    """Start a server, which ends with the block."""
    with tempfile.TemporaryDirectory(prefix="slot_server.") as name:
        port_file = Path(name) / "port"
        command = [sys.executable, __file__, "--port-file", str(port_file), "--model", model]
        command += ["--reply-s", str(reply_s), "--slots", str(slots)]
        if upstream:
            command += ["--upstream", upstream]
        with process_with_port(command, port_file) as port:
            yield Running(port)


@contextmanager
def process_with_port(command: list[str], port_file: Path) -> Iterator[int]:
    """Run a server until the block ends. Yield the port that it writes to its file."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while not (port_file.exists() and port_file.read_text()):
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
            time.sleep(0.02)
        yield int(port_file.read_text())
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--reply-s", type=float, default=0.5)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--model", default="m", help="what /v1/models lists")
    parser.add_argument("--upstream", help="base URL of the server whose replies are given")
    serve(parser.parse_args())


if __name__ == "__main__":
    main()
