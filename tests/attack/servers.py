"""Hostile and broken model servers before a real gateway process, whose memory is measured.

Each server answers a number of questions. The test states how they end; the gateway must stay
bounded in time and memory, send its key nowhere else, and leave no key in any file:

    PYTHONPATH=scripts:tests:tests/unit python tests/attack/servers.py --questions 40

Servers write bytes to the socket themselves, so that they can break any rule of HTTP.
"""

import argparse
import asyncio
import contextlib
import gzip
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from attack.leaked_keys import KEY, KEY_VARIABLE, leaks
from chat_server import completion, question_of, refusal, serving
from gateway_setup import chat, gateway_before, supervisor_settings
from pydantic import Field

from cuesheet.serving import lifecycle
from cuesheet.serving.dispatcher import LONGEST_RETRY_AFTER_S
from cuesheet.vlm.client import Image, Vlm
from cuesheet.vlm.errors import VlmError
from cuesheet.vlm.replies import Reply

ATTEMPTS = 2
TIMEOUT_S = 3.0
CONCURRENCY = 8
# Of the gateway's process. It has about 100 MB when it is idle; a response may have 8 MB, of which
# the text, the parsed form and the copy for the job are held at once.
MOST_MEMORY_MB = 500.0
MOST_SECONDS = 120.0
LARGE = 100_000_000
GARBAGE = ("I cannot see that.", "{", '{"x": "left"}', "", "[" * 5000, '{"x": NaN}', "\ud800{")


class Point(Reply):
    x: float = Field(ge=0)
    label: str


Bytes = Iterable[bytes] | AsyncIterator[bytes]


@dataclass(frozen=True)
class Server:
    """A kind of server: what it writes to a question, and how questions may end.

    `ends`: allowed outcomes of a question. `says`: part of the error of each failed question.
    """

    write: Callable[["Hostile", dict], Bytes]
    ends: tuple[str, ...] = ("failed",)
    says: str = ""


@dataclass
class Hostile:
    """A server that runs; `elsewhere`: requests that followed its redirect."""

    kind: Server
    url: str = ""
    seen: int = 0
    elsewhere: list[bytes] = field(default_factory=list)
    elsewhere_url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            )
            body = json.loads(await reader.readexactly(length))
            self.seen += 1
            parts = self.kind.write(self, body)
            if isinstance(parts, AsyncIterator):
                async for part in parts:
                    writer.write(part)
                    await writer.drain()
            else:
                for part in parts:
                    writer.write(part)
                    await writer.drain()
        writer.close()

    async def record(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.elsewhere.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()


def http(status: int, body: bytes, *headers: str, length: int | None = None) -> list[bytes]:
    """Return a response; `length`: what it says its length is."""
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", "Connection: close"]
    lines += [f"Content-Length: {len(body) if length is None else length}", *headers]
    return ["\r\n".join([*lines, "", ""]).encode(), body]


def good(**changes: object) -> bytes:
    return json.dumps(completion('{"x": 1.5, "label": "cup"}', **changes)).encode()


def text(content: str) -> bytes:
    return json.dumps(completion(content)).encode()


def draw(body: dict) -> int:
    """Return a number below 2**32 that depends on the request only."""
    content = json.dumps(body, sort_keys=True).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:4])


def garbage(share: float) -> Server:
    def write(server: Hostile, body: dict) -> Bytes:
        number = draw(body)
        if number / 2**32 >= share:
            return http(200, good())
        return http(200, text(GARBAGE[number % len(GARBAGE)]))

    return Server(write, ("invalid",) if share == 1 else ("ok", "retried", "invalid"))


def always(*parts: bytes, **expected: object) -> Server:
    return Server(lambda server, body: parts, **expected)


async def _drip(server: Hostile, body: dict) -> AsyncIterator[bytes]:
    yield http(200, b"", length=10**6)[0]
    while True:
        await asyncio.sleep(0.05)
        yield b" "


async def _drip_of_headers(server: Hostile, body: dict) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    for number in range(10**9):
        await asyncio.sleep(0.05)
        yield b"X-%d: y\r\n" % number


async def _silence(server: Hostile, body: dict) -> AsyncIterator[bytes]:
    await asyncio.sleep(3600)
    yield b""


