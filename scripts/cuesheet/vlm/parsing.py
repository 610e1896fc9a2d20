"""Reads the requested object from the message of a chat completion."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Reply = TypeVar("Reply", bound=BaseModel)

LARGEST_REPLY_CHARS = 1_000_000
MOST_MISSING_BRACES = 3
# Fields of a message that servers put the answer into if `content` is empty: reasoning parsers of
# vLLM and SGLang (reasoning_content), OpenRouter and newer vLLM (reasoning), Ollama (thinking).
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
_REASONING_DETAILS = "reasoning_details"  # a list of parts (OpenRouter)
# Types of content parts that hold thinking: Mistral, Anthropic, and gateways to them.
_THINKING_PARTS = ("thinking", "reasoning", "redacted_thinking")
# How model families mark thinking: XML-like tags (DeepSeek, Qwen, GLM, Seed), [THINK] (Magistral),
# triangles (Kimi), begin/end markers (OpenThinker, Command A), channels (gpt-oss, Gemma), unused
# tokens (MedGemma).
_TAG = r"(?:think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad|seed:think)"
_CHANNEL = r"<\|channel\|?>\s*{}\b[^<{{]*(?:<\|message\|>)?"
_OPENING = "|".join(
    (
        rf"<{_TAG}(?:\s[^<>]*)?>",
        r"\[THINK\]",
        "◁think▷",
        r"<\|begin_of_thought\|>",
        r"<\|START_THINKING\|>",
        r"<unused94>",
        _CHANNEL.format("(?:analysis|commentary|thought)"),
    )
)
_CLOSING = "|".join(
    (
        rf"</{_TAG}>",
        r"\[/THINK\]",
        "◁/think▷",
        r"<\|end_of_thought\|>",
        r"<\|END_THINKING\|>",
        r"<unused95>",
    )
)
# These end thinking too, but also occur after an answer.
_ENDING = "|".join((_CHANNEL.format("final"), r"<\|end\|>", r"<channel\|>"))
_MARK = re.compile(
    f"(?P<opening>{_OPENING})|(?P<closing>{_CLOSING})|(?P<ending>{_ENDING})", re.IGNORECASE
)
_STRUCTURE = re.compile(r'[{}"\\]')


class UnusableReplyError(ValueError):
    """A reply is invalid. The message is written for the model and for the log."""


def message_text(message: Mapping[str, Any]) -> tuple[str, str]:
    """Return the text of a chat completion's message, and the field it was found in.

    The content counts (a string or a list of parts) if it has an object or there is no tool call,
    then the arguments of a tool call, then an object that the server already parsed, then the
    reasoning. Both values are empty if none of them has text.
    """
    content, field = _content(message.get("content"))
    arguments = _tool_arguments(message.get("tool_calls"))
    if not arguments and (legacy := message.get("function_call")):
        arguments = _tool_arguments([{"function": legacy}])
    if content and ("{" in content or not arguments):
        return content, field
    if arguments:
        return arguments, "tool_calls"
    if isinstance(message.get("parsed"), Mapping):
        return json.dumps(message["parsed"]), "parsed"
    for field in REASONING_FIELDS:
        value = message.get(field)
        if isinstance(value, str) and value.strip():
            return value, field
    details = message.get(_REASONING_DETAILS)
    if isinstance(details, list) and (text := _content(details, thinking=True)[0]):
        return text, _REASONING_DETAILS
    return "", ""


def choice_text(choice: Mapping[str, Any]) -> tuple[str, str]:
    """Return the text of a choice's message and its field, as `message_text` does.

    Reasoning that was cut off is not an answer: the objects in it are drafts.
    """
    text, field = message_text(choice["message"])
    is_reasoning = field in (*REASONING_FIELDS, _REASONING_DETAILS)
    if is_reasoning and choice.get("finish_reason") == "length":
        return "", ""
    return text, field


def _content(content: Any, thinking: bool = False) -> tuple[str, str]:
    """Return the text of a message's content, and its form; with `thinking`, also parts of it."""
    field = "content"
    if isinstance(content, Mapping):  # already parsed by the server
        text = content.get("text")
        content = text if isinstance(text, str) else json.dumps(content)
    if isinstance(content, list):
        field = "content parts"
        texts = [
            _part_text(part) if isinstance(part, Mapping) else part
            for part in content
            if thinking or not (isinstance(part, Mapping) and part.get("type") in _THINKING_PARTS)
        ]
        content = "".join(text for text in texts if isinstance(text, str))
    return (content, field) if isinstance(content, str) and content.strip() else ("", "")


def _part_text(part: Mapping[str, Any]) -> Any:
    text = part.get("text")
    return text.get("value") if isinstance(text, Mapping) else text  # the Assistants API


def _tool_arguments(calls: Any) -> str:
    """Return the arguments of the first tool call that has an object, as text, or ""."""
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, Mapping) else None
        arguments = function.get("arguments") if isinstance(function, Mapping) else None
        if isinstance(arguments, Mapping):
            arguments = json.dumps(arguments)
        if isinstance(arguments, str) and "{" in arguments:
            return arguments
    return ""


