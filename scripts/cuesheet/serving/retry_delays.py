"""The delay that an error response asks for, in its headers, its fields or its message."""

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

_DURATION = (
    r"((?:\d+(?:\.\d+)?\s*"
    r"(?:milliseconds?|ms|hours?|h|minutes?|mins?|m(?![a-z])|seconds?|secs?|s(?![a-z]))\s*)+)"
)
_DELAY = re.compile(
    rf"(?:retry|again|wait|reset)s?(?:\s+(?:in|after|for|at least))*[:\s]+{_DURATION}",
    re.IGNORECASE,
)
_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli|h|m|s)[a-z]*", re.IGNORECASE)
_FACTORS = {"ms": 0.001, "milli": 0.001, "h": 3600.0, "m": 60.0, "s": 1.0}
# `estimated_time`: until a model is loaded, of Hugging Face's inference API.
_DELAY_KEYS = frozenset(
    {"retrydelay", "retry_after", "retryafter", "retry_after_seconds", "estimated_time"}
)


def header_delay_s(headers: Mapping[str, str], status: int) -> float | None:
    """Return the seconds of Retry-After (a number, a duration or an HTTP date) or retry-after-ms.

    Without them, a response with status 429 is read for the time at which its limit is reset.
    """
    with contextlib.suppress(KeyError, ValueError):
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    value = headers.get("retry-after")
    if value is None:
        return _reset_delay_s(headers) if status == 429 else None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return _seconds(value)


def delay_in(error: dict[str, Any], message: Any) -> float | None:
    """Return the delay that the body of an error names, in a field or in its message."""
    for name, value in _fields(error):
        if name.lower() in _DELAY_KEYS:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return max(0.0, float(value))
            if isinstance(value, str) and (delay := _seconds(value)) is not None:
                return delay
    if (delay := said_delay_s(message)) is not None:
        return delay
    names = {name.lower(): str(value) for name, value in _fields(error)}
    return _reset_delay_s(names)  # OpenRouter repeats the provider's headers in the body


def _reset_delay_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the exhausted limits of `x-ratelimit-reset…` headers are reset.

    Values are durations (OpenAI, Groq), times (Anthropic), or seconds or milliseconds since 1970
    (OpenRouter).
    """
    delays = []
    for name, value in headers.items():
        if "ratelimit" not in name.lower() or "reset" not in name.lower():
            continue
        remaining = headers.get(name.lower().replace("reset", "remaining"))
        delay = _until(value)
        if remaining in (None, "0") and delay is not None:
            delays.append(delay)
    return max(delays, default=None)


def _until(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        try:
            number = datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            return _seconds(value)
    if number > 1e11:
        number /= 1000
    return max(0.0, number - time.time() if number > 1e9 else number)


def _fields(value: Any, depth: int = 4) -> Iterator[tuple[str, Any]]:
    if depth and isinstance(value, dict):
        for name, item in value.items():
            yield str(name), item
            yield from _fields(item, depth - 1)
    elif depth and isinstance(value, list):
        for item in value:
            yield from _fields(item, depth - 1)


def said_delay_s(message: Any) -> float | None:
    match = _DELAY.search(message) if isinstance(message, str) else None
    return _seconds(match.group(1)) if match else None


def _seconds(text: str) -> float | None:
    """Return the seconds of a duration such as `37s`, `1m30.5s` or `20 ms`."""
    found = _UNIT.findall(text)
    return sum(float(number) * _FACTORS[unit.lower()] for number, unit in found) if found else None