def _large(server: Hostile, body: dict) -> Bytes:
    yield http(200, b"", length=LARGE)[0]
    for _ in range(LARGE // 10**6):
        yield b"x" * 10**6


def _chunked_without_end(server: Hostile, body: dict) -> Bytes:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"10000\r\n" + b" " * 0x10000 + b"\r\n"


def _redirect(status: int) -> Server:
    def write(server: Hostile, body: dict) -> Bytes:
        return http(status, b"", f"Location: {server.elsewhere_url}/v1/chat/completions")

    return Server(write, says=str(status))


def _key_back(server: Hostile, body: dict) -> Bytes:
    return http(500, json.dumps({"error": {"message": f"no slot for {KEY}"}}).encode())


BOMB = gzip.compress(b" " * LARGE)
MANY_CHOICES = b'{"choices": [' + b"{}," * 2_000_000 + b"{}]}"
SERVERS: dict[str, Server] = {
    "5 % garbage": garbage(0.05),
    "20 % garbage": garbage(0.2),
    "50 % garbage": garbage(0.5),
    "100 % garbage": garbage(1.0),
    "500": always(*http(500, b'{"error": {"message": "oops"}}'), says="500 oops"),
    "slow drip of the body": Server(_drip, says="no reply within"),
    "slow drip of headers": Server(_drip_of_headers),
    "silence": Server(_silence, says="no reply within"),
    "closing within the body": always(*http(200, good()[:50], length=5000), says="connection lost"),
    "closing at once": always(b"", says="connection lost"),
    "reply of 100 MB": Server(_large, ("invalid",)),
    "reply without end in chunks": Server(_chunked_without_end, ("invalid",)),
    "gzip bomb": always(*http(200, BOMB, "Content-Encoding: gzip"), ends=("invalid",)),
    "gzip bomb as an error": always(*http(503, BOMB, "Content-Encoding: gzip")),
    "error of 100 MB": always(*http(500, b"x" * LARGE)),
    "encoding that was not requested": always(
        *http(200, good(), "Content-Encoding: br"), says="encoding"
    ),
    "redirect 302": _redirect(302),
    "redirect 307": _redirect(307),
    "redirect 308": _redirect(308),
    "wrong model": always(
        *http(
            404, b'{"error": {"message": "The model does not exist", "code": "model_not_found"}}'
        ),
        says="vlm.model",
    ),
    "other model than requested": always(*http(200, good(model="other/model")), ends=("ok",)),
    "another protocol": always(b"SSH-2.0-OpenSSH_9.2\r\n", says="connection lost"),
    "headers of 1 MB": always(*http(200, good(), "X-Large: " + "x" * 10**6)),
    "two million choices": always(*http(200, MANY_CHOICES), ends=("invalid",)),
    "deep JSON": always(*http(200, b"[" * 10**6)),
    "empty body": always(*http(200, b""), says="not JSON"),
    "no content": always(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
    "key in its errors": Server(_key_back, says="no slot for ***"),
    "null bytes and escapes in the label": always(
        *http(200, text(json.dumps({"x": 1, "label": "a\x00b\x1b[31mc"}))), ends=("ok",)
    ),
}
# What the suite runs, besides the days of Retry-After.
SMALL = (
    "5 % garbage",
    "100 % garbage",
    "500",
    "slow drip of the body",
    "closing within the body",
    "reply of 100 MB",
    "gzip bomb",
    "gzip bomb as an error",
    "redirect 307",
    "wrong model",
    "two million choices",
    "key in its errors",
)


@dataclass
class Result:
    name: str
    outcomes: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    memory_mb: float = 0.0  # peak of the gateway's process
    problems: list[str] = field(default_factory=list)


async def attack(name: str, folder: Path, questions: int) -> Result:
    """Run a server and a gateway, ask, and check how it ends."""
    kind, result, began = SERVERS[name], Result(name), time.monotonic()
    hostile = Hostile(kind)
    listening = await asyncio.start_server(hostile.serve, "127.0.0.1", 0)
    other = await asyncio.start_server(hostile.record, "127.0.0.1", 0)
    hostile.url = _url(listening)
    hostile.elsewhere_url = _url(other)
    os.environ |= {KEY_VARIABLE: KEY, "CUESHEET_PROGRESS": "off"}
    server_file = lifecycle.start(_settings(folder, f"{hostile.url}/v1"), folder / "runs")
    try:
        prompts = {"p": "0"}
        async with Vlm.connect(server_file, {"max_tokens": 64}, "d/000000", prompts) as vlm:
            asked = [_ask(vlm, f"question {number}", kind, result) for number in range(questions)]
            async with asyncio.timeout(MOST_SECONDS):
                await asyncio.gather(*asked)
        pid = json.loads(server_file.read_bytes())["pid"]
        result.memory_mb = _peak_mb(pid)
    except TimeoutError:
        result.problems.append(f"not over after {MOST_SECONDS:.0f} s")
    finally:
        await asyncio.to_thread(lifecycle.stop, server_file)
        for server in (listening, other):
            server.close()
    result.seconds = time.monotonic() - began
    if result.memory_mb > MOST_MEMORY_MB:
        result.problems.append(f"the gateway took {result.memory_mb:.0f} MB")
    if hostile.elsewhere:
        result.problems.append("a redirect was followed")
    result.problems += leaks(folder)
    return result


async def _ask(vlm: Vlm, question: str, kind: Server, result: Result) -> None:
    media = [Image(b"\xff\xd8jpeg")]
    try:
        answer = await vlm.ask(
            name=question, prompt="p", reply=Point, system="Look.", media=media, text=question
        )
    except VlmError as error:
        outcome, message = "failed", str(error)
        if kind.says not in message:
            result.problems.append(f"{message!r} does not say {kind.says!r}")
        if len(message) > 4000:
            result.problems.append(f"a message of {len(message)} characters")
    else:
        outcome = answer.call["outcome"]
        if answer.value is not None and answer.value.x not in (1.0, 1.5):
            result.problems.append(f"a wrong value: {answer.value}")
    result.outcomes[outcome] += 1
    if outcome not in kind.ends:
        result.problems.append(f"{question} ended {outcome}, expected {' or '.join(kind.ends)}")


async def retry_after_days(folder: Path) -> Result:
    """A server that asks for ten days: the wait is bounded, and shown with what it asks for."""
    result, began, shown = Result("Retry-After of ten days"), time.monotonic(), []

    def behave(body: dict, number: int) -> object:
        if number % 2:
            return completion(question_of(body))
        return refusal(429, "come back later", Retry_After=str(10 * 24 * 3600))

    async with (
        serving(behave) as server,
        gateway_before(folder, server.url, max_attempts=ATTEMPTS) as gateway,
    ):
        gateway.gateway.dispatcher.notify = shown.append
        for number in range(4):
            status, _ = await gateway.ask(chat(str(number)))
            result.outcomes["ok" if status == 200 else "failed"] += 1
    if not gateway.naps or max(gateway.naps) > 1.2 * LONGEST_RETRY_AFTER_S:
        result.problems.append(f"waits of {gateway.naps} s")
    if not any("864000 s" in text for text in shown):
        result.problems.append(f"the delay is not shown: {shown}")
    if set(result.outcomes) != {"ok"}:
        result.problems.append(f"ended {dict(result.outcomes)}")
    result.seconds = time.monotonic() - began
    return result


def _settings(folder: Path, url: str) -> dict[str, object]:
    return supervisor_settings(
        folder,
        serve="external",
        model="test-model",
        base_urls=[url],
        api_key_env=KEY_VARIABLE,
        concurrency=CONCURRENCY,
        timeout_s=TIMEOUT_S,
        max_attempts=ATTEMPTS,
        totals={},
    )


def _url(server: asyncio.Server) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"http://{host}:{port}"


def _peak_mb(pid: int) -> float:
    """Return the largest resident memory that a process had (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


async def run_servers(
    names: Iterable[str], folder: Path, questions: int, say: Callable[[str], None]
) -> list[Result]:
    results = []
    for number, name in enumerate([*names, None]):
        place = folder / f"server-{number}"
        place.mkdir()
        one = await (attack(name, place, questions) if name else retry_after_days(place))
        results.append(one)
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in one.outcomes.items())
        say(
            f"{one.name:36} {outcomes:32} {one.seconds:5.1f} s {one.memory_mb:5.0f} MB  "
            f"{'; '.join(one.problems[:3]) or 'right'}"
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--server", choices=sorted(SERVERS), help="only this one")
    arguments = parser.parse_args()
    names = [arguments.server] if arguments.server else list(SERVERS)
    with tempfile.TemporaryDirectory() as folder:
        results = asyncio.run(
            run_servers(names, Path(folder), arguments.questions, lambda t: print(t, flush=True))
        )
    wrong = sum(bool(result.problems) for result in results)
    print(f"{len(results)} servers, {wrong} wrong; most memory of a gateway:", end=" ")
    print(f"{max(result.memory_mb for result in results):.0f} MB")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
