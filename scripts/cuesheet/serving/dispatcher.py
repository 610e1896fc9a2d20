"""Dispatches requests with bounded concurrency, retries and adjustments for each server."""

import asyncio
import contextlib
import logging
import random
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tenacity

from cuesheet.errors import CuesheetError
from cuesheet.serving.backends import Backend
from cuesheet.serving.budget import Budget
from cuesheet.serving.upstream import CallFailedError, TransientError, Upstream
from cuesheet.serving.usage import Usage

log = logging.getLogger(__name__)

LONGEST_RETRY_AFTER_S = 300.0
LONGEST_BACKOFF_S = 30.0
# Factor of the delays after a rate limit: most are limits per minute.
RATE_LIMIT_PATIENCE = 10.0
# Delays from this one on are shown on the terminal, at most once in this time.
SHOWN_DELAY_S = 5.0
# Rejections of one request after which it fails, each of which may name another parameter.
MAX_REJECTIONS = 8
# A larger token count in a response is ignored.
MOST_TOKENS = 10**9


@dataclass
class Counters:
    """Counts since the gateway started; times in seconds."""

    calls: int = 0
    completed: int = 0
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

    def sent(self) -> dict[str, int]:
        """Return what was requested from servers, repeated requests included."""
        return {
            "requests": self.attempts,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }


# Stages whose calls wait for no other call's reply, and no other call for theirs.
INDEPENDENT_STAGES = frozenset({"vqa"})


