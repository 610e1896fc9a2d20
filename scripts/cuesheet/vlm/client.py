"""Requests of the stage scripts to the vision-language model: typed replies, one record per call.

    async with Vlm.connect(server_file, settings, group="demo/000003", prompts=hashes) as vlm:
        answer = await vlm.ask(name="segment", prompt="plan_segment", reply=Segmentation,
                               system=system, media=[Image(jpeg, "image/jpeg")], text=question)

Content is always in the order system text, media, question, so that calls about the same frames
share a prefix in the server's cache. The gateway retries lost connections, caches responses and
chooses a server; this module does what depends on the type of the reply.
"""

import base64
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from cuesheet.errors import CuesheetError, SurroundingsError
from cuesheet.vlm.errors import NoRoomError, VlmError, error_of
from cuesheet.vlm.gateway_client import GatewayClient, wait_until_ready
from cuesheet.vlm.parsing import (
    UnusableReplyError,
    choice_text,
    fields_with_text,
    parse_reply,
)
from cuesheet.vlm.structured_output import response_format

Reply = TypeVar("Reply", bound=BaseModel)

# Maximum length of an invalid reply that is sent back to the model.
SHOWN_REPLY_CHARS = 4000
# Maximum length of an invalid reply in the record of its call.
RECORDED_REPLY_CHARS = 500
# What a finish reason other than "stop" adds to the message about an invalid reply.
_FINISH_REASONS = {
    "length": "the reply was cut off at the token limit, vlm.sampling.max_tokens",
    "reply_too_large": "the reply was too large",
    "content_filter": "the server's content filter withheld the reply",
}


@dataclass(frozen=True)
class Media:
    """Encoded media; `url` (such as `file:///…`), if given, is sent instead of the bytes."""

    data: bytes
    mime: str
    url: str | None = None

    def part(self) -> dict[str, Any]:
        """Return the part of a message that holds it."""
        kind = f"{self.mime.partition('/')[0]}_url"
        url = self.url or f"data:{self.mime};base64,{base64.b64encode(self.data).decode()}"
        return {"type": kind, kind: {"url": url}}


@dataclass(frozen=True)
class Image(Media):
    """An encoded image."""

    mime: str = "image/jpeg"


@dataclass(frozen=True)
class Clip(Media):
    """An encoded H.264 clip; the server should sample `fps` frames per second, if given."""

    mime: str = "video/mp4"
    fps: float | None = None


@dataclass(frozen=True)
class Answer(Generic[Reply]):
    """A typed reply (None if invalid), the text of the reply, and the record of the call."""

    value: Reply | None
    text: str
    call: dict[str, Any]


