"""The OpenAI-compatible endpoint of a run, in front of the response cache and the model servers.

All jobs of a run send their requests to this process on loopback. It answers from the response
cache, sends identical requests that are in flight at the same time once (also if other runs share
the cache), dispatches the others (`cuesheet.serving.dispatcher`), and counts.
"""

import asyncio
import contextlib
import hmac
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from cuesheet import files
from cuesheet.lease import RENEW_EVERY_S, describe
from cuesheet.serving.backends import Backend, BackendFailedError, ReplayBackend
from cuesheet.serving.claims import Claims
from cuesheet.serving.dispatcher import INDEPENDENT_STAGES, Dispatcher, FairSemaphore
from cuesheet.serving.response_cache import ResponseCache, describe_request, key_of
from cuesheet.serving.upstream import CallFailedError, ChatBody
from cuesheet.vlm.parsing import choice_text

log = logging.getLogger(__name__)

# Requests contain contact sheets and clips.
LARGEST_REQUEST_BYTES = 256 * 1024 * 1024
GROUP_HEADER = "X-Cuesheet-Group"
STAGE_HEADER = "X-Cuesheet-Stage"
# Shorter than the time that clusters give a job between SIGTERM and SIGKILL.
DRAIN_S = 8.0
# Threads that only write responses to the cache, so that a slow disk does not delay requests.
WRITERS = 8
# Larger requests are parsed in a thread.
LARGEST_READ_AT_ONCE = 1024 * 1024
# Responses in a row that could not be cached, after which no further requests are sent.
MAX_CACHE_FAILURES = 10
# Interval at which the response to another run's request is looked up.
FIRST_POLL_S, LONGEST_POLL_S = 0.1, 3.0
OPEN_PATHS = frozenset({"/health", "/metrics"})

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")

METRICS = {
    "calls": ("counter", "Requests of jobs."),
    "completed": ("counter", "Requests that were answered, including failures."),
    "cache_hits": ("counter", "Requests answered from the cache."),
    "joined": ("counter", "Requests answered by an identical request in flight."),
    "in_flight": ("gauge", "Requests in flight."),
    "in_flight_peak": ("gauge", "Largest number of requests in flight."),
    "waiting": ("gauge", "Requests that wait for a free slot or a server."),
    "attempts": ("counter", "Requests sent to model servers."),
    "retries": ("counter", "Attempts that were retried."),
    "failures": ("counter", "Requests that failed."),
    "prompt_tokens": ("counter", "Tokens of requests, as reported by servers."),
    "completion_tokens": ("counter", "Tokens of replies, as reported by servers."),
    "cache_write_failures": ("counter", "Responses that could not be cached."),
}


# A response with the record of its request, and whether it was cached.
_Found = tuple[dict[str, Any], bool]
# What a job gets to know from the record of its request, with the values of older records.
_REPORTED: dict[str, Any] = {
    "upstream": None,
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "adjustments": [],
    "stored": True,
}


