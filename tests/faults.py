"""What model servers do wrong, over real HTTP, and what is then to become of a call.

Every fault makes an HTTP answer out of the one that should have been given (`Fault.spoil`). `Plan`
says by seed and request which calls are struck, so that runs can be repeated whatever their order.
"""

import asyncio
import copy
import hashlib
import json
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from chat_server import refusal

HANG_S = 3600.0
TEN_MB = 10_000_000

Completion = dict[str, Any]
Answer = Completion | web.Response | Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    `once` and `always` are what becomes of a call that it strikes at the first attempt, or at
    every one: "retried" (ok at a later attempt), "corrected" (by the correction), "read" (ok: the
    fault does not matter), "asked otherwise" (ok, at one more attempt), "invalid" (two replies
    that cannot be used), "failed" (no reply after all attempts), "refused" (failed at once).
    """

    kind: str
    spoil: Callable[[Completion], Answer]
    once: Literal["retried", "corrected", "read", "asked otherwise", "refused"]
    always: Literal["failed", "invalid", "read", "asked otherwise", "refused"]
    says: str = ""  # part of the record's error if the call ends badly


def _status(status: int, message: str, **headers: str) -> Callable[[Completion], Answer]:
    return lambda good: refusal(status, message, **headers)


def _raw(data: bytes) -> web.Response:
    return web.Response(body=data, content_type="application/json")


def _body(change: Callable[[bytes], bytes]) -> Callable[[Completion], Answer]:
    """A fault of the HTTP body."""
    return lambda good: _raw(change(json.dumps(good).encode()))


def _reply(**changes: Any) -> Callable[[Completion], Answer]:
    """A fault of the completion's fields."""
    return lambda good: {**good, **changes}


def _message(content: Any, **changes: Any) -> Callable[[Completion], Answer]:
    """A fault of the text: `content` is it, or makes it of the right one."""

    def spoil(good: Completion) -> Answer:
        spoiled = copy.deepcopy(good)
        choice = spoiled["choices"][0]
        right = choice["message"]["content"]
        choice["message"]["content"] = content(right) if callable(content) else content
        choice.update(changes)
        return spoiled

    return spoil


def _edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], str]:
    """Edits the object that the text holds."""

    def edit(text: str) -> str:
        value = json.loads(text)
        change(value)
        return json.dumps(value)

    return edit


def _first_number(text: str, written: str) -> str:
    """`text` with `written` in place of the first value of its object."""
    value = json.loads(text)
    first = next(iter(value))
    value[first] = "@"
    return json.dumps(value).replace('"@"', written, 1)


def _reset_before(good: Completion) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        _reset(request)
        return web.Response()

    return answer


def _reset_within(good: Completion) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        data = json.dumps(good).encode()
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        await asyncio.sleep(0.02)
        _reset(request)
        return response

    return answer


def _reset(request: web.Request) -> None:
    """End the connection with RST in place of FIN."""
    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


def _hang(good: Completion) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(HANG_S)
        return web.Response()

    return answer


def _hang_within(good: Completion) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"choices": [')
        await asyncio.sleep(HANG_S)
        return response

    return answer


def _endless(good: Completion) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)

    return answer


