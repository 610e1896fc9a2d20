"""Reads chat completions in the forms that servers send them, as the OpenAI API defines them.

Handled: events of a stream although none was requested, completions that a gateway wrapped, chunks
(`delta`) and text completions (`text`) instead of a message, a blocked choice without message
(Gemini), other names of finish reasons, numbers that are not finite, and bytes that are not UTF-8.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

# In lower case: Gemini, Anthropic, Mistral.
_FINISH_REASONS = {
    **dict.fromkeys(("max_tokens", "max_output_tokens", "model_length"), "length"),
    **dict.fromkeys(
        ("safety", "recitation", "blocklist", "prohibited_content", "spii", "refusal"),
        "content_filter",
    ),
    **dict.fromkeys(("stop", "length"), None),
}


def read_completion(content: bytes) -> Any:
    """Return a chat completion; JSON of another kind is returned as it is.

    Raises ValueError, RecursionError.
    """
    encoding = json.detect_encoding(content)
    text = content.decode(encoding, errors="replace").strip(" \t\r\n\0\ufeff")
    if text.startswith(("data:", "event:", ":")):
        reply = _joined(list(_events(text)))
    elif text.startswith("<"):
        raise ValueError("it is an HTML page; check vlm.base_urls, which usually end in /v1")
    elif not text:
        raise ValueError("it is empty; check vlm.base_urls, which usually end in /v1")
    else:
        # Servers write statistics such as Infinity tokens per second; the answer itself is text.
        reply = _unwrapped(_load(text))
    choices = reply.get("choices") if isinstance(reply, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            _normalize(choice)
    return reply


def _load(text: str) -> Any:
    """Read JSON with None for NaN and infinity. Raises ValueError, RecursionError."""

    def finite(number: str) -> float | None:
        return float(number) if math.isfinite(float(number)) else None

    return json.loads(text, strict=False, parse_constant=finite, parse_float=finite)


def _unwrapped(reply: Any) -> Any:
    """Return a completion that a gateway put into a list or under another name."""
    if isinstance(reply, list) and len(reply) == 1:
        reply = reply[0]
    if not isinstance(reply, dict) or "choices" in reply or reply.get("error"):
        return reply
    inner = (item for item in reply.values() if isinstance(item, dict) and item.get("choices"))
    return next(inner, reply)


def _events(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if data and data != "[DONE]":
            event = _load(data)
            if isinstance(event, dict):
                yield event


def _joined(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the events of a stream as one completion; the last one if none has a choice."""
    texts: dict[str, str] = {}
    reply: dict[str, Any] = {}
    reason = None
    for event in events:
        reply |= {name: value for name, value in event.items() if value is not None}
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            continue
        reason = choice.get("finish_reason") or reason
        delta = choice.get("delta") or choice.get("message")
        for name, value in delta.items() if isinstance(delta, Mapping) else ():
            if isinstance(value, str) and name != "role":
                texts[name] = texts.get(name, "") + value
    if "error" in reply:  # what was written before it is not a reply
        return {"error": reply["error"]}
    if not any("choices" in event for event in events):
        return reply
    message = {"role": "assistant", "content": None, **texts}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {**reply, "object": "chat.completion", "choices": [choice]}


def _normalize(choice: dict[str, Any]) -> None:
    """Give a choice a message and a finish reason as the OpenAI API names them."""
    reason = choice.get("finish_reason")
    if isinstance(reason, str):
        name = reason.lower()
        blocked = name.startswith("content_filter")
        known = "content_filter" if blocked else _FINISH_REASONS.get(name, reason)
        choice["finish_reason"] = known or name
    if isinstance(choice.get("message"), dict):
        return
    if isinstance(choice.get("delta"), dict):
        choice["message"] = choice["delta"]
    elif isinstance(choice.get("text"), str):
        choice["message"] = {"role": "assistant", "content": choice["text"]}
    elif choice.get("finish_reason") == "content_filter":
        refusal = f"finish reason {reason}" if reason != "content_filter" else None
        choice["message"] = {"role": "assistant", "content": None, "refusal": refusal}
