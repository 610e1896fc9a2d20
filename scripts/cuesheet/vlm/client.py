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
class Image:
    """An encoded image; `url` (such as `file:///…`), if given, is sent instead of the bytes."""

    data: bytes
    mime: str = "image/jpeg"
    url: str | None = None

    def part(self) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": self.url or _data_url(self)}}


@dataclass(frozen=True)
class Clip:
    """An encoded H.264 clip; the server should sample `fps` frames per second, if given."""

    data: bytes
    mime: str = "video/mp4"
    url: str | None = None
    fps: float | None = None

    def part(self) -> dict[str, Any]:
        return {"type": "video_url", "video_url": {"url": self.url or _data_url(self)}}


Media = Image | Clip


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
        wait_s: float = 120.0,
        stage: str = "",
    ) -> "AsyncIterator[Vlm]":
        """Wait for the run's gateway. Raises CuesheetError at once if the run's server failed.

        `settings` has the model and the sampling parameters; those that are None are not sent.
        `group` ("dataset/episode") keeps calls on one replica; `prompts` maps the names of prompt
        files to their sha256; `stage` is the stage to which the time of the calls is attributed.
        """
        sampling = {name: value for name, value in settings.items() if value is not None}
        model = sampling.pop("model", None)
        link = await wait_until_ready(server_file, wait_s)
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

    def _failed(self, call: dict[str, Any], error: CuesheetError) -> CuesheetError:
        call["outcome"] = "failed"
        call["error"] = "; ".join(filter(None, [call["error"], str(error)]))
        if isinstance(error, VlmError):
            error.call = call
        return error

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
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": system},
            {"role": "user", "content": content},
        ]
        first = await self._post(messages, reply, call, parameters)
        try:
            value = parse_reply(first, reply, is_complete=call["finish_reason"] == "stop")
        except UnusableReplyError as error:
            call["error"] = _with_cause(str(error), call)
            return await self._correct(messages, first, reply, call, parameters)
        complaint = _complaint(value)
        if complaint:
            return await self._improve(messages, first, value, complaint, call, parameters)
        call["outcome"] = "ok"
        return Answer(value, first, call)

    async def _improve(
        self,
        messages: list[dict[str, Any]],
        first: str,
        value: Reply,
        complaint: str,
        call: dict[str, Any],
        parameters: Mapping[str, Any],
    ) -> Answer[Reply]:
        """Request a better reply than a valid one, and return the better of the two."""
        call["error"] = complaint
        second = await self._correct(messages, first, type(value), call, parameters)
        if second.value is None:
            call["outcome"] = "ok"
            call.pop("reply", None)
            return Answer(value, first, call)
        return second

    async def _correct(
        self,
        messages: list[dict[str, Any]],
        first: str,
        reply: type[Reply],
        call: dict[str, Any],
        parameters: Mapping[str, Any],
    ) -> Answer[Reply]:
        shown = first[:SHOWN_REPLY_CHARS] or "(empty)"
        correction = (
            f"Your reply is invalid: {call['error']}. Answer the question above again with one "
            "JSON object of the required form and nothing else."
        )
        dialogue = [
            *messages,
            {"role": "assistant", "content": shown},
            {"role": "user", "content": [{"type": "text", "text": correction}]},
        ]
        if isinstance(seed := parameters.get("seed"), int):
            # With the same random numbers, a model is more likely to repeat its mistake.
            parameters = {**parameters, "seed": seed + 1}
        try:
            second = await self._post(dialogue, reply, call, parameters, correcting=True)
            value = parse_reply(second, reply, is_complete=call["finish_reason"] == "stop")
        except NoRoomError as error:
            _record_invalid(call, first)
            call["error"] += f"; a correction does not fit the context: {error}"
            return Answer(None, first, call)
        except UnusableReplyError as error:
            _record_invalid(call, second)
            call["error"] += f"; and after the correction: {_with_cause(str(error), call)}"
            return Answer(None, second, call)
        call["outcome"] = "retried"
        return Answer(value, second, call)

    async def _post(
        self,
        messages: list[dict[str, Any]],
        reply: type[Reply],
        call: dict[str, Any],
        parameters: Mapping[str, Any],
        correcting: bool = False,
    ) -> str:
        body = {
            "messages": messages,
            "response_format": response_format(reply),
            **parameters,
        }
        if self.requested_model:
            body["model"] = self.requested_model
        headers = {"X-Cuesheet-Group": quote(self.group), "X-Cuesheet-Stage": quote(self.stage)}
        status, answer = await self.link.post("/chat/completions", body, headers)
        key = "correction_key" if correcting else "key"
        if status != 200:
            error = answer.get("error")
            error = error if isinstance(error, dict) else {"message": str(error)}
            call[key] = error.get("key")
            call["attempts"] += error.get("attempts") or 0
            label = f"call {call['name']!r} ({self.group})"
            failure = error_of(label, status, error, self.requested_model, correcting)
            raise failure if isinstance(failure, NoRoomError) else self._failed(call, failure)
        about = answer.get("cuesheet", {})
        call[key] = about.get("key")
        if not correcting:
            call["cache_hit"] = True
        call["cache_hit"] = call["cache_hit"] and bool(about.get("cache_hit"))
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
        if source not in ("", "content"):
            call["answer_field"] = source
        refusal = choice["message"].get("refusal")
        if isinstance(refusal, str) and refusal.strip():
            call["refusal"] = _sendable(refusal)[:SHOWN_REPLY_CHARS]
        elif call["finish_reason"] == "content_filter":
            call["refusal"] = (
                _sendable(text)[:SHOWN_REPLY_CHARS] or _FINISH_REASONS["content_filter"]
            )
        elif not text:
            call["empty_reply"] = fields_with_text(choice["message"])
        return _sendable(text)


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


def _complaint(value: BaseModel) -> str:
    check = getattr(value, "complaint", None)
    return check() if callable(check) else ""


def _record_invalid(call: dict[str, Any], text: str) -> None:
    """Record that there is no usable reply, and what the model wrote instead, such as a refusal."""
    call["outcome"] = "invalid"
    call["reply"] = text[:RECORDED_REPLY_CHARS]


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


def _data_url(media: Media) -> str:
    return f"data:{media.mime};base64,{base64.b64encode(media.data).decode('ascii')}"
