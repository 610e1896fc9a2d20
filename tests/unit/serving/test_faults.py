"""The client under fire: every kind of fault, through the real gateway, as a stage would ask."""

import asyncio
import random
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from chat_server import completion, question_of, serving
from faults import FAULTS, TEN_MB
from gateway_setup import gateway_before
from pydantic import Field

from cuesheet.serving.dispatcher import LONGEST_BACKOFF_S
from cuesheet.serving.upstream import LARGEST_REPLY_BYTES
from cuesheet.vlm.client import Image, Vlm
from cuesheet.vlm.errors import VlmError
from cuesheet.vlm.replies import Reply

SEED = 20
ATTEMPTS = 3
# A fault without a reply costs this at each attempt. On a busy machine other requests may take 2 s.
HANG_TIMEOUT_S = 2.0
TIMEOUT_S = 60.0
# Of the calls of a kind: struck at the first attempt, struck at every attempt, left alone.
ONCE, ALWAYS, NEVER = 3, 2, 1
SECONDS = 120.0
GOOD = '{"x": 1.5, "label": "cup"}'


class Point(Reply):
    x: float = Field(ge=0)
    label: str


@pytest.fixture(scope="module")
def table(request):
    """Rows of the fault table, printed at the end."""
    rows: dict[str, tuple[int, ...]] = {}
    yield rows
    if len(rows) < 2:
        return
    lines = [f"{'fault':<26}{'injected':>9}{'recovered':>10}{'ended as specified':>19}"]
    lines += [f"{kind:<26}{row[0]:>9}{row[1]:>10}{row[2]:>19}" for kind, row in rows.items()]
    total = [sum(column) for column in zip(*rows.values(), strict=True)]
    lines.append(f"{'all':<26}{total[0]:>9}{total[1]:>10}{total[2]:>19}")
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n", *lines, sep="\n")


def drawn(kind):
    """Question -> how often it is struck, in an order drawn by the seed."""
    shares = ["once"] * ONCE + ["always"] * ALWAYS + ["never"] * NEVER
    random.Random(f"{SEED}/{kind}").shuffle(shares)
    return {f"question {number}": share for number, share in enumerate(shares)}


async def ask(vlm, text):
    """The answer's value and record, or what stopped it."""
    media = [Image(b"\xff\xd8jpeg")]
    before = len(vlm.calls)
    try:
        answer = await vlm.ask(
            name="where", prompt="p", reply=Point, system="Look.", media=media, text=text
        )
    except VlmError as error:
        got = SimpleNamespace(value=None, call=error.call, error=str(error))
    else:
        got = SimpleNamespace(value=answer.value, call=answer.call, error=None)
    assert vlm.calls[before:] == [got.call]
    return got


def hangs(fault):
    return fault.kind.startswith("hang")


def check(fault, share, got):
    """Hold what became of a call against what is specified for the fault."""
    call = got.call
    expected = {"once": fault.once, "always": fault.always, "never": "read"}[share]
    assert call["key"], "every call that was sent is recorded with its key"
    if expected in ("failed", "refused"):
        assert (call["outcome"], got.value) == ("failed", None)
        assert fault.says in call["error"]
        assert got.error in call["error"]
        assert call["attempts"] == (ATTEMPTS if expected == "failed" else 1)
        assert len(call["error"]) < 4000
    elif expected == "invalid":
        assert (call["outcome"], got.value) == ("invalid", None)
        assert call["error"].count(fault.says) == 2
        assert call["correction_key"] not in (None, call["key"])
        assert len(call["error"]) < 4000
    else:
        assert got.value == Point(x=1.5, label="cup")
        assert call["outcome"] == ("retried" if expected == "corrected" else "ok")
        if expected == "corrected":
            assert fault.says in call["error"]
        else:
            assert call["error"] is None
        if expected == "retried":
            assert call["attempts"] in ((2, 3) if hangs(fault) else (2,))
    return expected


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_every_fault_ends_as_specified_and_is_recorded(tmp_path, fault, table):
    shares = drawn(fault.kind)
    struck = Counter()

    def behave(body, number):
        first = body["messages"][1]["content"][-1]["text"].splitlines()[0]
        good = completion(GOOD)
        plain = "response_format" in fault.kind and "response_format" not in body
        if shares[first] == "never" or (shares[first] == "once" and struck[first]) or plain:
            return good
        struck[first] += 1
        return fault.spoil(good)

    begun = time.monotonic()
    timeout_s = HANG_TIMEOUT_S if hangs(fault) else TIMEOUT_S
    async with (
        serving(behave) as server,
        gateway_before(tmp_path, server.url, max_attempts=ATTEMPTS, timeout_s=timeout_s) as gateway,
        Vlm.connect(tmp_path / "server.json", {"max_tokens": 64}, "demo/000003", {"p": "0"}) as vlm,
    ):
        results = {text: await asyncio.wait_for(ask(vlm, text), SECONDS) for text in shares}
        assert vlm.calls == [got.call for got in results.values()]
    assert time.monotonic() - begun < SECONDS
    ended = {text: check(fault, shares[text], got) for text, got in results.items()}
    recovered = sum(bool(struck[t]) and results[t].value is not None for t in shares)
    lost = sum(end in ("failed", "invalid", "refused") for end in ended.values())
    injected = sum(bool(count) for count in struck.values())
    assert recovered + lost == injected
    table[fault.kind] = injected, recovered, lost
    # Nothing is waited for longer than the gateway's own bound, and Retry-After is kept to.
    assert all(nap <= LONGEST_BACKOFF_S for nap in gateway.naps)
    if "Retry-After" in fault.kind:
        assert all(1.0 <= nap < 2.0 for nap in gateway.naps)
    # Only usable replies, and those that were paid for and are text, are kept.
    kept = list((tmp_path / "cache").rglob("*.json"))
    assert all(path.stat().st_size < 3_000_000 for path in kept)


async def test_of_a_reply_without_end_little_more_is_taken_than_the_limit(tmp_path):
    sent = 0

    async def endless(request):
        from aiohttp import web

        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)
            sent += 65536

    def behave(body, number):
        return endless if number == 0 else completion(GOOD)

    async with (
        serving(behave) as server,
        gateway_before(tmp_path, server.url),
        Vlm.connect(tmp_path / "server.json", {"max_tokens": 64}, "demo/000003", {"p": "0"}) as vlm,
    ):
        got = await ask(vlm, "question")
    assert got.call["outcome"] == "retried"
    assert "too large" in question_of(server.bodies[1])
    # What the two sockets hold comes on top.
    assert LARGEST_REPLY_BYTES < sent < LARGEST_REPLY_BYTES + 2 * TEN_MB


def test_the_plan_of_faults_depends_on_nothing_but_the_seed_and_the_request():
    from faults import Plan

    bodies = [{"messages": [], "seed": number} for number in range(500)]

    def strikes(order, seed):
        plan = Plan(seed, 0.2, list(FAULTS))
        return {body["seed"]: getattr(plan.fault(body), "kind", None) for body in order}

    forth, back = strikes(bodies, 1), strikes(reversed(bodies), 1)
    assert forth == back
    assert forth != strikes(bodies, 2)
    assert 60 <= sum(kind is not None for kind in forth.values()) <= 140
