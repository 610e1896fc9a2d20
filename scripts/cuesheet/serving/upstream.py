"""One OpenAI-compatible server, and one attempt to get a response from it.

Requests go through the openai package without its retries, because the dispatcher retries.
"""

import asyncio
import json
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import httpx2
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient

from cuesheet.serving.adjustments import Adjustments
from cuesheet.serving.bounded_response import bound_errors, encoding_of, unpacked
from cuesheet.serving.connection_errors import describe, is_loopback, tls_error
from cuesheet.serving.reply_forms import read_completion
from cuesheet.serving.server_errors import (
    ServerError,
    error_in_reply,
    read_error,
)

# Shorter than the 5 s after which common servers close idle connections.
KEEP_ALIVE_S = 3.0
FAILURES_BEFORE_COOLDOWN = 3
FIRST_COOLDOWN_S = 5.0
LONGEST_COOLDOWN_S = 60.0
# A chat response has a few kilobytes; a larger one than this is not read to its end. Compressed
# bytes are bounded too, in steps that a decompression bomb cannot turn into much memory.
LARGEST_REPLY_BYTES = 8 * 1024 * 1024
# More than any chat response has. Without this limit, eight megabytes of empty objects would become
# hundreds of megabytes when they are parsed.
MOST_COMMAS = 200_000
# The `finish_reason` of the empty reply that stands for one that was too large.
TOO_LARGE = "reply_too_large"
# Timeout of `/v1/models`, which servers answer without the model.
LIST_TIMEOUT_S = 10.0
AZURE_HOSTS = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
# What the openai package and its transport raise if a connection fails. The last of them comes from
# a server that does not speak HTTP.
LOST = (openai.APIConnectionError, httpx2.HTTPError, OSError, aiohttp.ClientError)
# A shorter key is a placeholder ("none", "EMPTY") and may be part of any text.
SHORTEST_SECRET = 8


class ListedModel(NamedTuple):
    """An entry of `/v1/models`. `root`: the model behind a name that an operator chose, or ""."""

    id: str
    root: str