@dataclass
class Gateway:
    """The HTTP application. `api_key` is the run's own random key, not a model server's."""

    dispatcher: Dispatcher
    cache: ResponseCache
    api_key: str

    def __post_init__(self) -> None:
        self._asking: dict[str, asyncio.Task[_Found]] = {}
        self._reading = FairSemaphore(1)
        self._writers = ThreadPoolExecutor(WRITERS, "cache")
        self._started = time.monotonic()
        self._replaying = isinstance(self.backend, ReplayBackend)
        self._cache_failures = 0
        self._claims = Claims(self.cache.folder)

    @property
    def backend(self) -> Backend:
        return self.dispatcher.backend

    def application(self) -> web.Application:
        """Return the aiohttp application with all routes."""
        app = web.Application(
            client_max_size=LARGEST_REQUEST_BYTES, middlewares=[self._guarded, _errors_as_json]
        )
        app.cleanup_ctx.append(self._renewing_claims)
        app.router.add_post("/v1/chat/completions", self.chat_completions)
        app.router.add_post("/v1/responses/invalidate", self.invalidate)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/health", self.health)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/stats", self.stats)
        return app

    async def close(self) -> None:
        """Cache the responses that arrive within DRAIN_S, which are paid for; cancel the others."""
        deadline = time.monotonic() + DRAIN_S
        tasks = list(self._asking.values())
        if tasks:
            log.info("%d requests in flight; waiting for them up to %g s", len(tasks), DRAIN_S)
        while tasks and self.backend.state() == "ready" and time.monotonic() < deadline:
            await asyncio.wait(tasks, timeout=0.2)
            tasks = [task for task in tasks if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _renewing_claims(self, _: web.Application) -> AsyncIterator[None]:
        async def renew() -> None:
            await asyncio.to_thread(self._remove_leftovers)
            while True:
                await asyncio.sleep(RENEW_EVERY_S)
                await asyncio.to_thread(self._claims.renew)

        task = asyncio.create_task(renew())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(self._claims.close)

    def _remove_leftovers(self) -> None:
        """Remove incomplete responses and claims that killed runs left in the cache."""
        self._claims.remove_stale()
        with contextlib.suppress(OSError):
            files.remove_leftovers(self.cache.folder)

    def snapshot(self) -> dict[str, Any]:
        """Return the counters with the seconds since start and the state of the servers."""
        return {
            **asdict(self.dispatcher.counters),
            "concurrency": self.dispatcher.concurrency,
            "uptime_s": time.monotonic() - self._started,
            "server": self.backend.state(),
        }

    async def chat_completions(self, request: web.Request) -> web.Response:
        begun = time.monotonic()
        counters = self.dispatcher.counters
        counters.calls += 1
        try:
            reply, about = await self._answer(request)
        except (CallFailedError, BackendFailedError):
            counters.failures += 1
            raise
        finally:
            counters.completed += 1
        about["latency_s"] = round(time.monotonic() - begun, 4)
        return web.json_response({**reply, "cuesheet": about})

    async def _answer(self, http: web.Request) -> tuple[dict[str, Any], dict[str, Any]]:
        group, stage = _group(http), http.headers.get(STAGE_HEADER, "")
        content = await http.read()
        # One after the other, so that responses are not delayed by many requests.
        async with self._reading.acquire(group, low_priority=stage in INDEPENDENT_STAGES):
            if len(content) > LARGEST_READ_AT_ONCE:
                body, request = await asyncio.to_thread(_read_chat, content)
            else:
                body, request = _read_chat(content)
        if not body.get("model"):
            named = {"model": await self.backend.default_model()}
            body, request = {**body, **named}, {**request, **named}
        key = key_of(request)
        task = self._asking.get(key)
        joined = task is not None
        if task is None:
            # In a task, so that a job that ends does not cancel a request that is already paid for.
            task = asyncio.create_task(self._find_or_ask(key, request, body, group, stage))
            self._asking[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        try:
            entry, hit = await asyncio.shield(task)
        except CallFailedError as error:
            error.key = key
            raise
        self._writers.submit(self.cache.note, group, stage, key)
        self.dispatcher.counters.cache_hits += hit
        self.dispatcher.counters.joined += joined and not hit
        model = entry["reply"].get("model")
        about = {
            "key": key,
            "cache_hit": hit or joined,
            "attempts": 0 if hit or joined else entry["attempts"],
            "model": model if isinstance(model, str) else None,
            **{name: entry.get(name, default) for name, default in _REPORTED.items()},
        }
        return entry["reply"], about

    async def _find_or_ask(
        self, key: str, request: dict[str, Any], body: Mapping[str, Any], group: str, stage: str
    ) -> _Found:
        entry = await self._find_or_claim(key)
        if entry is not None:
            return entry, True
        try:
            return await self._request(key, request, body, group, stage), False
        finally:
            # In a thread, because the disk may stall.
            self._writers.submit(self._claims.release, key)

    async def _find_or_claim(self, key: str) -> dict[str, Any] | None:
        """Return a cached response; None if this gateway has to request it.

        If another run is requesting it, wait for its response, or until that run fails or ends.
        """
        poll_s = FIRST_POLL_S
        while True:
            entry, holder = await asyncio.to_thread(self._look_up, key)
            if entry is not None or holder is None:
                return entry
            if self.dispatcher.fatal is not None:
                raise self.dispatcher.fatal
            self.dispatcher.notify_once(
                "another run that shares the response cache is sending some of the same requests; "
                f"its responses are used ({describe(holder)})"
            )
            self.dispatcher.counters.waiting += 1
            try:
                await asyncio.sleep(poll_s)
            finally:
                self.dispatcher.counters.waiting -= 1
            poll_s = min(LONGEST_POLL_S, poll_s * 1.5)

    def _look_up(self, key: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Return the cached response, if any, and otherwise who else is requesting it, if any.

        With neither, the request is claimed by this gateway.
        """
        entry = self.cache.get(key, self._replaying)
        if entry is not None or self._replaying:
            return entry, None
        holder = self._claims.acquire(key)
        if holder is None and (entry := self.cache.get(key)) is not None:
            self._claims.release(key)  # another run cached it just before
        return entry, holder

    async def _request(
        self, key: str, request: dict[str, Any], body: Mapping[str, Any], group: str, stage: str
    ) -> dict[str, Any]:
        if self._cache_failures >= MAX_CACHE_FAILURES:
            raise CallFailedError(
                507,
                f"the last {self._cache_failures} responses could not be cached in "
                f"{self.cache.folder} ({self.cache.write_error}), so no further requests are sent: "
                "they would be paid for again. Free disk space or set vlm.cache_dir to a folder "
                "that can be written",
                "cache_not_writable",
            )
        begun = time.monotonic()
        outcome = await self.dispatcher.complete(body, group, stage)
        source = choice_text(outcome.reply["choices"][0])[1]
        if source not in ("", "content"):
            self.dispatcher.notify_once(f"the server returns answers in {source}; they are used")
        record = {
            "upstream": outcome.upstream,
            "attempts": outcome.attempts,
            "latency_s": round(time.monotonic() - begun, 4),
            "prompt_tokens": outcome.prompt_tokens,
            "completion_tokens": outcome.completion_tokens,
            **({"adjustments": outcome.adjustments} if outcome.adjustments else {}),
        }
        if outcome.cacheable:
            is_cached = await asyncio.get_running_loop().run_in_executor(
                self._writers, self.cache.put, key, request, outcome.reply, record
            )
            self.dispatcher.counters.cache_write_failures += not is_cached
            self._cache_failures = 0 if is_cached else self._cache_failures + 1
            if not is_cached:
                record["stored"] = False
                self.dispatcher.notify_once(
                    f"responses cannot be cached in {self.cache.folder} "
                    f"({self.cache.write_error}); a later run has to request them "
                    f"again. After {MAX_CACHE_FAILURES} of them in a row no further requests "
                    "are sent"
                )
        return {**record, "reply": outcome.reply}

    def _forget(self, key: str, task: asyncio.Task[_Found]) -> None:
        del self._asking[key]
        if not task.cancelled():
            # Marks the exception as retrieved if no job waits for it any more.
            task.exception()

    async def invalidate(self, request: web.Request) -> web.Response:
        """Mark cached responses as invalid, so that they are requested again."""
        try:
            keys = [key for key in (await request.json())["keys"] if isinstance(key, str)]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CallFailedError(400, f"expected keys: {error}", "bad_request") from error
        marked = await asyncio.to_thread(lambda: sum(map(self.cache.invalidate, keys)))
        return web.json_response({"invalidated": marked})

    async def models(self, _: web.Request) -> web.Response:
        listed = [{"id": name, "object": "model"} for name in await self.backend.models()]
        return web.json_response({"object": "list", "data": listed})

    async def health(self, _: web.Request) -> web.Response:
        state = self.backend.state()
        failed = state == "failed"
        answer = {"status": "failed" if failed else "ok", "server": state}
        return web.json_response(answer, status=503 if failed else 200)

    async def stats(self, _: web.Request) -> web.Response:
        return web.json_response(self.snapshot())

    async def metrics(self, _: web.Request) -> web.Response:
        values = asdict(self.dispatcher.counters)
        lines = []
        for name, (kind, text) in METRICS.items():
            full = f"cuesheet_{name}" + ("_total" if kind == "counter" else "")
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {values[name]}"]
        return web.Response(text="\n".join(lines) + "\n", content_type="text/plain")

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        if request.path not in OPEN_PATHS and not hmac.compare_digest(
            given.encode(), f"Bearer {self.api_key}".encode()
        ):
            return _error(401, "wrong or missing API key of the run's gateway", "unauthorized")
        return await handler(request)


def _group(request: web.Request) -> str:
    return unquote(request.headers.get(GROUP_HEADER, ""))


def _read_chat(content: bytes) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return a chat request, and its description for the cache."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CallFailedError(400, f"the request is not JSON: {error}", "bad_request") from error
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        raise CallFailedError(400, "a chat request has a list of messages", "bad_request")
    if not all(isinstance(message, dict) for message in body["messages"]):
        raise CallFailedError(400, "every message is an object", "bad_request")
    if _has_lone_surrogates(body, content):
        raise CallFailedError(400, "the request has text that is not valid Unicode", "bad_request")
    if body.get("stream"):
        raise CallFailedError(400, "the gateway does not stream", "bad_request")
    try:
        return ChatBody(body, content), describe_request(body)
    except (ValueError, AttributeError, RecursionError) as error:
        raise CallFailedError(400, f"not a chat request: {error}", "bad_request") from error


def _has_lone_surrogates(body: dict[str, Any], content: bytes) -> bool:
    """Return whether text of a request cannot be encoded; only escapes can express such text."""
    if not _SURROGATE_ESCAPE.search(content):
        return False
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except CallFailedError as error:
        log.warning("%s: %d %s", _group(request), error.status, error.message)
        return _error(error.status, error.message, error.kind, error.attempts, error.key)
    except BackendFailedError as error:
        return _error(503, str(error), "model_server_failed")


def _error(
    status: int, message: str, kind: str, attempts: int = 0, key: str | None = None
) -> web.Response:
    error = {"message": message, "type": kind, "code": kind, "attempts": attempts, "key": key}
    return web.json_response({"error": error}, status=status)
