"""Asking until there is an answer: bounded concurrency, retries, the ways round refusals."""

import asyncio
import json
import logging
import random
import re
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import tenacity

from cuesheet.serving.upstream import Backend, CallFailedError, TransientError, Upstream
from cuesheet.serving.usage import Usage

log = logging.getLogger(__name__)

LONGEST_RETRY_AFTER_S = 300.0
LONGEST_BACKOFF_S = 30.0
# No reply has more tokens; a server that reports more is not believed.
MOST_TOKENS = 10**9


@dataclass
class Counters:
    """What the gateway did since it started; times in seconds."""

    calls: int = 0
    cache_hits: int = 0
    joined: int = 0
    in_flight: int = 0
    in_flight_peak: int = 0
    waiting: int = 0
    attempts: int = 0
    retries: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_write_failures: int = 0


# Stages whose calls wait for no other call's reply, and no other call for theirs.
INDEPENDENT_STAGES = frozenset({"vqa"})


class FairSemaphore:
    """Bounds what runs at once.

    A free slot goes to the waiting groups in turn, not to the longest, so that an episode with many
    calls does not hold back the chain of calls of another. Calls that nothing waits for come last,
    in the order in which they came: they fill what the others leave, and episodes are finished one
    after the other, not all at the same moment.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._in_turn: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # by group
        self._low_priority: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def acquire(self, group: str, *, low_priority: bool = False) -> AsyncIterator[None]:
        """Hold one slot for the length of the block; `low_priority`: after all others."""
        if self._free > 0:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            (
                self._low_priority if low_priority else self._in_turn.setdefault(group, deque())
            ).append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give()
                raise
        try:
            yield
        finally:
            self._give()

    def _give(self) -> None:
        while turn := self._next():
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _next(self) -> asyncio.Future[None] | None:
        if not self._in_turn:
            return self._low_priority.popleft() if self._low_priority else None
        group, queue = next(iter(self._in_turn.items()))
        turn = queue.popleft()
        if queue:
            self._in_turn.move_to_end(group)
        else:
            del self._in_turn[group]
        return turn


@dataclass
class Outcome:
    """A reply and what it took; `cacheable` is False where a later run may get a better one."""

    reply: dict[str, Any]
    upstream: str
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    cacheable: bool = True


@dataclass
class _Tally:
    stage: str
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    upstream: str = ""


@dataclass
class Dispatcher:
    """Asks a backend, with bounded concurrency, retries, and the known ways round refusals."""

    backend: Backend
    concurrency: int
    max_attempts: int
    counters: Counters
    first_backoff_s: float = 0.5
    usage: Usage | None = None
    sleep: Callable[[float], Any] = asyncio.sleep
    _slots: FairSemaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = FairSemaphore(self.concurrency)

    async def complete(self, body: Mapping[str, Any], group: str, stage: str = "") -> Outcome:
        """Return the reply to a chat request. Raises CallFailedError, BackendFailedError.

        A reply that was cut at its token budget is asked once more with twice the budget; if that
        is refused or fails, the cut reply is what there is.
        """
        tally = _Tally(stage)
        reply = await self._with_retries(body, group, tally)
        cacheable = True
        budget = "max_completion_tokens" if body.get("max_completion_tokens") else "max_tokens"
        if reply["choices"][0].get("finish_reason") == "length" and body.get(budget):
            log.info("%s: reply cut at %s tokens; asked with twice that", group, body[budget])
            try:
                reply = await self._with_retries({**body, budget: 2 * body[budget]}, group, tally)
            except CallFailedError as error:
                cacheable = error.kind != "gave_up"
                log.warning("%s: twice the tokens were refused: %s", group, error.message)
        return Outcome(
            reply,
            tally.upstream,
            tally.attempts,
            tally.prompt_tokens,
            tally.completion_tokens,
            cacheable,
        )

    async def _with_retries(
        self, body: Mapping[str, Any], group: str, tally: _Tally
    ) -> dict[str, Any]:
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.max_attempts),
            retry=tenacity.retry_if_exception_type(TransientError),
            wait=self._wait_s,
            before_sleep=self._before_sleep,
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, body, group, tally)
        except CallFailedError as error:
            error.attempts = tally.attempts
            raise
        except TransientError as error:
            raise CallFailedError(
                502,
                f"given up after {self.max_attempts} attempts; the last: {error}",
                "gave_up",
                tally.attempts,
            ) from error

    async def _attempt(self, body: Mapping[str, Any], group: str, tally: _Tally) -> dict[str, Any]:
        counters = self.counters
        counters.waiting += 1
        waiting = True
        try:
            async with self._slots.acquire(group, low_priority=tally.stage in INDEPENDENT_STAGES):
                upstream = await self.backend.pick(group)
                counters.waiting -= 1
                waiting = False
                counters.in_flight += 1
                counters.in_flight_peak = max(counters.in_flight_peak, counters.in_flight)
                if self.usage:
                    self.usage.enter(tally.stage)
                try:
                    return await self._ask(upstream, body, tally)
                finally:
                    counters.in_flight -= 1
                    if self.usage:
                        self.usage.leave(tally.stage)
        finally:
            if waiting:
                counters.waiting -= 1

    async def _ask(
        self, upstream: Upstream, body: Mapping[str, Any], tally: _Tally
    ) -> dict[str, Any]:
        """Ask, without the processor's arguments where a server takes none from requests.

        vLLM since 0.32 does not unless it was started with --trust-request-mm-kwargs.
        """
        if body.get("mm_processor_kwargs") is None:
            return await self._ask_typed(upstream, body, tally)
        if not upstream.rejects_mm_processor_kwargs:
            try:
                return await self._ask_typed(upstream, body, tally)
            except CallFailedError as error:
                if error.status not in (400, 422) or "mm_processor_kwargs" not in error.message:
                    raise
        plain = {name: value for name, value in body.items() if name != "mm_processor_kwargs"}
        reply = await self._ask_typed(upstream, plain, tally)
        if not upstream.rejects_mm_processor_kwargs:
            upstream.rejects_mm_processor_kwargs = True
            log.warning(
                "%s rejects mm_processor_kwargs (a vLLM takes them with "
                "--trust-request-mm-kwargs); from now on they are left out, so the server samples "
                "clips and sizes pictures as it was started to",
                upstream.name,
            )
        return reply

    async def _ask_typed(
        self, upstream: Upstream, body: Mapping[str, Any], tally: _Tally
    ) -> dict[str, Any]:
        structured = body.get("response_format") is not None
        if structured and upstream.rejects_response_format:
            return await self._counted(upstream, in_plain_words(body), tally)
        try:
            return await self._counted(upstream, body, tally)
        except CallFailedError as error:
            if not (structured and names_response_format(error)):
                raise
        reply = await self._counted(upstream, in_plain_words(body), tally)
        if not upstream.rejects_response_format:
            upstream.rejects_response_format = True
            log.warning(
                "%s rejects response_format; from now on its schema is part of the question",
                upstream.name,
            )
        return reply

    async def _counted(
        self, upstream: Upstream, body: Mapping[str, Any], tally: _Tally
    ) -> dict[str, Any]:
        tally.attempts += 1
        tally.upstream = upstream.name
        self.counters.attempts += 1
        reply = await upstream.ask(body)
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        for name in ("prompt_tokens", "completion_tokens"):
            tokens = usage.get(name)
            tokens = tokens if type(tokens) is int and 0 < tokens < MOST_TOKENS else 0
            setattr(tally, name, getattr(tally, name) + tokens)
            setattr(self.counters, name, getattr(self.counters, name) + tokens)
        return reply

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        backoff = min(LONGEST_BACKOFF_S, self.first_backoff_s * 2.0 ** (state.attempt_number - 1))
        jittered = backoff * random.uniform(0.5, 1.0)
        asked_for = getattr(error, "retry_after_s", None)
        if asked_for is None:
            return jittered
        return min(asked_for, LONGEST_RETRY_AFTER_S) + jittered * 0.2

    def _before_sleep(self, state: tenacity.RetryCallState) -> None:
        self.counters.retries += 1
        error = state.outcome.exception() if state.outcome else None
        wait_s = state.next_action.sleep if state.next_action else 0.0
        log.warning("attempt %d failed (%s); next in %.1f s", state.attempt_number, error, wait_s)


def names_response_format(error: CallFailedError) -> bool:
    """Tell whether a refusal is about structured output, as far as its message says."""
    if error.status not in (400, 404, 415, 422, 501):
        return False
    return bool(re.search(r"response_format|json_schema|structured.?output|guided", error.message))


def in_plain_words(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request without `response_format`, its schema appended to the last question."""
    plain = {name: value for name, value in body.items() if name != "response_format"}
    form = body["response_format"]
    schema = form.get("json_schema", {}).get("schema") if isinstance(form, dict) else None
    order = "Reply with one JSON object only, no other text."
    if schema is not None:
        text = json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
        order = (
            f"Reply with one JSON object only, no other text. It must follow this schema: {text}"
        )
    messages = list(body["messages"])
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if message.get("role") != "user":
            continue
        content = message.get("content")
        if isinstance(content, list):
            content = [*content, {"type": "text", "text": order}]
            if len(content) > 1 and content[-2].get("type") == "text":
                text = f"{content[-2]['text']}\n\n{order}"
                content = [*content[:-2], {"type": "text", "text": text}]
        else:
            content = f"{content}\n\n{order}"
        messages[index] = {**message, "content": content}
        break
    plain["messages"] = messages
    return plain
