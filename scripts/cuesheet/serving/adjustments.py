"""Changes to requests that a server needs: parameters it rejects, the reply schema in the prompt.

A server that rejects a parameter says so in its error response. `Adjustments.learn` reads that
response, `Adjustments.apply` changes a request accordingly, and `describe` names the changes for
the terminal and the provenance of a response.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cuesheet.serving.server_errors import STRUCTURED_OUTPUT, ServerError

# Required fields of a chat request.
_REQUIRED = frozenset({"model", "messages", "response_format"})
_LEARNED_STATUSES = frozenset({400, 403, 404, 405, 415, 422, 500, 501})
_REJECTED = re.compile(
    r"unsupported|not (?:currently )?support|unknown|unrecogni[sz]ed|unexpected|disabled|deprecated"
    r"|extra (?:input|field)|extra_forbidden|not permitted|not allowed|cannot|only the default"
    r"|does(?:n't| not)|invalid (?:field|parameter|argument)|no such|not available|incompatible"
    r"|ignored|forbidden|trust-request|rejected|refused",
    re.IGNORECASE,
)
# A value that is rejected. The token budget keeps its meaning and is never omitted for that.
_OTHER_VALUE = re.compile(
    r"must be|may only|can only|should be|or unset|out of range|(?:above|below|greater|less) ",
    re.IGNORECASE,
)
_BUDGETS = frozenset({"max_tokens", "max_completion_tokens"})
# Chat templates without a system role: Gemma 2, Mistral 7B, LLaVA, and Gemma on Google's API.
_NO_SYSTEM = re.compile(
    r"system (?:role|message|prompt|instruction)s?\b.{0,30}(?:not|n't|unsupported)"
    r"|(?:not|n't) support.{0,20}\bsystem\b|roles must alternate"
    r"|developer instruction is not enabled",
    re.IGNORECASE,
)
_ONLY_ONE = re.compile(r"\bboth\b|only one|together|either", re.IGNORECASE)
_NOT_SUPPORTED = re.compile(r"unsupported|not (?:currently )?support|unknown|max_completion_tokens")


@dataclass(frozen=True)
class Adjustments:
    """The differences between requests to one server and those that jobs send."""

    omitted: frozenset[str] = frozenset()
    max_completion_tokens: bool = False  # sent in place of max_tokens
    schema_in_prompt: bool = False
    system_in_question: bool = False  # the system message is put before the first question

    def __or__(self, other: "Adjustments") -> "Adjustments":
        return Adjustments(
            self.omitted | other.omitted,
            self.max_completion_tokens or other.max_completion_tokens,
            self.schema_in_prompt or other.schema_in_prompt,
            self.system_in_question or other.system_in_question,
        )

    def apply(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the request in the form that this server accepts."""
        if self.schema_in_prompt and body.get("response_format") is not None:
            body = with_schema_in_prompt(body)
        if self.system_in_question:
            body = without_system_message(body)
        if self.max_completion_tokens and "max_tokens" in body:
            body = dict(body)
            body["max_completion_tokens"] = body.pop("max_tokens")
        if self.omitted & set(body):
            body = {name: value for name, value in body.items() if name not in self.omitted}
        return body

    def learn(self, error: ServerError, body: Mapping[str, Any]) -> "Adjustments | None":
        """Return the adjustments after the rejection of `body`; None if it cannot be avoided."""
        if error.status not in _LEARNED_STATUSES or error.kind not in ("refused", "temporary"):
            return None
        if not self.system_in_question and _NO_SYSTEM.search(error.message):
            return replace(self, system_in_question=True)
        given = {name for name, value in body.items() if value is not None}
        named = self._named(error, given - _REQUIRED)
        if "max_tokens" in named and _NOT_SUPPORTED.search(error.message):
            return replace(self, max_completion_tokens=True)
        if {"temperature", "top_p"} <= named and _ONLY_ONE.search(error.message):
            return replace(self, omitted=self.omitted | {"top_p"})
        if named and error.status < 500 and _REJECTED.search(f"{error.code} {error.message}"):
            return replace(self, omitted=self.omitted | named)
        if named - _BUDGETS and error.status < 500 and _OTHER_VALUE.search(error.message):
            return replace(self, omitted=self.omitted | named - _BUDGETS)
        said = f"{error.param} {error.code} {error.message}"
        if "response_format" in given and STRUCTURED_OUTPUT.search(said):
            return replace(self, schema_in_prompt=True)
        return None

    def may_avoid(self, error: ServerError) -> bool:
        """Tell whether an error that looks temporary is a rejection that `learn` can avoid."""
        if not self.schema_in_prompt and STRUCTURED_OUTPUT.search(error.message):
            return True
        return not self.system_in_question and bool(_NO_SYSTEM.search(error.message))

    @staticmethod
    def _named(error: ServerError, names: set[str]) -> set[str]:
        """Return which of the parameters an error is about."""
        if error.param in names:
            return {error.param}
        return {
            name
            for name in names
            # `body.`: FastAPI, which names fields by their place.
            if re.search(rf"(?:(?<![\w.])|\bbody\.){re.escape(name)}(?!\w)", error.message)
        }

    def describe(self, body: Mapping[str, Any] | None = None) -> list[str]:
        """Describe the changes; with `body`, only those that concern it."""
        changes = [
            f"{name} is omitted"
            for name in sorted(self.omitted)
            if body is None or body.get(name) is not None
        ]
        if self.max_completion_tokens and (body is None or "max_tokens" in body):
            changes.append("max_tokens is sent as max_completion_tokens")
        if self.schema_in_prompt and (body is None or body.get("response_format") is not None):
            changes.append("the reply schema is sent in the prompt instead of response_format")
        if self.system_in_question:
            changes.append("the system message is sent as a part of the question")
        return changes


def without_system_message(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the request with the text of the system message before the first question."""
    messages = list(body["messages"])
    if len(messages) < 2 or messages[0].get("role") != "system":
        return body
    system, first = messages[0]["content"], messages[1]
    content = first["content"]
    if isinstance(content, list):
        content = [{"type": "text", "text": system}, *content]
    else:
        content = f"{system}\n\n{content}"
    return {**body, "messages": [{**first, "content": content}, *messages[2:]]}


def with_schema_in_prompt(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request without `response_format`, its schema appended to the last question."""
    plain = {name: value for name, value in body.items() if name != "response_format"}
    form = body["response_format"]
    schema = form.get("json_schema", {}).get("schema") if isinstance(form, dict) else None
    order = "Reply with one JSON object only, no other text."
    if schema is not None:
        text = json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
        # Only the schema itself begins with `{"`, not the schemas nested in it.
        text = text[:1] + text[1:].replace('{"', '{ "')
        order = f"{order[:-1]}. It must follow this schema: {text}"
    messages = list(body["messages"])
    asking = [index for index, message in enumerate(messages) if message.get("role") == "user"]
    for index in asking[-1:]:
        content = messages[index].get("content")
        if not isinstance(content, list):
            content = f"{content}\n\n{order}"
        elif content and content[-1].get("type") == "text":
            text = f"{content[-1]['text']}\n\n{order}"
            content = [*content[:-1], {"type": "text", "text": text}]
        else:
            content = [*content, {"type": "text", "text": order}]
        messages[index] = {**messages[index], "content": content}
    return {**plain, "messages": messages}