@dataclass
class Vlm:
    """A stage's connection to the model for one episode."""

    link: GatewayClient
    requested_model: str | None  # None: the model that the server has
    sampling: Mapping[str, Any]
    group: str
    prompts: Mapping[str, str]
    model: str | None = None
    stage: str = ""
    _calls: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        server_file: Path | str,
        settings: Mapping[str, Any],
        group: str,
        prompts: Mapping[str, str],
        stage: str = "",
    ) -> "AsyncIterator[Vlm]":
        """Wait for the run's gateway. Raises CuesheetError at once if the run's server failed.

        `settings` has the model and the sampling parameters; those that are None are not sent.
        `group` ("dataset/episode") keeps calls on one replica; `prompts` maps the names of prompt
        files to their sha256; `stage` is the stage to which the time of the calls is attributed.
        """
        sampling = {name: value for name, value in settings.items() if value is not None}
        model = sampling.pop("model", None)
        link = await wait_until_ready(server_file)
        vlm = cls(link, model, sampling, group, dict(prompts), model, stage)
        try:
            yield vlm
        except CuesheetError as error:
            await vlm._invalidate(error)
            raise

    async def _invalidate(self, error: CuesheetError) -> None:
        """Have the next run request the replies again that made this stage fail.

        These are the invalid ones. Valid replies are kept if the failure has another cause: a
        request that the server rejected, or the surroundings. Only if there is no other cause
        are the valid replies themselves at fault.
        """
        outcomes = {call["outcome"] for call in self.calls}
        elsewhere = isinstance(error, SurroundingsError) or outcomes & {"invalid", "failed"}
        chosen = [call for call in self.calls if call["outcome"] == "invalid" or not elsewhere]
        keys = [call[name] for call in chosen for name in ("key", "correction_key") if call[name]]
        if keys:
            with contextlib.suppress(CuesheetError):
                await self.link.post("/responses/invalidate", {"keys": keys}, {})

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The records of the completed calls, in the order in which they were made."""
        return [call for call in self._calls if call["outcome"] is not None]

    async def ask(
        self,
        *,
        name: str,
        prompt: str,
        reply: type[Reply],
        system: str,
        media: Sequence[Media],
        text: str,
        needs_media: bool = True,
        sampling: Mapping[str, Any] | None = None,
    ) -> Answer[Reply]:
        """Send one request and return its typed reply and record.

        `sampling` overrides parameters of the settings for this request and is recorded. An
        invalid reply is sent back to the model once, with the reason; if the second reply is
        invalid too, `value` is None. Raises VlmError if there is no reply at all, or, before
        anything is sent, if the request needs media and has none.
        """
        if needs_media and not media:
            raise VlmError(
                f"call {name!r} ({self.group}) needs frames but has none; nothing was sent"
            )
        if prompt not in self.prompts:
            raise VlmError(
                f"call {name!r} names the prompt {prompt!r}, which is not a prompt file of this "
                f"stage ({', '.join(sorted(self.prompts))})"
            )
        call = _new_record(name, prompt)
        if sampling:
            call["sampling"] = dict(sampling)
        self._calls.append(call)
        parameters = {**self.sampling, **(sampling or {})}
        # The processor decides how densely a clip is sampled; a configured value wins.
        rates = [item.fps for item in media if isinstance(item, Clip) and item.fps is not None]
        if rates:
            configured = parameters.get("mm_processor_kwargs") or {}
            parameters["mm_processor_kwargs"] = {"fps": rates[0], **configured}
        content = [*(item.part() for item in media), {"type": "text", "text": text}]
        body = {
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": content},
            ],
            "response_format": response_format(reply),
            **parameters,
        }
        if self.requested_model:
            body["model"] = self.requested_model
        first = await self._post(body, call, "key")
        value, error = _read(first, reply, call)
        if value is not None and not error:
            call["outcome"] = "ok"
            return Answer(value, first, call)
        call["error"] = error
        return await self._correct(body, Answer(value, first, call), reply)

    async def _correct(
        self, body: dict[str, Any], first: Answer[Reply], reply: type[Reply]
    ) -> Answer[Reply]:
        """Return a better reply than `first`, whose record has what is wrong with it.

        Without one, return `first` if it is at least valid, and else the second reply.
        """
        call = first.call
        correction = (
            f"Your reply is invalid: {call['error']}. Answer the question above again with one "
            "JSON object of the required form and nothing else."
        )
        body["messages"] += [
            {"role": "assistant", "content": first.text[:SHOWN_REPLY_CHARS] or "(empty)"},
            {"role": "user", "content": [{"type": "text", "text": correction}]},
        ]
        if isinstance(seed := body.get("seed"), int):
            # With the same random numbers, a model is more likely to repeat its mistake.
            body["seed"] = seed + 1
        try:
            text = await self._post(body, call, "correction_key")
        except NoRoomError as no_room:
            value, text = None, first.text
            error = f"a correction does not fit the context: {no_room}"
        else:
            value, error = _read(text, reply, call)
            error = f"and after the correction: {error}"
        if value is not None:
            call["outcome"] = "retried"
            return Answer(value, text, call)
        call["error"] += f"; {error}"
        if first.value is not None:
            call["outcome"] = "ok"
            return first
        # What the model wrote instead, such as a refusal.
        call["outcome"], call["reply"] = "invalid", text[:RECORDED_REPLY_CHARS]
        return Answer(None, text, call)

    async def _post(self, body: dict[str, Any], call: dict[str, Any], key: str) -> str:
        """Send a request and return the text of its reply. `key` names its key in the record."""
        headers = {"X-Cuesheet-Group": quote(self.group), "X-Cuesheet-Stage": quote(self.stage)}
        status, answer = await self.link.post("/chat/completions", body, headers)
        if status != 200:
            error = answer.get("error")
            error = error if isinstance(error, dict) else {"message": str(error)}
            call[key] = error.get("key")
            call["attempts"] += error.get("attempts") or 0
            label = f"call {call['name']!r} ({self.group})"
            failure = error_of(label, status, error, self.requested_model, key != "key")
            if isinstance(failure, NoRoomError):
                raise failure
            call["outcome"] = "failed"
            call["error"] = "; ".join(filter(None, [call["error"], str(failure)]))
            failure.call = call
            raise failure
        about = answer.get("cuesheet", {})
        call[key] = about.get("key")
        is_hit = bool(about.get("cache_hit"))
        call["cache_hit"] = is_hit and (key == "key" or call["cache_hit"])
        call["latency_s"] = round(call["latency_s"] + about.get("latency_s", 0.0), 4)
        for count in ("prompt_tokens", "completion_tokens", "attempts"):
            call[count] += about.get(count) or 0
        if not about.get("stored", True):
            call["stored"] = False
        if about.get("adjustments"):
            call["adjustments"] = about["adjustments"]
        choice = answer["choices"][0]
        reason = choice.get("finish_reason")
        call["finish_reason"] = reason if isinstance(reason, str) else None
        self.model = about.get("model") or self.model
        text, source = choice_text(choice)
        text = _sendable(text)
        if source not in ("", "content"):
            call["answer_field"] = source
        refusal = choice["message"].get("refusal")
        if isinstance(refusal, str) and refusal.strip():
            call["refusal"] = _sendable(refusal)[:SHOWN_REPLY_CHARS]
        elif call["finish_reason"] == "content_filter":
            call["refusal"] = text[:SHOWN_REPLY_CHARS] or _FINISH_REASONS["content_filter"]
        elif not text:
            call["empty_reply"] = fields_with_text(choice["message"])
        return text


def _new_record(name: str, prompt: str) -> dict[str, Any]:
    return {
        "name": name,
        "prompt": prompt,
        "key": None,
        "correction_key": None,
        "cache_hit": False,
        "latency_s": 0.0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "attempts": 0,
        "finish_reason": None,
        "outcome": None,
        "error": None,
    }


def _read(text: str, reply: type[Reply], call: Mapping[str, Any]) -> tuple[Reply | None, str]:
    """Return a typed reply, None if it is invalid, and what is wrong with it, or ""."""
    try:
        value = parse_reply(text, reply, is_complete=call["finish_reason"] == "stop")
    except UnusableReplyError as error:
        return None, _with_cause(str(error), call)
    complaint = getattr(value, "complaint", None)  # of a valid reply that should be better
    return value, complaint() if callable(complaint) else ""


def _with_cause(error: str, call: Mapping[str, Any]) -> str:
    """Return why a reply is invalid, with what the server said about it."""
    finish = _FINISH_REASONS.get(call["finish_reason"])
    if call.get("refusal") and call["finish_reason"] != "content_filter":
        return f"{error} (the model refused: {call['refusal'][:300]})"
    if call.get("empty_reply"):
        fields = f"only these fields had text: {', '.join(call['empty_reply'])}"
        return f"{error} ({finish}; {fields})" if finish else f"{error} ({fields})"
    return f"{error} ({finish})" if finish else error


def _sendable(text: str) -> str:
    """Replace lone surrogates: JSON can escape them, but they can be neither sent nor written."""
    return text.encode(errors="replace").decode()
