"""Error responses of model servers: message, kind, requested delay, and the setting that helps.

Servers report errors in many forms: an object or a list of objects, under `error`, `detail` or at
the top level, with HTTP status 200 or as an HTML page of a proxy. `read_error` and `error_in_reply`
read all of them into a `ServerError`.
"""

import html
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

MAX_MESSAGE_CHARS = 2000
# Temporary by nature: request timeout, too early, too many requests.
RETRIED_STATUSES = frozenset({408, 425, 429})

_CONTEXT = re.compile(
    r"context.?(?:length|window|size|limit)|max(?:imum)?.model.len|prompt.is.too.long|longer.than.the"
    r"|context_length_exceeded|exceed_context_size|input.*too long|maximum.*tokens.*exceed"
    r"|`?inputs`? (?:tokens )?\+ `?max_new_tokens",
    re.IGNORECASE,
)
_QUOTA = re.compile(
    r"insufficient.?(?:quota|credits?|balance|funds)|exceeded your current quota"
    r"|credit balance is too low|billing.?(?:hard.?)?limit|out of credits|more credits"
    r"|requires? payment|exceeded your (?:monthly|included)",
    re.IGNORECASE,
)
_PAYLOAD = re.compile(
    r"(?:payload|entity|request|body)(?: content| size| body)? (?:is )?too large"
    r"|length limit exceeded|request_too_large|image exceeds"
    r"|exceeds? the (?:maximum|limit).{0,40}(?:size|bytes|MB)",
    re.IGNORECASE,
)
_IMAGE_LIMIT = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"set image=(\d+)",  # --limit-mm-per-prompt of vLLM until 0.8
        r"at most (\d+|one|a single) (?:images?\b|image\(s\))",
        r"(?:maximum|max|limit|up to|more than|only)\D{0,40}?(\d+) images?\b",
        r"images?\b.{0,60}?(?:maximum|max|limit|at most|up to)\D{0,20}?(\d+)",
        r"(?:only|single|one) (?:one |a single |single )?image\b",
        r"multiple images?|too many images?",
    )
)
_NO_IMAGES = re.compile(
    r"image input is not supported|(?:does not|doesn't|not) support (?:image|vision|multimodal)"
    r"|support image input|unsupported content part type|is not a (?:vision|multimodal) model"
    r"|missing data required for image input",
    re.IGNORECASE,
)
_CONTENT_FILTER = re.compile(
    r"content_filter|content_policy|content management policy|ResponsibleAIPolicy"
    r"|PROHIBITED_CONTENT|flagged by",
    re.IGNORECASE,
)
STRUCTURED_OUTPUT = re.compile(
    r"response_?format|json_?schema|structured.?output|guided|grammar|response_?schema"
    r"|too many states|json schema|schema (?:is |contains |has |exceeds )|unsupported keyword"
    r"|additionalProperties|compile the regex",
    re.IGNORECASE,
)
_DURATION = (
    r"((?:\d+(?:\.\d+)?\s*"
    r"(?:milliseconds?|ms|hours?|h|minutes?|mins?|m(?![a-z])|seconds?|secs?|s(?![a-z]))\s*)+)"
)
_DELAY = re.compile(
    rf"(?:retry|again|wait|reset)s?(?:\s+(?:in|after|for|at least))*[:\s]+{_DURATION}",
    re.IGNORECASE,
)
_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli[a-z]*|h[a-z]*|m[a-z]*|s[a-z]*)", re.IGNORECASE)
# `estimated_time`: until a model is loaded, of Hugging Face's inference API.
_DELAY_KEYS = frozenset(
    {"retrydelay", "retry_after", "retryafter", "retry_after_seconds", "estimated_time"}
)

_ADVICE = {
    "quota_exhausted": (
        "the quota or credit of this account is exhausted, so the run ends; responses received so "
        "far are cached. Add credit or wait for the quota to reset, then run the same command"
    ),
    "context_length_exceeded": (
        "the request does not fit the model's context; lower plan.frames.max_frames_per_call, "
        "tile_width or vlm.sampling.max_tokens, or serve the model with a longer context"
    ),
    "payload_too_large": (
        "the request is too large for the server or a proxy in front of it; lower "
        "plan.frames.tile_width or plan.frames.max_frames_per_call, set vlm.images.format to jpeg, "
        "or raise the body limit of the proxy (client_max_body_size in nginx)"
    ),
    "images_not_supported": (
        "this model or server accepts no images; name a vision-language model in vlm.model, or "
        "start the server with its vision part (--mmproj of llama.cpp)"
    ),
    "too_many_images": (
        "the server accepts fewer images per request; set plan.frames.max_frames_per_call to at "
        "most plan.frames.per_sheet times that number, or raise the server's limit "
        "(--limit-mm-per-prompt of vLLM)"
    ),
}