class CallFailedError(Exception):
    """A request that a retry would not help: `status` and `message` are returned to the job.

    `key` is the request's key in the cache once it is known; `error` is what the server reported.
    """

    key: str | None = None
    error: ServerError | None = None

    def __init__(self, status: int, message: str, kind: str, attempts: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.attempts = attempts


class TransientError(Exception):
    """A failed attempt to retry, after `retry_after_s` if the server named a delay.

    `status` is the HTTP status of an error response.
    """

    def __init__(
        self,
        message: str,
        retry_after_s: float | None = None,
        rate_limited: bool = False,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.rate_limited = rate_limited
        self.status = status


class UnusableResponseError(TransientError):
    """A response with HTTP status 200 that is not a chat completion."""


class TlsError(TransientError):
    """A connection that failed because of a certificate, or because only one side uses TLS."""


class _ReportedError(Exception):
    """A response with HTTP status 200 that reports an error."""

    def __init__(self, error: ServerError) -> None:
        super().__init__(error.message)
        self.error = error


class ChatBody(Mapping[str, Any]):
    """A chat request whose messages are read from the received bytes each time they are needed.

    So a waiting request, with its images, is held once. A changed copy is a plain dictionary.
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


class Upstream:
    """One OpenAI-compatible server.

    `structured`: whether requests have `response_format`; if not, the reply schema is sent in the
    prompt. A server on this machine is reached without the proxies of the environment.
    """

    def __init__(
        self, base_url: str, api_key: str | None, timeout_s: float, structured: bool = True
    ) -> None:
        parts = urlsplit(base_url)
        host = parts.hostname or base_url
        host = f"[{host}]" if ":" in (parts.hostname or "") else host
        self.name = f"{host}:{parts.port}" if parts.port else host
        self.timeout_s = timeout_s
        self.in_flight = 0
        self.groups = 0
        self.adjustments = Adjustments(schema_in_prompt=not structured)
        self.successes = 0
        self._failures_in_row = 0
        self._cooling_down_until = 0.0
        address, _, query = base_url.partition("?")
        self._base_url = address.rstrip("/")
        self._query = dict(parse_qsl(query))
        self._api_key = api_key
        self._client: AsyncOpenAI | None = None

    @property
    def has_key(self) -> bool:
        """Whether requests carry an API key."""
        return bool(self._api_key)

    @property
    def lists_other_names(self) -> bool:
        """Whether the server lists the models it offers, but requests name deployments (Azure)."""
        return (urlsplit(self._base_url).hostname or "").endswith(AZURE_HOSTS)

    @property
    def cooling_down(self) -> bool:
        """Whether new requests go elsewhere for now, because recent ones failed."""
        return time.monotonic() < self._cooling_down_until

    async def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send the request once and return the response as the server sent it.

        A response that is too large is replaced by one without text and with the finish reason
        TOO_LARGE. A request that a content filter blocked is answered by a refusal. Raises
        TransientError (lost connection, timeout, 429, 5xx, a response that is not a chat
        completion) or CallFailedError (any other error response).
        """
        self.in_flight += 1
        try:
            async with asyncio.timeout(self.timeout_s):
                content = await self._complete(body)
            if content is None or content.count(b",") > MOST_COMMAS:
                reply = _stand_in(body, TOO_LARGE)
            else:
                reply = self._read(content)
        except TimeoutError as error:
            self._failed()
            raise TransientError(f"{self.name}: no reply within {self.timeout_s:g} s") from error
        except _ReportedError as reported:
            return self._refusal(body, reported.error)
        except openai.APIStatusError as error:
            return self._refusal(body, self._error_of(error.response))
        except LOST as error:
            raise self._lost(error) from error
        finally:
            self.in_flight -= 1
        self._failures_in_row = 0
        self.successes += 1
        return reply

    async def list_models(self) -> list["ListedModel"]:
        """Return the models that `/v1/models` lists; none if the list has several pages.

        Raises TransientError if the server does not answer, and CallFailedError if it answers
        something else.
        """
        limit_s = min(self.timeout_s, LIST_TIMEOUT_S)
        try:
            async with asyncio.timeout(limit_s):
                async with self._opened().models.with_streaming_response.list() as response:
                    content = await self._bounded(response.http_response)
        except TimeoutError:
            raise TransientError(f"{self.name}: no reply within {limit_s:g} s") from None
        except openai.APIStatusError as error:
            raise self._error(self._error_of(error.response)) from None
        except LOST as error:
            raise self._lost(error) from error
        try:
            return _listed(json.loads(content or b""))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            message = f"{self.name}: the response is not a list of models ({error})"
            raise CallFailedError(502, message, "no_model") from error

    async def close(self) -> None:
        if self._client:
            await self._client.close()

    async def _complete(self, body: Mapping[str, Any]) -> bytes | None:
        """Return the reply's bytes; None if there are more than LARGEST_REPLY_BYTES."""
        rest = {name: value for name, value in body.items() if name not in ("model", "messages")}
        async with self._opened().chat.completions.with_streaming_response.create(
            model=body.get("model") or "", messages=body["messages"], extra_body=rest
        ) as response:
            return await self._bounded(response.http_response)

    async def _bounded(self, response: httpx2.Response) -> bytes | None:
        """Read and decompress a response; None if it has more than LARGEST_REPLY_BYTES."""
        encoding = encoding_of(response)
        if encoding not in ("identity", "gzip", "deflate"):
            raise self._unusable(f"its responses have the encoding {encoding!r}, not requested")
        content = bytearray()
        try:
            async for chunk in unpacked(response.aiter_raw(), encoding, LARGEST_REPLY_BYTES + 1):
                content += chunk
        except zlib.error as error:
            raise self._unusable(f"its response cannot be decompressed ({error})") from None
        return bytes(content) if len(content) <= LARGEST_REPLY_BYTES else None

    def _opened(self) -> AsyncOpenAI:
        if self._client is None:
            # Certificates are read now, so that SSL_CERT_FILE counts. There is no limit: requests
            # in flight are bounded before they come here.
            secure = self._base_url.startswith("https:")
            limits = httpx2.Limits(max_connections=None, keepalive_expiry=KEEP_ALIVE_S)
            self._client = AsyncOpenAI(
                base_url=self._base_url,
                api_key=self._api_key or "none",
                max_retries=0,
                timeout=None,
                # A compressed reply could expand without limit.
                default_headers={"Accept-Encoding": "identity", **self._azure_key()},
                default_query=self._query,
                http_client=DefaultAioHttpClient(
                    follow_redirects=False,  # the key never goes to another server
                    trust_env=not is_loopback(self._base_url),
                    verify=ssl.create_default_context() if secure else True,
                    limits=limits,
                    timeout=None,
                    event_hooks={"response": [bound_errors]},
                ),
            )
        return self._client

    def _azure_key(self) -> dict[str, str]:
        """Return the header in which Azure's older endpoints expect the key."""
        return {"api-key": self._api_key} if self._api_key and self.lists_other_names else {}

    def _lost(self, error: Exception) -> TransientError:
        """Return the error of a connection that failed, after counting the failure.

        The client has no timeout of its own, so its APITimeoutError is a lost connection too.
        """
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
        self._failed(refused=isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout)))
        message = self.without_key(f"{self.name}: {describe(cause or error, self._base_url)}")
        return TransientError(message) if tls_error(error) is None else TlsError(message)

    def _read(self, content: bytes) -> dict[str, Any]:
        try:
            reply = read_completion(scrubbed(content, self._api_key))
        except (ValueError, RecursionError) as error:
            raise self._unusable(f"the response is not JSON ({error})") from error
        if (reported := error_in_reply(reply)) is not None:
            raise _ReportedError(reported)
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise self._unusable(
                "the response has no choices, as the chat API of OpenAI defines them; check "
                "vlm.base_urls, which usually end in /v1"
            )
        if not isinstance(choices[0].get("message"), dict):
            raise self._unusable("the response's choice has no message")
        return reply

    def _unusable(self, what: str) -> TransientError:
        self._failed()
        return UnusableResponseError(f"{self.name}: {what}")

    def _error_of(self, response: httpx2.Response) -> ServerError:
        """Read an error response, without the key if the server repeats it."""
        content = scrubbed(response.content, self._api_key)
        return read_error(response.status_code, response.headers, content)

    def _refusal(self, body: Mapping[str, Any], error: ServerError) -> dict[str, Any]:
        """Return a refusal if a content filter blocked the request; else raise its error."""
        if error.kind != "content_filter":
            raise self._error(error)
        return _stand_in(body, "content_filter", error.message)

    def _error(self, error: ServerError) -> TransientError | CallFailedError:
        kind, message = error.kind, f"{self.name}: {error.status} {error.message}"
        if kind == "rate_limited":
            return TransientError(message, error.retry_after_s, True, error.status)
        learnable = error.status in (500, 501) and self.adjustments.may_avoid(error)
        if kind == "temporary" and not learnable:
            self._failed()
            return TransientError(message, error.retry_after_s, status=error.status)
        kind = "refused" if kind == "temporary" else kind
        message = error.message
        if error.advice:
            message = f"{message.rstrip('.')}: {error.advice}"
        failed = CallFailedError(error.status, message, kind)
        failed.error = error
        return failed

    def _failed(self, refused: bool = False) -> None:
        self._failures_in_row += 1
        beyond = self._failures_in_row - (1 if refused else FAILURES_BEFORE_COOLDOWN)
        if beyond >= 0:
            self._cooling_down_until = time.monotonic() + min(
                LONGEST_COOLDOWN_S, FIRST_COOLDOWN_S * 2.0 ** min(beyond, 10)
            )

    def without_key(self, text: str) -> str:
        return scrubbed(text.encode(errors="replace"), self._api_key).decode()


def _listed(found: Any) -> list[ListedModel]:
    """Return the models of a list, under each of their names; none if there are further pages."""
    if any(found.get(name) for name in ("has_more", "next_page_token", "nextPageToken")):
        return []
    return [
        ListedModel(str(name), str(model.get("root") or ""))
        for model in found["data"]
        for name in (model["id"], *(model.get("aliases") or ()))
    ]


def scrubbed(text: bytes, key: str | None) -> bytes:
    """Return `text` with the key replaced."""
    if key is None or len(key) < SHORTEST_SECRET:
        return text
    return text.replace(key.encode(), b"***")


def _stand_in(
    body: Mapping[str, Any], finish_reason: str, refusal: str | None = None
) -> dict[str, Any]:
    """Return a chat completion for a reply that was too large or that a content filter blocked."""
    message = {"role": "assistant", "content": None} | ({"refusal": refusal} if refusal else {})
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {"object": "chat.completion", "model": body.get("model"), "choices": [choice]}