def fields_with_text(message: Mapping[str, Any]) -> list[str]:
    """Return the names of a message's fields, other than its role, that hold text."""
    return [
        name
        for name, value in message.items()
        if name != "role" and isinstance(value, str) and value.strip()
    ]


def parse_reply(text: str | None, model: type[Reply], *, is_complete: bool = False) -> Reply:
    """Return the last JSON object in `text`, outside of any thinking, that fits `model`.

    Code fences and prose around the object are skipped. `is_complete`: the server says that the
    model ended the reply itself, so braces that are missing at its end are added. Time and memory
    grow with the length of the text. Raises UnusableReplyError.
    """
    if text is None or not text.strip():
        raise UnusableReplyError("the reply is empty")
    if len(text) > LARGEST_REPLY_CHARS:
        raise UnusableReplyError(
            f"the reply has {len(text)} characters; at most {LARGEST_REPLY_CHARS} are read"
        )
    cause: UnusableReplyError | None = None
    answer = without_thinking(text)
    if is_complete and (closed := _closed(answer, model)) is not None:
        return closed
    for candidate in reversed(list(balanced_objects(answer))):
        try:
            return _validated(candidate, model)
        except UnusableReplyError as error:
            cause = cause or error
    if (listed := _bare_list(answer, model)) is not None:
        return listed
    if cause is not None:
        raise cause
    if "{" in text:
        raise UnusableReplyError("the reply has no complete JSON object (is it cut off?)")
    raise UnusableReplyError("the reply has no JSON object")


def without_thinking(text: str) -> str:
    """Return what a model wrote outside of its thinking.

    Text before a closing mark that nothing opened is thinking too: chat templates often write the
    opening mark themselves. An opening mark that is never closed hides the rest. A closing mark at
    the very end, with an answer before it and no opening mark, is ignored.
    """
    spoken: list[str] = []
    position, thinking = 0, False
    for mark in _MARK.finditer(text):
        if not thinking:
            spoken.append(text[position : mark.start()])
        position = mark.end()
        if mark["opening"]:
            thinking = True
        elif thinking:
            thinking = False
        elif mark["closing"] and text[position:].strip():
            spoken.clear()
    if not thinking:
        spoken.append(text[position:])
    return "".join(spoken)


def balanced_objects(text: str) -> Iterator[str]:
    """Yield every outermost `{…}` of `text` in order, respecting JSON strings, in one pass.

    An object that is never closed ends the search, because what it contains are fragments.
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
        values = iter([_load(candidate)])
        cause = None
    except (ValueError, RecursionError) as error:
        values = _lenient_values(candidate)
        cause = UnusableReplyError(f"the JSON object cannot be read: {error}")
    for value in values:
        for form in _unwrapped(value):
            try:
                return model.model_validate(form)
            except ValidationError as error:
                cause = cause or UnusableReplyError(_describe(error))
    assert cause is not None
    raise cause


def _load(text: str) -> Any:
    # Not strict: with `maxLength`, vLLM's grammar allows raw control characters in strings.
    return json.loads(text, strict=False)


def _lenient_values(text: str) -> Iterator[Any]:
    # Only malformed replies need YAML, so jobs do not import it when they start.
    from cuesheet.vlm.lenient_json import lenient_values

    return lenient_values(text)


def _unwrapped(value: Any) -> Iterator[Any]:
    """Yield the object itself, and what is in it if it is only a wrapper or an echoed schema."""
    yield value
    if isinstance(value, dict):
        if isinstance(value.get("properties"), dict):
            yield value["properties"]
        if len(value) == 1 and isinstance(inner := next(iter(value.values())), dict):
            yield inner


def _closed(text: str, model: type[Reply]) -> Reply | None:
    """Read an object that lacks braces at its end, if its last value is complete; else None."""
    text = text.rstrip("` \n\r\t")
    if not text.endswith(('"', "}", "]", "true", "false", "null")):
        return None
    for missing in range(1, MOST_MISSING_BRACES + 1):
        closed = text + "}" * missing
        for candidate in balanced_objects(closed):
            if closed.endswith(candidate):
                try:
                    return model.model_validate(_load(candidate))
                except (ValueError, RecursionError):
                    return None
    return None


def _bare_list(text: str, model: type[Reply]) -> Reply | None:
    """Read a list of objects for a reply that has only one field, a list; else return None."""
    if len(model.model_fields) != 1:
        return None
    begin, end = text.find("["), text.rfind("]")
    if begin < 0 or end < begin or "{" in text[:begin] or "}" in text[end:]:
        return None
    for value in _lenient_values(text[begin : end + 1]):
        try:
            return model.model_validate(dict.fromkeys(model.model_fields, value))
        except ValidationError:
            continue
    return None


def _describe(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False)
    lines = [
        f"{'.'.join(str(step) for step in problem['loc']) or 'object'}: {problem['msg']} "
        f"(got {repr(problem['input'])[:80]})"
        for problem in problems[:5]
    ]
    if len(problems) > 5:
        lines.append(f"and {len(problems) - 5} more")
    return "; ".join(lines)