@dataclass(frozen=True)
class ServerError:
    """What a server reported. `code` and `param` are empty if the server named none."""

    status: int
    message: str
    code: str = ""
    param: str = ""
    retry_after_s: float | None = None

    @property
    def kind(self) -> str:
        """A key of `_ADVICE`, or content_filter, rate_limited, temporary or refused."""
        said = f"{self.code} {self.message}"
        if self._quota_is_exhausted(said):
            return "quota_exhausted"
        if self.status == 429:
            return "rate_limited"
        if self.status < 500 and _CONTEXT.search(said):
            return "context_length_exceeded"
        if self.status == 413 or (self.status < 500 and _PAYLOAD.search(said)):
            return "payload_too_large"
        if _NO_IMAGES.search(said):
            return "images_not_supported"
        if self.status < 500 and any(pattern.search(said) for pattern in _IMAGE_LIMIT):
            return "too_many_images"
        if self.status < 500 and _CONTENT_FILTER.search(said):
            return "content_filter"
        if self.status in RETRIED_STATUSES or self.status >= 500:
            return "temporary"
        return "refused"

    @property
    def advice(self) -> str:
        """Advice for the user; empty if there is nothing to add to the server's message."""
        return _ADVICE.get(self.kind, "")

    @property
    def max_images(self) -> int | None:
        """The number of images per request that the message names."""
        for pattern in _IMAGE_LIMIT:
            if match := pattern.search(self.message):
                if match.groups() and match.group(1).isdigit():
                    return int(match.group(1))
                return None if "too many" in match.group().lower() else 1
        return None

    def _quota_is_exhausted(self, said: str) -> bool:
        """Rate limits that name a delay (Gemini words them as quota too) are not exhausted."""
        if self.status == 402 or "insufficient_quota" in self.code.lower():
            return True
        return self.status < 500 and self.retry_after_s is None and bool(_QUOTA.search(said))


def read_error(status: int, headers: Mapping[str, str], content: bytes) -> ServerError:
    """Read an error response."""
    text = content.decode(errors="replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if found is None:
        message = _html_message(text) if "<" in text[:200] else text
        delay_s = _header_delay_s(headers)
        return ServerError(
            status,
            _clean(message),
            retry_after_s=_said_delay_s(message) if delay_s is None else delay_s,
        )
    return _from_json(status, found, _header_delay_s(headers))


def error_in_reply(reply: Any) -> ServerError | None:
    """Return the error in a response with HTTP status 200; None if there is none.

    An error code of three digits counts as the status, any other error as 400.
    """
    if isinstance(reply, list):
        reply = reply[0] if reply and isinstance(reply[0], dict) else None
    if not isinstance(reply, dict):
        return None
    choices = reply.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        # OpenRouter reports an error of the provider inside the choice.
        found = choices[0].get("error")
        message = choices[0].get("message")
        if not found or (isinstance(message, dict) and message.get("content")):
            return None
        reply = {"error": found}
    elif not (reply.get("error") or reply.get("object") == "error" or "detail" in reply):
        return None
    error = _from_json(400, reply, None)
    status = int(error.code) if re.fullmatch(r"[45]\d\d", error.code) else 400
    return ServerError(status, error.message, error.code, error.param, error.retry_after_s)


def _from_json(status: int, found: Any, delay_s: float | None) -> ServerError:
    if isinstance(found, list):
        found = found[0] if found else {}
    inner = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(inner, list):
        inner = inner[0] if inner else {}
    if not isinstance(inner, dict):
        if delay_s is None:
            delay_s = _delay_in(found, inner) if isinstance(found, dict) else _said_delay_s(inner)
        return ServerError(status, _clean(str(inner)), retry_after_s=delay_s)
    message = inner.get("message") or inner.get("detail") or inner.get("error") or inner
    if isinstance(message, list):  # FastAPI: one entry per invalid field
        message = "; ".join(_field_error(item) for item in message)
    if not isinstance(message, str):
        message = json.dumps(message, ensure_ascii=False)
    metadata = inner.get("metadata")
    if isinstance(metadata, dict) and metadata.get("raw"):  # OpenRouter: the provider's own words
        message = f"{message}: {metadata['raw']}"
    code = inner.get("code") or inner.get("status") or inner.get("type") or ""
    if isinstance(inner.get("status"), str) and str(code).isdigit():
        code = inner["status"] if status != 400 else code
    param = inner.get("param")
    return ServerError(
        status,
        _clean(message),
        str(code),
        param if isinstance(param, str) else "",
        delay_s if delay_s is not None else _delay_in(inner, message),
    )


def _field_error(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    return f"{'.'.join(map(str, item.get('loc') or []))}: {item.get('msg')}"


def _html_message(text: str) -> str:
    for tag in ("title", "h1", "p"):
        if match := re.search(rf"<{tag}[^>]*>(.*?)</{tag}>", text, re.IGNORECASE | re.DOTALL):
            words = html.unescape(re.sub(r"<[^>]+>", " ", match.group(1)))
            if words.strip():
                return f"an HTML page: {' '.join(words.split())}"
    return text


def _clean(message: str) -> str:
    return (message.strip() or "(no message)")[:MAX_MESSAGE_CHARS]


def _header_delay_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of Retry-After (a number or an HTTP date) or of retry-after-ms."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _delay_in(error: dict[str, Any], message: Any) -> float | None:
    """Return the delay that the body of an error names, in a field or in its message."""
    for name, value in _fields(error):
        if name.lower() in _DELAY_KEYS:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return max(0.0, float(value))
            if isinstance(value, str) and (delay := _seconds(value)) is not None:
                return delay
    return _said_delay_s(message)


def _fields(value: Any, depth: int = 4) -> Iterator[tuple[str, Any]]:
    if depth and isinstance(value, dict):
        for name, item in value.items():
            yield str(name), item
            yield from _fields(item, depth - 1)
    elif depth and isinstance(value, list):
        for item in value:
            yield from _fields(item, depth - 1)


def _said_delay_s(message: Any) -> float | None:
    match = _DELAY.search(message) if isinstance(message, str) else None
    return _seconds(match.group(1)) if match else None


def _seconds(text: str) -> float | None:
    """Return the seconds of a duration such as `37s`, `1m30.5s` or `20 ms`."""
    total, found = 0.0, False
    for number, unit in _UNIT.findall(text):
        unit = unit.lower()
        factor = (
            0.001 if unit.startswith(("ms", "milli")) else {"h": 3600, "m": 60, "s": 1}[unit[0]]
        )
        total, found = total + float(number) * factor, True
    return total if found else None