def _all() -> list[Fault]:
    passing = [
        ("429", _status(429, "slow down"), "429 slow down"),
        ("429 with Retry-After", _status(429, "slow down", Retry_After="1"), "429 slow down"),
        ("500", _status(500, "oops"), "500 oops"),
        ("502", _status(502, "bad gateway"), "502 bad gateway"),
        ("503", _status(503, "overloaded"), "503 overloaded"),
        ("503 of 10 MB", _status(503, "x" * TEN_MB), "503"),
        ("reset before the body", _reset_before, "connection lost"),
        ("reset within the body", _reset_within, "connection lost"),
        ("hang", _hang, "no reply within"),
        ("hang within the body", _hang_within, "no reply within"),
        ("no choices", _reply(choices=[]), "no choices"),
        ("choices of a wrong type", _reply(choices={"0": "x"}), "no choices"),
        ("message of a wrong type", _reply(choices=[{"message": "x"}]), "no message"),
        ("cut JSON", _body(lambda data: data[: len(data) // 2]), "not JSON"),
        ("invalid UTF-8", _body(lambda data: data.replace(b"{", b"{\xff", 1)), "not JSON"),
        ("HTML in place of JSON", lambda good: web.Response(text="<html>"), "not JSON"),
    ]
    unusable = [
        ("null content", _message(None), "empty"),
        ("empty content", _message("  "), "empty"),
        ("content of a wrong type", _message([{"type": "text"}]), "empty"),
        ("cut JSON in the text", _message(lambda text: text[: len(text) // 2]), "complete"),
        ("no JSON in the text", _message("I cannot see that."), "no JSON object"),
        ("wrong types", _message(lambda text: _first_number(text, "[[]]")), "(got [[]])"),
        ("NaN", _message(lambda text: _first_number(text, "NaN")), "finite"),
        ("huge number", _message(lambda text: _first_number(text, "1e999")), "finite"),
        ("number of 5000 digits", _message(lambda t: _first_number(t, "9" * 5000)), "read"),
        ("half a surrogate pair", _message("\ud800 {"), "complete"),
        ("text of 2 MB", _message("y" * 2_000_000), "characters"),
        ("reply of 10 MB", _message("y" * TEN_MB), "too large"),
        ("reply without end", _endless, "too large"),
    ]
    harmless = [
        ("NaN outside the reply", _reply(created=float("nan"))),
        ("prose around", _message(lambda text: f"Sure {{really}}:\n{text}\nDoes that help? }}")),
        ("code fence", _message(lambda text: f"```json\n{text}\n```")),
        ("thinking", _message(lambda text: f"<think>{{not this}}</think>\n{text}")),
        ("thinking twice", _message(lambda t: f"<think>a</think><think>{{b}}</think>{t}")),
        ("stray closing tag", _message(lambda t: f"hm {{</think><think>more</think>{t}")),
        ("extra keys", _message(_edited(lambda value: value.update(more={"a": [1, "}"]})))),
        ("extra fields", _reply(extra={"a": 1}, choices_too=[])),
        ("huge token counts", _reply(usage={"prompt_tokens": 10**400, "completion_tokens": -1})),
        ("model of a wrong type", _reply(model=["x"])),
    ]
    context = "This model's maximum context length is 8192 tokens. However, you requested 9764."
    rejects = "response_format is not supported"
    return [
        *(Fault(kind, spoil, "retried", "failed", says) for kind, spoil, says in passing),
        *(Fault(kind, spoil, "corrected", "invalid", says) for kind, spoil, says in unusable),
        *(Fault(kind, spoil, "read", "read") for kind, spoil in harmless),
        Fault(
            "cut at max_tokens",
            _message(lambda text: text[:-1], finish_reason="length"),
            "asked otherwise",
            "invalid",
            "token limit",
        ),
        Fault("400 for response_format", _status(400, rejects), *["asked otherwise"] * 2),
        Fault(
            "400 for context length",
            _status(400, context),
            *["refused"] * 2,
            "context length is 8192",
        ),
        Fault("401", _status(401, "no such key"), *["refused"] * 2, "vlm.api_key_env"),
        Fault("404 of the model", _status(404, "no such model"), *["refused"] * 2, "vlm.model"),
    ]


FAULTS: dict[str, Fault] = {fault.kind: fault for fault in _all()}


def fingerprint(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@dataclass
class Plan:
    """Strikes a share of the requests, each at its first one or two attempts, by seed and request.

    `injected` counts the faults by kind, `struck` the requests.
    """

    seed: int
    share: float
    kinds: Sequence[str]
    injected: Counter = field(default_factory=Counter)
    struck: Counter = field(default_factory=Counter)

    def fault(self, body: dict[str, Any]) -> Fault | None:
        """The fault that strikes this request now, counted; None if it is to be answered."""
        name = fingerprint(body)
        drawn = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        if int.from_bytes(drawn[:4]) / 2**32 >= self.share or self.struck[name] > drawn[4] % 2:
            return None
        self.struck[name] += 1
        kind = self.kinds[int.from_bytes(drawn[5:8]) % len(self.kinds)]
        self.injected[kind] += 1
        return FAULTS[kind]
