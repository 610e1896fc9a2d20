"""Measures how busy the gateway keeps a model server, compared with a plain baseline.

    python benchmarks/server_fill.py [--slots 16 64 256] [--reply-s 0.2 1 3] [--seconds 20]

A server with S slots and T seconds per request (`slot_server.py`) runs behind a gateway in its own
process, as in a run. The requests of many episodes are sent through the client of the stages, in
their order: describe, segment, then one memory after the other; the interjections after the plan;
and all visual questions at once. `vlm.concurrency` is 1.5 times S, so that a request is ready when
a slot is free. There are `--episodes` episodes, or fewer if they would take longer than `--seconds`
with full slots. `--jobs` of them are processed at once and start one after the other, as in a run.

The baseline is one process with 16 episodes in parallel, one phase after the other (all plans, then
all interjections, then all questions), and sequential within an episode except for VQA.

The server reports its own utilization: from the first request to the last, and until the last
moment at which all slots were in use, because after that there is not enough work. If the CPU is
the limit, see the requests per CPU second of client and gateway. If the baseline leaves less than a
third of the slots empty, a speedup of 1.5 is impossible, and the target is 0.95 of the possible
one.
"""

import argparse
import asyncio
import json
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import measuring
import psutil
import slot_server
from measuring import Target
from pydantic import BaseModel
from slot_server import Running

from cuesheet.serving import lifecycle
from cuesheet.vlm.client import Image, Vlm

MEMORIES = 2
INTERJECTIONS = 3
QUESTIONS = 29
CALLS = 3 + MEMORIES + INTERJECTIONS + QUESTIONS  # of an episode
PICTURE = Image(b"\xff\xd8" + bytes(40_000))  # about the size of a contact sheet
PLAIN_EPISODES = 16  # in parallel, in the plain way
START_S = 0.02  # between two starts; Snakemake takes longer to start an episode's jobs
AHEAD = 1.5  # calls in flight for a slot: some wait at the server, as a model server lets them


class Label(BaseModel):
    label: str


async def episode(server_file: Path, number: int) -> None:
    """Send the requests of the three stages of one episode."""

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
    about = (server_file, settings, f"bench/{number:06d}", {"p": "0"})
    async with (
        Vlm.connect(*about, stage="plan") as of_plan,
        Vlm.connect(*about, stage="vqa") as of_vqa,
    ):
        await asyncio.gather(
            plan(of_plan),
            ask(of_plan, "rephrase"),
            *(ask(of_vqa, f"vqa {n}") for n in range(QUESTIONS)),
        )


async def ours(running: Running, episodes: int, slots: int, jobs: int) -> dict[str, float]:
    """Process all episodes through a gateway, `jobs` at a time."""
    with tempfile.TemporaryDirectory(prefix="server_fill.") as name:
        folder = Path(name)
        settings = {
            "serve": "external",
            "base_urls": [running.base_url],
            "model": "m",
            "concurrency": round(AHEAD * slots),
            "timeout_s": 60.0,
            "max_attempts": 3,
            "cache_dir": str(folder / "cache"),
            "results_dir": str(folder / "results"),
        }
        server_file = lifecycle.start(settings, folder / "runs")
        free, starting = asyncio.Semaphore(jobs), asyncio.Lock()

        async def one(number: int) -> None:
            async with free:
                async with starting:
                    await asyncio.sleep(START_S)
                await episode(server_file, number)

        try:
            begun, own = time.monotonic(), time.process_time()
            await asyncio.gather(*(one(number) for number in range(episodes)))
            wall_s, own_s = time.monotonic() - begun, time.process_time() - own
            used = psutil.Process(json.loads(server_file.read_bytes())["pid"]).cpu_times()
        finally:
            await asyncio.to_thread(lifecycle.stop, server_file)
    return {"wall_s": wall_s, "client_cpu_s": own_s, "gateway_cpu_s": used.user + used.system}


