"""From the text that a model wrote to the object that was asked for."""

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Reply = TypeVar("Reply", bound=BaseModel)

LARGEST_REPLY_CHARS = 1_000_000
_THINK_TAG = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_STRUCTURE = re.compile(r'[{}"\\]')


class UnusableReplyError(ValueError):
    """Says, in words fit for the model and for the log, why a reply cannot be used."""


def parse_reply(text: str | None, model: type[Reply]) -> Reply:
    """Return the first JSON object in `text` as a `model`.

    Thinking blocks, code fences and prose around the object are skipped; where several objects
    stand in a row the first that fits counts. Time and memory grow with the length of the text.
    Raises UnusableReplyError.
    """
    if text is None or not text.strip():
        raise UnusableReplyError("the reply is empty")
    if len(text) > LARGEST_REPLY_CHARS:
        raise UnusableReplyError(
            f"the reply has {len(text)} characters; at most {LARGEST_REPLY_CHARS} are read"
        )
    first_cause: UnusableReplyError | None = None
    for spoken in without_thinking(text):
        for candidate in balanced_objects(spoken):
            try:
                return _validated(candidate, model)
            except UnusableReplyError as error:
                first_cause = first_cause or error
        if first_cause is not None:
            raise first_cause
    if "{" in text:
        raise UnusableReplyError("the reply holds no complete JSON object (is it cut off?)")
    raise UnusableReplyError("the reply holds no JSON object")


def without_thinking(text: str) -> list[str]:
    """Return the parts of `text` that are not thought, the likeliest answer first.

    `<think>…</think>` blocks are dropped. What precedes a closing tag that nothing opened is
    thought too, unless nothing useful follows it; an opening tag that is never closed hides the
    rest.
    """
    spoken: list[str] = []
    kept: list[str] = []
    position, depth = 0, 0
    for tag in _THINK_TAG.finditer(text):
        closing = bool(tag.group(1))
        if depth == 0:
            kept.append(text[position : tag.start()])
        if not closing:
            depth = 1
        elif depth:
            depth = 0
        else:
            spoken.append("".join(kept))
            kept = []
        position = tag.end()
    if depth == 0:
        kept.append(text[position:])
    spoken.append("".join(kept))
    return spoken[::-1]


def balanced_objects(text: str) -> Iterator[str]:
    """Yield every outermost `{…}` of `text` in order, minding JSON strings, in one pass.

    An object that is never closed ends the search: what it holds are parts, not answers.
    """
    start, depth, in_string, skip_at = 0, 0, False, -1
    for match in _STRUCTURE.finditer(text):
        position, mark = match.start(), match.group()
        if position == skip_at or (depth == 0 and mark != "{"):
            continue
        if mark == "\\":
            skip_at = position + 1
        elif mark == '"':
            in_string = not in_string
        elif in_string:
            continue
        elif mark == "{":
            if depth == 0:
                start = position
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                yield text[start : position + 1]


def _validated(candidate: str, model: type[Reply]) -> Reply:
    try:
        value = load_finite(candidate)
    except (ValueError, RecursionError) as error:
        raise UnusableReplyError(f"the JSON object cannot be read: {error}") from error
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UnusableReplyError(_in_words(error)) from error


def _in_words(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False)
    lines = [
        f"{'.'.join(str(step) for step in fault['loc']) or 'object'}: {fault['msg']} "
        f"(got {repr(fault['input'])[:80]})"
        for fault in faults[:5]
    ]
    if len(faults) > 5:
        lines.append(f"and {len(faults) - 5} more")
    return "; ".join(lines)


def load_finite(text: str | bytes) -> Any:
    """Read JSON, in which NaN and infinity are no numbers. Raises ValueError, RecursionError."""
    # Not strict: with a `maxLength`, vLLM's grammar lets raw control characters into strings.
    return json.loads(text, strict=False, parse_constant=_refuse_constant, parse_float=_finite)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is not a finite number")
    return value
