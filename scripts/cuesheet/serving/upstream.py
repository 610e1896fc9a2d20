"""Model servers as the gateway sees them: one attempt at one server, and the choice of a server.

What stands behind the gateway, managed processes or given URLs, is a `Backend`. Nothing here knows
of retries, of HTTP towards the jobs or of the cache.
"""

import asyncio
import ipaddress
import json
import ssl
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp

from cuesheet.vlm.parsing import load_finite

# Statuses that may go away by themselves: request timeout, too early, too many requests.
RETRIED_STATUSES = frozenset({408, 425, 429})
# Shorter than the 5 s after which common servers close what is idle.
KEEP_ALIVE_S = 3.0
FAILURES_BEFORE_REST = 3
FIRST_REST_S = 5.0
LONGEST_REST_S = 60.0
# A chat reply is a few kilobytes; what is larger than this is not read to its end.
LARGEST_REPLY_BYTES = 8 * 1024 * 1024
# The `finish_reason` of the empty reply that stands for one that was too large.
TOO_LARGE = "reply_too_large"
# What is shorter is no secret but a word for none ("none", "EMPTY"), and may be part of any text.
SHORTEST_SECRET = 8


class CallFailedError(Exception):
    """A call that no retry will save: `status` and `message` go back to the job.

    `key` is the call's key in the cache, once it is known.
    """

    key: str | None = None

    def __init__(self, status: int, message: str, kind: str, attempts: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.attempts = attempts


class TransientError(Exception):
    """A failed attempt that is worth another one, after `retry_after_s` if the server said so."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BackendFailedError(Exception):
    """There is no model server and there will be none in this run."""


class ChatBody(Mapping[str, Any]):
    """A chat request as it came: its bytes are sent on, and its messages read from them again.

    So that what waits, with its pictures, is held once. A changed copy is a plain dictionary.
    """

    def __init__(self, body: Mapping[str, Any], content: bytes) -> None:
        self.content = content
        self._rest = {name: value for name, value in body.items() if name != "messages"}

    def __getitem__(self, name: str) -> Any:
        return json.loads(self.content)[name] if name == "messages" else self._rest[name]

    def __iter__(self) -> Iterator[str]:
        yield from ("messages", *self._rest)

    def __len__(self) -> int:
        return 1 + len(self._rest)


@dataclass(frozen=True)
class _Response:
    """What a server sent: its status, its headers, and its body up to LARGEST_REPLY_BYTES."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    whole: bool


class Upstream:
    """One OpenAI-compatible server.

    `structured`: whether it is sent `response_format`, until it refuses that; else the form is
    asked for in words. A server on this machine is reached without the proxies of the environment.
    """

    def __init__(
        self, base_url: str, api_key: str | None, timeout_s: float, structured: bool = True
    ) -> None:
        parts = urlsplit(base_url)
        self.name = (parts.hostname or base_url) + (f":{parts.port}" if parts.port else "")
        self.timeout_s = timeout_s
        self.in_flight = 0
        self.groups = 0
        self.rejects_response_format = not structured
        self.rejects_mm_processor_kwargs = False
        self._failures_in_row = 0
        self._rests_until = 0.0
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._session: aiohttp.ClientSession | None = None

    @property
    def rests(self) -> bool:
        """Whether recent failures keep new calls away for a moment."""
        return time.monotonic() < self._rests_until

    async def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask once and return the reply as the server gave it.

        A reply that is too large is not read: one without text, with the finish reason TOO_LARGE,
        stands for it. Raises TransientError (lost connection, time out, 429, 5xx, a reply that is
        not a chat completion) or CallFailedError (any other refusal).
        """
        self.in_flight += 1
        try:
            content = body.content if isinstance(body, ChatBody) else json.dumps(body).encode()
            response = await self._send("POST", "/chat/completions", content)
            if response.status >= 300:
                raise self._refusal(response)
            reply = self._read(response.content) if response.whole else _too_large(body)
        except TimeoutError as error:
            self._failed()
            raise TransientError(f"{self.name}: no reply within {self.timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            self._failed(refused=isinstance(error, aiohttp.ClientConnectorError))
            message = self.without_key(f"{type(error).__name__} {error}".strip())
            raise TransientError(f"{self.name}: connection lost ({message})") from error
        finally:
            self.in_flight -= 1
        self._failures_in_row = 0
        return reply

    async def models(self) -> list[str]:
        """Return the ids of `/v1/models`. Raises ValueError that says what came instead."""
        try:
            response = await self._send("GET", "/models")
        except TimeoutError:
            raise ValueError(f"{self.name}: no reply within {self.timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ValueError(self.without_key(f"{self.name}: {error}")) from error
        if response.status >= 300:
            message = self.without_key(_message_of(response)[0])
            raise ValueError(f"{self.name}: {response.status} {message}")
        try:
            return [str(model["id"]) for model in json.loads(response.content)["data"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{self.name}: the reply is no list of models ({error})") from error

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def _send(self, method: str, path: str, body: bytes | None = None) -> _Response:
        if self._session is None:
            # Certificates are read now, so that SSL_CERT_FILE counts. There is no limit: how many
            # calls are in flight is bounded before they come here.
            secure = self._base_url.startswith("https:")
            trusted = ssl.create_default_context() if secure else True
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, ssl=trusted, keepalive_timeout=KEEP_ALIVE_S
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=not is_loopback(self._base_url),
                headers={"Authorization": f"Bearer {self._api_key or 'none'}"},
            )
        headers = {"Content-Type": "application/json"} if body is not None else None
        async with (
            asyncio.timeout(self.timeout_s),
            self._session.request(
                method, self._base_url + path, data=body, headers=headers
            ) as response,
        ):
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > LARGEST_REPLY_BYTES:
                    response.close()
                    break
            whole = len(content) <= LARGEST_REPLY_BYTES
            kept = bytes(content[:LARGEST_REPLY_BYTES])
            return _Response(response.status, response.headers, kept, whole)

    def _read(self, content: bytes) -> dict[str, Any]:
        try:
            reply = load_finite(scrubbed(content, self._api_key))
        except (ValueError, RecursionError) as error:
            raise self._unusable(f"the reply is not JSON ({error})") from error
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise self._unusable("the reply has no choices")
        if not isinstance(choices[0].get("message"), dict):
            raise self._unusable("the reply's choice has no message")
        return reply

    def _unusable(self, what: str) -> TransientError:
        self._failed()
        return TransientError(f"{self.name}: {what}")

    def _refusal(self, response: _Response) -> TransientError | CallFailedError:
        status = response.status
        message, code = _message_of(response)
        message = self.without_key(message)
        if status in RETRIED_STATUSES or status >= 500:
            if status != 429:
                self._failed()
            wait = _retry_after_s(response.headers)
            return TransientError(f"{self.name}: {status} {message}", wait)
        kind = "context_length_exceeded" if code == "context_length_exceeded" else "refused"
        return CallFailedError(status, message, kind)

    def _failed(self, refused: bool = False) -> None:
        self._failures_in_row += 1
        beyond = self._failures_in_row - (1 if refused else FAILURES_BEFORE_REST)
        if beyond >= 0:
            self._rests_until = time.monotonic() + min(
                LONGEST_REST_S, FIRST_REST_S * 2.0 ** min(beyond, 10)
            )

    def without_key(self, text: str) -> str:
        return scrubbed(text.encode(errors="replace"), self._api_key).decode()


class Backend(Protocol):
    """What the gateway needs of the model servers behind it."""

    async def pick(self, group: str) -> Upstream:
        """Return a living upstream for the group, waiting for one; BackendFailedError if none."""

    async def default_model(self) -> str:
        """Return the model to ask where the config names none."""

    async def models(self) -> list[str]:
        """Return the ids of the models served."""

    def state(self) -> str:
        """Return "idle", "starting", "ready" or "failed"."""

    async def close(self) -> None:
        """End what was started."""


class Affinity:
    """Keeps a group's calls on one upstream while that lives, new groups on the least loaded."""

    LARGEST = 100_000

    def __init__(self) -> None:
        self._of_group: OrderedDict[str, Upstream] = OrderedDict()

    def choose(self, upstreams: Sequence[Upstream], group: str) -> Upstream | None:
        """Return the group's upstream among the living ones; None if none lives."""
        fit = [upstream for upstream in upstreams if not upstream.rests] or list(upstreams)
        if not fit:
            return None
        kept = self._of_group.get(group)
        if kept is not None and kept in fit:
            self._of_group.move_to_end(group)
            return kept
        chosen = min(fit, key=lambda upstream: (upstream.in_flight, upstream.groups))
        if group:
            if kept is not None:
                kept.groups -= 1
            chosen.groups += 1
            self._of_group[group] = chosen
            if len(self._of_group) > self.LARGEST:
                self._of_group.popitem(last=False)[1].groups -= 1
        return chosen


class ExternalBackend:
    """Servers that others run, at given URLs; nothing is started or stopped."""

    def __init__(
        self,
        keys: Mapping[str, str | None],
        model: str | None,
        timeout_s: float,
        structured: bool = True,
    ) -> None:
        """`keys`: the API key of every base URL, None for one that wants none."""
        self._upstreams = [Upstream(url, key, timeout_s, structured) for url, key in keys.items()]
        self._affinity = Affinity()
        self._model = model
        self._asking = asyncio.Lock()

    async def pick(self, group: str) -> Upstream:
        chosen = self._affinity.choose(self._upstreams, group)
        if chosen is None:
            raise BackendFailedError("no base URL is configured (vlm.base_urls)")
        return chosen

    async def default_model(self) -> str:
        async with self._asking:
            if self._model is None:
                listed = await self.models()
                if not listed:
                    raise CallFailedError(502, "the server lists no model", "no_model")
                self._model = listed[0]
        return self._model

    async def models(self) -> list[str]:
        causes = []
        for upstream in self._upstreams:
            try:
                return await upstream.models()
            except ValueError as error:
                causes.append(str(error))
        raise CallFailedError(
            502,
            "no server answers /v1/models (" + "; ".join(causes) + "); check vlm.base_urls and the "
            "API key, or name the model in vlm.model",
            "no_model",
        )

    def state(self) -> str:
        return "ready"

    async def close(self) -> None:
        for upstream in self._upstreams:
            await upstream.close()


def is_loopback(url: str) -> bool:
    """Tell whether a URL names this machine, which no proxy is to be asked for."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def scrubbed(text: bytes, key: str | None) -> bytes:
    """`text` without the key, wherever a server repeats it."""
    if key is None or len(key) < SHORTEST_SECRET:
        return text
    return text.replace(key.encode(), b"***")


def _too_large(body: Mapping[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": None}
    choice = {"index": 0, "message": message, "finish_reason": TOO_LARGE}
    return {"object": "chat.completion", "model": body.get("model"), "choices": [choice]}


def _message_of(response: _Response) -> tuple[str, Any]:
    """Return what a refusal says, and its error code if it has one."""
    text = response.content.decode(errors="replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    code = None
    if isinstance(found, dict):
        found = found.get("error", found)
        if isinstance(found, dict):
            code = found.get("code")
            found = found.get("message") or found.get("detail") or found
    shown = found if isinstance(found, str) else text
    return (shown.strip() or "(no message)")[:2000], code


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, given as a number or as an HTTP date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
