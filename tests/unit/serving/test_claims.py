"""Gateways that share a response cache: each request is sent once among them."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chat_server import completion, question_of, refusal, serving
from gateway_setup import chat, gateway_before, request_key
from processes import PATIENCE_S

from cuesheet.files import private_path
from cuesheet.lease import STALE_AFTER_S
from cuesheet.serving.claims import Claims

HOLDER = """
import sys, time
from pathlib import Path
from cuesheet.serving.claims import Claims
claims = Claims(Path(sys.argv[1]))
assert all(claims.acquire(key) is None for key in sys.argv[2:])
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that claims the requests a and b."""
    keys = [request_key(chat(text)) for text in "ab"]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "cache"), *keys],
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def claim_files(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "cache/claims").iterdir())


async def test_two_gateways_at_once_send_every_request_once(tmp_path):
    async def behave(body, number):
        await asyncio.sleep(0.05)
        return completion(question_of(body))

    async with (
        serving(behave) as server,
        gateway_before(tmp_path, server.url, concurrency=4) as first,
        gateway_before(tmp_path, server.url, concurrency=4) as second,
    ):
        asked = [gateway.ask(chat(str(n))) for n in range(30) for gateway in (first, second)]
        replies = await asyncio.gather(*asked)
        assert server.calls == 30
        assert sorted(question_of(body) for body in server.bodies) == sorted(map(str, range(30)))
        assert [status for status, _ in replies] == [200] * 60
        for number, pair in enumerate(zip(replies[::2], replies[1::2], strict=True)):
            texts = {reply["choices"][0]["message"]["content"] for _, reply in pair}
            assert texts == {str(number)}
        assert first.counters.cache_hits + second.counters.cache_hits == 30
        assert first.counters.waiting == second.counters.waiting == 0
    assert claim_files(tmp_path) == []


async def test_a_gateway_that_waits_sends_the_request_itself_if_the_other_fails(tmp_path):
    go = asyncio.Event()

    async def behave(body, number):
        if number == 0:
            await go.wait()
            return refusal(400, "no")
        return completion("fine")

    async with (
        serving(behave) as server,
        gateway_before(tmp_path, server.url) as first,
        gateway_before(tmp_path, server.url) as second,
    ):
        failing = asyncio.create_task(first.ask(chat("a")))
        while not server.calls:
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(second.ask(chat("a")))
        while not second.counters.waiting:
            await asyncio.sleep(0.01)
        assert server.calls == 1
        go.set()
        assert (await failing)[0] == 400
        assert (await waiting)[0] == 200
        assert server.calls == 2


async def test_the_claims_of_a_killed_run_are_taken_over(tmp_path, holder):
    async with (
        serving(lambda body, n: completion("fine")) as server,
        gateway_before(tmp_path, server.url) as gateway,
    ):
        waiting = asyncio.create_task(gateway.ask(chat("a")))
        while not gateway.counters.waiting:
            await asyncio.sleep(0.01)
        assert server.calls == 0
        holder.kill()
        holder.wait()
        assert (await waiting)[0] == 200
        assert server.calls == 1


async def test_what_killed_runs_left_in_the_cache_is_removed_by_the_next_one(tmp_path, holder):
    assert len(claim_files(tmp_path)) == 3  # two claims and the file that they are links to
    key = request_key(chat("c"))
    half = private_path(tmp_path / "cache" / key[:2] / f"{key}.json")
    half = half.with_name(half.name.replace(f"-{os.getpid()}.", f"-{holder.pid}."))
    half.parent.mkdir()
    half.write_text("{")
    holder.kill()
    holder.wait()
    async with gateway_before(tmp_path, "http://127.0.0.1:9/v1"):
        deadline = time.monotonic() + PATIENCE_S
        while half.exists() and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
    assert claim_files(tmp_path) == []
    assert not half.exists()


def test_a_claim_of_another_machine_holds_as_long_as_its_gateway_renews_it(tmp_path, holder):
    key = request_key(chat("a"))
    path = tmp_path / "cache/claims" / key
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "host": "node7"}))
    claims = Claims(tmp_path / "cache")
    assert claims.acquire(key)["host"] == "node7"
    past = time.time() - STALE_AFTER_S - 5
    os.utime(path, (past, past))
    assert claims.acquire(key) is None
    claims.release(key)
    assert not path.exists()


def test_all_claims_of_a_gateway_are_renewed_at_once(tmp_path):
    claims = Claims(tmp_path)
    for number in range(100):
        assert claims.acquire(f"{number:064x}") is None
    past = time.time() - 1000
    os.utime(tmp_path / "claims" / f"{7:064x}", (past, past))
    assert (tmp_path / "claims" / f"{8:064x}").stat().st_mtime < time.time() - 900
    claims.renew()
    assert (tmp_path / "claims" / f"{9:064x}").stat().st_mtime > time.time() - 100
    claims.close()
    assert list((tmp_path / "claims").iterdir()) == []


async def test_requests_are_sent_without_claims_if_the_disk_refuses_them(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/claims").write_text("a file in its place")
    async with (
        serving(lambda body, n: completion("fine")) as server,
        gateway_before(tmp_path, server.url) as gateway,
    ):
        assert (await gateway.ask(chat("a")))[0] == 200
        assert (await gateway.ask(chat("b")))[0] == 200
    assert server.calls == 2