def plainly(running: Running, episodes: int) -> dict[str, float]:
    """Process all episodes phase by phase in one process."""
    part, local = PICTURE.part(), threading.local()

    def ask(text: str) -> None:
        if not hasattr(local, "client"):
            local.client = httpx.Client(timeout=600.0, trust_env=False)
        content = [part, {"type": "text", "text": text}]
        body = {"model": "m", "messages": [{"role": "user", "content": content}]}
        local.client.post(f"{running.base_url}/chat/completions", json=body).raise_for_status()

    def serially(number: int, names: list[str]) -> None:
        for name in names:
            ask(f"{number} {name}")

    def questions(number: int) -> None:
        with ThreadPoolExecutor(QUESTIONS) as pool:
            list(pool.map(ask, (f"{number} vqa {n}" for n in range(QUESTIONS))))

    plan = ["rephrase", "describe", "segment", *(f"memory {n}" for n in range(MEMORIES))]
    interjections = [f"interjection {n}" for n in range(INTERJECTIONS)]
    begun, own = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(PLAIN_EPISODES) as pool:
        list(pool.map(lambda number: serially(number, plan), range(episodes)))
        list(pool.map(lambda number: serially(number, interjections), range(episodes)))
        list(pool.map(questions, range(episodes)))
    return {"wall_s": time.monotonic() - begun, "client_cpu_s": time.process_time() - own}


def measure(
    slots: int, reply_s: float, episodes: int, jobs: int, *, plain: bool = True
) -> dict[str, Any]:
    """Measure both ways, each with a new server."""
    found: dict[str, Any] = {"slots": slots, "reply_s": reply_s, "episodes": episodes}
    with slot_server.running(reply_s, slots) as running:
        cost = asyncio.run(ours(running, episodes, slots, jobs))
        stats = running.stats()
        cpu_s = cost["client_cpu_s"] + cost["gateway_cpu_s"]
        found |= {"calls": stats["calls"], **stats, **cost}
        found["calls_a_cpu_s"] = stats["calls"] / cpu_s
        found["wanted_calls_a_s"] = slots / reply_s
        if plain:
            running.reset()
            found["plain"] = plainly(running, episodes) | running.stats()
            found["ratio"] = found["plain"]["wall_s"] / found["wall_s"]
    return found


def show(found: dict[str, Any]) -> str:
    plain = found.get("plain", {})
    return (
        f"{found['slots']:>5}{found['reply_s']:>7.1f}{found['calls']:>8.0f}"
        f"{found['used_with_work']:>12.1%}{found['used']:>9.1%}{found['wanted_calls_a_s']:>9.0f}"
        f"{found['calls_a_cpu_s']:>9.0f}{found['wall_s']:>8.1f}{plain.get('wall_s', 0):>8.1f}"
        f"{plain.get('used', 0):>8.1%}{found.get('ratio', 0):>7.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--slots", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--reply-s", type=float, nargs="+", default=[0.2, 1.0, 3.0])
    parser.add_argument("--episodes", type=int, default=200, help="at most")
    parser.add_argument("--seconds", type=float, default=20.0, help="at full slots, at most")
    parser.add_argument("--jobs", type=int, default=96, help="episodes at work at once")
    options = parser.parse_args()
    os.environ["CUESHEET_PROGRESS"] = "off"
    figures, targets = [], []
    print(
        "slots      T   calls   used/work     used  wanted/s  per CPU s  wall s   plain    used"
        "  ratio"
    )
    for slots in options.slots:
        for reply_s in options.reply_s:
            fitting = int(options.seconds * slots / reply_s / CALLS)
            episodes = max(4, min(options.episodes, fitting))
            found = measure(slots, reply_s, episodes, options.jobs)
            figures.append(found)
            print(show(found), flush=True)
            label, possible = f"server: S={slots} T={reply_s:g} s", 1 / found["plain"]["used"]
            faster = f"{label}, times faster than plainly (possible: {possible:.2f})"
            targets += [
                Target(f"{label}, slots in use", found["used"], 0.95),
                Target(faster, found["ratio"], min(1.5, 0.95 * possible)),
            ]
    measuring.publish("server_fill", targets, {"runs": figures}, options.json)


if __name__ == "__main__":
    main()
