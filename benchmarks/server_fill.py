"""How well does the gateway keep a model server busy?

    python benchmarks/gateway_fill.py [--episodes 40] [--concurrency 32] [--reply-s 0.5]

A server that answers every call after `--reply-s` seconds stands behind a gateway in a process of
its own, as in a run. The calls of `--episodes` episodes are asked as the stages ask them, over the
stages' own client: describe, segment, then one memory after the other; the interjections when the
plan is there; all questions of VQA at once. The server measures how many calls it has at every
moment. "While there was work" ends when the last call that had to wait got its place; after that
the slots run empty by themselves.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil
from aiohttp import web
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from cuesheet import server
from cuesheet.vlm import Image, Vlm

MEMORIES = 2
INTERJECTIONS = 3
QUESTIONS = 29
PICTURE = Image(b"\xff\xd8" + bytes(40_000))  # about the size of a contact sheet


class Label(BaseModel):
    label: str


class SlowServer:
    """Answers after a while; keeps, for every number of calls at once, how long it had them."""

    def __init__(self, reply_s: float) -> None:
        self.reply_s = reply_s
        self.calls = 0
        self.now = 0
        self.changes: list[tuple[float, int]] = []  # time (s), calls from then on

    def _change(self, by: int) -> None:
        self.now += by
        self.changes.append((time.monotonic(), self.now))

    async def chat(self, request: web.Request) -> web.Response:
        await request.read()
        self.calls += 1
        self._change(1)
        try:
            await asyncio.sleep(self.reply_s)
        finally:
            self._change(-1)
        message = {"role": "assistant", "content": '{"label": "cup"}'}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020}
        return web.json_response(
            {"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]}
            | {"created": 0, "usage": usage}
        )

    def shares(self, concurrency: int) -> dict[str, float]:
        """What the changes add up to; times in seconds, shares of the time from first to last."""
        begin, end = self.changes[0][0], self.changes[-1][0]
        busy = full = 0.0
        filled = [at for at, calls in self.changes if calls >= concurrency]
        last_full = begin
        for (at, calls), (until, _) in zip(self.changes, self.changes[1:], strict=False):
            busy += calls * (until - at)
            if calls >= concurrency:
                full += until - at
                last_full = until
        ramp = filled[0] - begin if filled else end - begin
        return {
            "span_s": end - begin,
            "mean": busy / (end - begin),
            "full": full / (end - begin),
            "used_with_work": self._mean_until(last_full) / concurrency,
            "full_with_work": full / (last_full - begin) if last_full > begin else 0.0,
            "ramp_s": ramp,
        }

    def _mean_until(self, end: float) -> float:
        busy = sum(
            calls * (min(until, end) - at)
            for (at, calls), (until, _) in zip(self.changes, self.changes[1:], strict=False)
            if at < end
        )
        return busy / (end - self.changes[0][0]) if end > self.changes[0][0] else 0.0


async def episode(server_file: Path, number: int) -> None:
    """Ask what the three stages of one episode ask."""

    async def ask(vlm: Vlm, text: str) -> None:
        answer = await vlm.ask(
            name=text, prompt="p", reply=Label, system="s", media=[PICTURE], text=f"{number} {text}"
        )
        assert answer.value is not None

    async def plan(vlm: Vlm) -> None:
        await ask(vlm, "describe")
        await ask(vlm, "segment")
        for memory in range(MEMORIES):
            await ask(vlm, f"memory {memory}")
        await asyncio.gather(*(ask(vlm, f"interjection {n}") for n in range(INTERJECTIONS)))

    settings = {"model": "m", "max_tokens": 64}
    async with Vlm.connect(server_file, settings, f"bench/{number:06d}", {"p": "0"}) as vlm:
        await asyncio.gather(
            plan(vlm), ask(vlm, "rephrase"), *(ask(vlm, f"vqa {n}") for n in range(QUESTIONS))
        )


async def measure(episodes: int, concurrency: int, reply_s: float) -> dict[str, float]:
    slow = SlowServer(reply_s)
    app = web.Application(client_max_size=2**28)
    app.router.add_post("/v1/chat/completions", slow.chat)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    with tempfile.TemporaryDirectory(prefix="gateway_fill.") as name:
        folder = Path(name)
        settings = {
            "serve": "external",
            "base_urls": [f"http://127.0.0.1:{runner.addresses[0][1]}/v1"],
            "model": "m",
            "concurrency": concurrency,
            "timeout_s": 60.0,
            "max_attempts": 3,
            "cache_dir": str(folder / "cache"),
            "results_dir": str(folder / "results"),
        }
        server_file = server.start(settings, folder / "runs")
        try:
            begun = time.monotonic()
            await asyncio.gather(*(episode(server_file, number) for number in range(episodes)))
            wall_s = time.monotonic() - begun
            used = psutil.Process(json.loads(server_file.read_bytes())["pid"]).cpu_times()
        finally:
            await asyncio.to_thread(server.stop, server_file)
            await runner.cleanup()
    return {
        "calls": slow.calls,
        "wall_s": wall_s,
        "gateway_cpu_ms": 1000 * (used.user + used.system) / slow.calls,
        "ideal_s": slow.calls * reply_s / concurrency,
        **slow.shares(concurrency),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--concurrency", type=int, default=32, help="vlm.concurrency")
    parser.add_argument("--reply-s", type=float, default=0.5, help="seconds of every reply")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    os.environ["CUESHEET_PROGRESS"] = "off"
    found = asyncio.run(measure(options.episodes, options.concurrency, options.reply_s))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"calls                                  {found['calls']:>8.0f}")
    print(f"from the first to the last call        {found['span_s']:>8.1f} s")
    print(f"ideal ({options.concurrency} at once all the time)        {found['ideal_s']:>8.1f} s")
    print(f"CPU of the gateway, a call             {found['gateway_cpu_ms']:>8.1f} ms")
    print(f"calls at the server, mean              {found['mean']:>8.1f}")
    print(f"concurrency reached after              {found['ramp_s']:>8.2f} s")
    print(f"time with all {options.concurrency} in use                {found['full']:>8.1%}")
    print(f"  while there was work                 {found['full_with_work']:>8.1%}")
    print(f"slots in use while there was work      {found['used_with_work']:>8.1%}")


if __name__ == "__main__":
    main()