class FairSemaphore:
    """Bounds the number of requests in flight.

    A free slot goes to the waiting groups in turn, so an episode with many requests does not delay
    the chain of requests of another. Low-priority requests, which no other request waits for, come
    last, in the order of their arrival: they fill the remaining slots, and episodes are finished
    one after the other.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._in_turn: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # by group
        self._low_priority: deque[asyncio.Future[None]] = deque()

    @contextlib.asynccontextmanager
    async def acquire(self, group: str, *, low_priority: bool = False) -> AsyncIterator[None]:
        """Hold one slot for the length of the block; low-priority requests wait for all others."""
        if self._free > 0:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            queue = self._low_priority if low_priority else self._in_turn.setdefault(group, deque())
            queue.append(turn)
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
    """A response and what it cost.

    `cacheable` is False if a later run may get a better one. `adjustments` names how the request
    was changed for the server.
    """

    stage: str
    reply: dict[str, Any] = field(default_factory=dict)
    upstream: str = ""
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cacheable: bool = True
    adjustments: list[str] = field(default_factory=list)
    failures: int = 0  # attempts that count towards the bound
    successes: int | None = None  # of the server, at the last attempt


@dataclass
class Dispatcher:
    """Sends requests to a backend, with bounded concurrency, retries and adjustments.

    `notify` shows a line on the terminal. `on_fatal` is called once with the cause if no further
    request can succeed: the quota is exhausted, or the check of the server failed. `pending_check`
    is a check of the server that is due before the first request; it raises CuesheetError.
    """

    backend: Backend
    concurrency: int
    max_attempts: int
    counters: Counters
    first_backoff_s: float = 0.5
    usage: Usage | None = None
    sleep: Callable[[float], Any] = asyncio.sleep
    notify: Callable[[str], None] = log.warning
    on_fatal: Callable[[str], None] = log.error
    fatal: CallFailedError | None = None
    budget: Budget = field(default_factory=Budget)
    pending_check: Callable[[], Awaitable[Any]] | None = None
    _checking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _slots: FairSemaphore = field(init=False)
    _notices: set[str] = field(default_factory=set)
    _delay_shown_until: float = 0.0

    def __post_init__(self) -> None:
        self._slots = FairSemaphore(self.concurrency)

    def notify_once(self, text: str) -> None:
        """Show a line on the terminal if this run has not shown it before."""
        if text not in self._notices:
            self._notices.add(text)
            log.warning("%s", text)
            self.notify(text)

    async def complete(self, body: Mapping[str, Any], group: str, stage: str = "") -> Outcome:
        """Return the response to a chat request. Raises CallFailedError or BackendFailedError.

        A reply that was cut off at its token limit is requested once more with twice the limit; if
        that fails, the cut reply is returned.
        """
        if self.pending_check is not None:
            await self._check()
        outcome = Outcome(stage)
        outcome.reply = await self._with_retries(body, group, outcome)
        budget = "max_completion_tokens" if body.get("max_completion_tokens") else "max_tokens"
        if outcome.reply["choices"][0].get("finish_reason") == "length" and body.get(budget):
            log.info("%s: reply cut off at %s tokens; retried with twice that", group, body[budget])
            longer = {**body, budget: 2 * body[budget]}
            try:
                outcome.reply = await self._with_retries(longer, group, outcome)
            except CallFailedError as error:
                outcome.cacheable = error.kind != "gave_up"
                log.warning("%s: twice the tokens were rejected: %s", group, error.message)
        return outcome

    async def _check(self) -> None:
        """Run the pending check once. Raises CallFailedError if it fails."""
        async with self._checking:
            if self.pending_check is None:
                return
            try:
                await self.pending_check()
            except CuesheetError as error:
                self.fatal = CallFailedError(502, str(error), "check_failed")
                self.on_fatal(str(error))
            self.pending_check = None

    async def _with_retries(
        self, body: Mapping[str, Any], group: str, outcome: Outcome
    ) -> dict[str, Any]:
        outcome.failures = 0
        retrying = tenacity.AsyncRetrying(
            stop=lambda state: outcome.failures >= self.max_attempts,
            retry=tenacity.retry_if_exception_type(TransientError),
            wait=self._wait_s,
            before_sleep=self._before_sleep,
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, body, group, outcome)
        except CallFailedError as error:
            error.attempts = outcome.attempts
            if error.kind in ("quota_exhausted", "budget_used_up") and self.fatal is None:
                self.fatal = error
                source = f"{outcome.upstream}: " if error.kind == "quota_exhausted" else ""
                self.on_fatal(f"{source}{error.message}")
            raise
        except TransientError as error:
            raise CallFailedError(
                502,
                f"failed after {outcome.attempts} attempts; the last error: {error}",
                "gave_up",
                outcome.attempts,
            ) from error

    async def _attempt(
        self, body: Mapping[str, Any], group: str, outcome: Outcome
    ) -> dict[str, Any]:
        counters = self.counters
        counters.waiting += 1
        waiting = 1
        try:
            async with self._slots.acquire(group, low_priority=outcome.stage in INDEPENDENT_STAGES):
                upstream = await self.backend.pick(group)
                counters.waiting -= 1
                waiting = 0
                counters.in_flight += 1
                counters.in_flight_peak = max(counters.in_flight_peak, counters.in_flight)
                successes = upstream.successes if outcome.successes is None else outcome.successes
                outcome.successes = upstream.successes
                try:
                    with self.usage.busy(outcome.stage) if self.usage else contextlib.nullcontext():
                        return await self._send(upstream, body, outcome)
                except TransientError as error:
                    # A rate limit is not a failure as long as the server serves other requests.
                    if error.rate_limited and upstream.successes > successes:
                        outcome.failures = 0
                    outcome.failures += 1
                    raise
                finally:
                    counters.in_flight -= 1
        finally:
            counters.waiting -= waiting

    async def _send(
        self, upstream: Upstream, body: Mapping[str, Any], outcome: Outcome
    ) -> dict[str, Any]:
        """Send a request in the form that the server accepts, which is learned from its rejections.

        An adjustment is kept for later requests once a request with it has succeeded.
        """
        if self.fatal is not None:
            raise self.fatal
        adjustments = upstream.adjustments
        for _ in range(MAX_REJECTIONS):
            try:
                reply = await self._counted(upstream, adjustments.apply(body), outcome)
                break
            except CallFailedError as error:
                sent = adjustments.apply(body)
                learned = adjustments.learn(error.error, sent) if error.error else None
                if learned is None or learned == adjustments:
                    raise
                adjustments = learned
        else:
            raise CallFailedError(400, "the server rejects every form of the request", "refused")
        outcome.adjustments = adjustments.describe(body)
        for change in set(adjustments.describe()) - set(upstream.adjustments.describe()):
            self.notify_once(f"the server rejects part of a request; from now on {change}")
        upstream.adjustments |= adjustments
        return reply

    async def _counted(
        self, upstream: Upstream, body: Mapping[str, Any], outcome: Outcome
    ) -> dict[str, Any]:
        counters = self.counters
        if reached := self.budget.exhausted(
            counters.attempts, counters.prompt_tokens, counters.completion_tokens
        ):
            raise CallFailedError(
                402,
                f"{reached}. No further requests are sent and every reply is kept; to continue, "
                "run the same command again, which starts with a new budget, or raise the limit",
                "budget_used_up",
            )
        outcome.attempts += 1
        outcome.upstream = upstream.name
        counters.attempts += 1
        reply = await upstream.ask(body)
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        for name in ("prompt_tokens", "completion_tokens"):
            tokens = usage.get(name)
            tokens = tokens if type(tokens) is int and 0 < tokens < MOST_TOKENS else 0
            setattr(outcome, name, getattr(outcome, name) + tokens)
            setattr(counters, name, getattr(counters, name) + tokens)
        return reply

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        delay_s = getattr(error, "retry_after_s", None)
        first_s = self.first_backoff_s
        if delay_s is None and getattr(error, "rate_limited", False):
            first_s *= RATE_LIMIT_PATIENCE
        backoff_s = min(LONGEST_BACKOFF_S, first_s * 2.0 ** (state.attempt_number - 1))
        backoff_s *= random.uniform(0.5, 1.0)
        return backoff_s if delay_s is None else min(delay_s, LONGEST_RETRY_AFTER_S) + backoff_s / 5

    def _before_sleep(self, state: tenacity.RetryCallState) -> None:
        self.counters.retries += 1
        error = state.outcome.exception() if state.outcome else None
        wait_s = state.next_action.sleep if state.next_action else 0.0
        log.warning("attempt %d failed (%s); next in %.1f s", state.attempt_number, error, wait_s)
        delay_s, now = getattr(error, "retry_after_s", None), time.monotonic()
        if delay_s is None or wait_s < SHOWN_DELAY_S or now < self._delay_shown_until:
            return
        self._delay_shown_until = now + max(SHOWN_DELAY_S, 0.9 * wait_s)
        at = time.strftime("%H:%M:%S", time.localtime(time.time() + wait_s))
        bound = f" (it asks for {delay_s:.0f} s)" if delay_s > LONGEST_RETRY_AFTER_S else ""
        self.notify(f"{error}; next attempt in {wait_s:.0f} s, at {at}{bound}")
