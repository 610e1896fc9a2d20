"""`cuesheet check-server --throughput`: rates of servers whose speed is known."""

import asyncio
import time
from types import SimpleNamespace

import pytest
import yaml
from chat_server import completion, refusal, serving

from cuesheet.app import throughput
from cuesheet.app.throughput import (
    Phase,
    Requests,
    as_settings,
    concurrencies,
    measure,
    rates_of,
)
from cuesheet.config.load import load_config
from cuesheet.errors import CuesheetError
from cuesheet.serving.backends import ExternalBackend

PROMPT, REPLY = 400, 40
READS, WRITES = 2_000, 100  # tokens per second


def answer(body):
    reply = completion('{"scene": "a box", "events": []}')
    reply["usage"] = {
        "prompt_tokens": PROMPT,
        "completion_tokens": min(REPLY, body["max_tokens"]),
    }
    return reply


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the server of a test moves, so a busy machine changes no rate."""
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


async def measured(behave, levels, total_s=4.0, lines=None):
    lines = [] if lines is None else lines
    config = load_config({"vlm": {"serve": "external", "model": "m", "base_urls": ["http://x/v1"]}})
    async with serving(behave, key=None) as server:
        backend = ExternalBackend({server.url: None}, "m", 30.0)
        try:
            found = await measure(backend, Requests(config), levels, lines.append, total_s)
        finally:
            await backend.close()
        return found, lines, server.bodies


def test_two_phases_give_the_exact_rates():
    short = Phase(10, 10 * PROMPT, 10, 10 * PROMPT / READS + 10 / WRITES)
    whole = Phase(5, 5 * PROMPT, 5 * REPLY, 5 * PROMPT / READS + 5 * REPLY / WRITES)
    rates = rates_of(1, short, whole)
    assert (rates.input, rates.output) == pytest.approx((READS, WRITES))


def test_a_server_that_does_not_shorten_replies_gets_half_of_the_time_for_each():
    phase = Phase(5, 5 * PROMPT, 5 * REPLY, 2.0)
    rates = rates_of(1, phase, phase)
    assert rates.whole.prompt_tokens / rates.input + rates.whole.reply_tokens / rates.output == 2.0


def test_concurrency_rises_to_the_configured_one():
    assert concurrencies(1) == [1]
    assert concurrencies(32) == [1, 4, 16, 32]
    assert concurrencies(64) == [1, 4, 16, 64]


async def test_the_rates_of_a_server_are_found_at_each_concurrency(clock):
    levels, lines, slow = [1, 2], [], 100  # so few requests take the ten minutes of the clock

    def behave(body, number):
        reply = answer(body)
        usage = reply["usage"]
        seconds = usage["prompt_tokens"] / READS + usage["completion_tokens"] / WRITES
        # The server has no limit, so two requests at once are twice as fast.
        clock.now_s += slow * seconds / levels[len(lines)]
        return reply

    found, _, bodies = await measured(behave, levels, total_s=800.0, lines=lines)
    assert [rates.concurrency for rates in found] == [1, 2]
    assert len(lines) == 2
    for rates in found:
        assert rates.output == pytest.approx(WRITES * rates.concurrency / slow)
        assert rates.input == pytest.approx(READS * rates.concurrency / slow)
    images = [body["messages"][1]["content"][0]["image_url"]["url"] for body in bodies]
    assert len(set(images)) == len(images), "an image was sent twice; a server may have cached it"
    assert {body["response_format"]["json_schema"]["name"] for body in bodies} == {"Description"}
    settings = yaml.safe_load(as_settings(found).partition("\n\n")[2])
    configured = load_config({"vlm": settings["vlm"]}).vlm.throughput
    assert configured.output == pytest.approx(found[1].output, abs=0.1)


async def test_a_server_that_rejects_many_requests_at_once_keeps_the_lower_rates(clock):
    at_once, many, lines = 0, asyncio.Event(), []

    async def behave(body):
        nonlocal at_once
        clock.now_s += 100.0
        if not lines:  # concurrency 1
            return answer(body)
        at_once += 1
        if at_once > 2:
            many.set()
            return refusal(429, "too many requests")
        await many.wait()
        return answer(body)

    found, _, _ = await measured(lambda body, n: behave(body), [1, 8], total_s=2000.0, lines=lines)
    assert [rates.concurrency for rates in found] == [1]
    assert "concurrency    8" in lines[-1]
    assert "too many requests" in lines[-1]


async def test_the_measurement_ends_in_its_time_and_says_so():
    async def behave(body):
        await asyncio.sleep(0.3 if body["max_tokens"] == 1 else 3600)
        return answer(body)

    begun = time.monotonic()
    with pytest.raises(CuesheetError, match=r"not every request was answered within 2 s"):
        await measured(lambda body, n: behave(body), [1, 8], total_s=2.0)
    assert time.monotonic() - begun < 60  # of the hour that a reply takes


async def test_a_server_that_does_not_count_tokens_is_named():
    def behave(body, number):
        return {**answer(body), "usage": None}

    with pytest.raises(CuesheetError, match="how many tokens"):
        await measured(behave, [1], total_s=4.0)
