"""What stage scripts ask the vision-language model with: typed replies, one record a call.

    async with Vlm.connect(server_file, settings, group="demo/000003", prompts=hashes) as vlm:
        answer = await vlm.ask(name="segment", prompt="plan_segment", reply=Segmentation,
                               system=system, media=[Image(jpeg, "image/jpeg")], text=question)

Content is always in the order system text, media, question, so that calls about the same frames
share a prefix in the server's cache. Retries of lost connections, the call cache and the choice of
a server are the gateway's; here is what depends on the type of the reply.
"""

import base64
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from cuesheet.errors import CuesheetError, SurroundingsError
from cuesheet.vlm.gateway_client import GatewayClient, wait_until_ready
from cuesheet.vlm.parsing import (
    UnusableReplyError,
    fields_with_text,
    message_text,
    parse_reply,
)
from cuesheet.vlm.structured_output import response_format

Reply = TypeVar("Reply", bound=BaseModel)

# How much of a bad reply the model is shown again.
SHOWN_REPLY_CHARS = 4000
_CONTEXT_WORDS = re.compile(
    r"context.?(?:length|window|size)|max(?:imum)?.model.len|prompt.is.too.long|longer.than.the",
    re.IGNORECASE,
)
_LIMIT = re.compile(
    r"(?:context.?(?:length|window|size)|max(?:imum)?.model.len(?:gth)?)[^0-9]{0,24}(\d+)",
    re.IGNORECASE,
)
_TOKENS = re.compile(r"\d{2,}")
# What a finish reason other than "stop" adds to the words about a reply that cannot be used.
_CUT = {
    "length": "the reply was cut at its token budget, vlm.sampling.max_tokens",
    "reply_too_large": "the reply was too large to be read",
    "content_filter": "the server's content filter withheld the reply",
}


class VlmError(CuesheetError):
    """A call has no answer and will not get one by asking again; `call` is its record, if sent."""

    call: dict[str, Any] | None = None


class VlmUnavailableError(VlmError, SurroundingsError):
    """No call gets an answer: the server, its address, its model or its key are not right."""


@dataclass(frozen=True)
class Image:
    """An encoded picture; `url` (such as `file:///…`) is sent in place of the bytes if given."""

    data: bytes
    mime: str = "image/jpeg"
    url: str | None = None

    def part(self) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": self.url or _data_url(self)}}


@dataclass(frozen=True)
class Clip:
    """An H.264 clip as it is; `fps` frames a second are to be sampled from it, if given."""

    data: bytes
    mime: str = "video/mp4"
    url: str | None = None
    fps: float | None = None

    def part(self) -> dict[str, Any]:
        return {"type": "video_url", "video_url": {"url": self.url or _data_url(self)}}


Media = Image | Clip


@dataclass(frozen=True)
class VlmSettings:
    """Settings that are part of a request; `model` None stands for the model that is served."""

    model: str | None = None
    temperature: float = 0.2
    top_p: float = 1.0
    max_tokens: int = 1024
    seed: int | None = 0
    reasoning_effort: str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    mm_processor_kwargs: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, settings: "Mapping[str, Any] | VlmSettings") -> "VlmSettings":
        """Take what is known here from a mapping that may hold more."""
        if isinstance(settings, cls):
            return settings
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in settings.items() if name in known})

    def sampling(self) -> dict[str, Any]:
        """Return the parameters that are set, the model apart."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "model"}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Answer(Generic[Reply]):
    """A typed reply (None if invalid), the text that the model wrote, and the call's record."""

    value: Reply | None
    text: str
    call: dict[str, Any]


@dataclass
class Vlm:
    """A stage's connection to the model for one episode."""

    link: GatewayClient
    settings: VlmSettings
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
        settings: Mapping[str, Any] | VlmSettings,
        group: str,
        prompts: Mapping[str, str],
        wait_s: float = 120.0,
        stage: str = "",
    ) -> "AsyncIterator[Vlm]":
        """Wait for the run's gateway. Raises CuesheetError at once when the run's server failed.

        `group` ("dataset/episode") keeps calls on one replica; `prompts` maps the names of prompt
        files to their sha256; `stage` is what the time of the calls is counted under.
        """
        wanted = VlmSettings.of(settings)
        link = await wait_until_ready(server_file, wait_s)
        yield cls(link, wanted, group, dict(prompts), wanted.model, stage)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The records of the calls that ended, in the order in which they were asked."""
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
        """Ask one question and return its typed reply and record.

        `sampling`: parameters of this question that are not as the settings say; its record has
        them. A reply that does not fit is shown to the model once, with what is wrong; a second
        one that does not fit is recorded as invalid (`value` None). Raises VlmError if there is no
        reply at all, and before sending if the request needs images and has none.
        """
        if needs_media and not media:
            raise VlmError(
                f"call {name!r} ({self.group}) needs frames and has none; it is not sent"
            )
        if prompt not in self.prompts:
            raise VlmError(
                f"call {name!r} names the prompt {prompt!r}, which is not among the prompt files "
                f"of this stage ({', '.join(sorted(self.prompts))})"
            )
        call = _new_record(name, prompt)
        if sampling:
            call["sampling"] = dict(sampling)
        self._calls.append(call)
        parameters = {**self.settings.sampling(), **(sampling or {})}
        # How densely a clip is sampled is the processor's matter; what is configured for it wins.
        rates = [item.fps for item in media if isinstance(item, Clip) and item.fps is not None]
        if rates:
            configured = parameters.get("mm_processor_kwargs") or {}
            parameters["mm_processor_kwargs"] = {"fps": rates[0], **configured}
        content = [*(item.part() for item in media), {"type": "text", "text": text}]
        messages = [{"role": "system", "content": system}, {"role": "user", "content": content}]
        first = await self._post(messages, reply, call, parameters)
        try:
            value = parse_reply(first, reply)
            call["outcome"] = "ok"
            return Answer(value, first, call)
        except UnusableReplyError as error:
            call["error"] = _with_cause(str(error), call)
        return await self._correct(messages, first, reply, call, parameters)

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
            f"Your reply could not be used: {call['error']}. Answer the question above again, "
            "with one JSON object in the required form and nothing else."
        )
        dialogue = [
            *messages,
            {"role": "assistant", "content": shown},
            {"role": "user", "content": [{"type": "text", "text": correction}]},
        ]
        try:
            second = await self._post(dialogue, reply, call, parameters, correcting=True)
            value = parse_reply(second, reply)
        except _NoRoomError as error:
            call["outcome"] = "invalid"
            call["error"] += f"; no room for a correction: {error}"
            return Answer(None, first, call)
        except UnusableReplyError as error:
            call["outcome"] = "invalid"
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
        if self.settings.model:
            body["model"] = self.settings.model
        headers = {"X-Cuesheet-Group": quote(self.group), "X-Cuesheet-Stage": quote(self.stage)}
        status, answer = await self.link.post("/chat/completions", body, headers)
        key = "correction_key" if correcting else "key"
        if status != 200:
            error = answer.get("error")
            error = error if isinstance(error, dict) else {"message": str(error)}
            call[key] = error.get("key")
            call["attempts"] += error.get("attempts") or 0
            refusal = self._refusal(call["name"], status, error, correcting)
            raise refusal if isinstance(refusal, _NoRoomError) else self._failed(call, refusal)
        about = answer.get("cuesheet", {})
        call[key] = about.get("key")
        if not correcting:
            call["cache_hit"] = True
        call["cache_hit"] = call["cache_hit"] and bool(about.get("cache_hit"))
        call["latency_s"] = round(call["latency_s"] + about.get("latency_s", 0.0), 4)
        for count in ("prompt_tokens", "completion_tokens", "attempts"):
            call[count] += about.get(count) or 0
        choice = answer["choices"][0]
        reason = choice.get("finish_reason")
        call["finish_reason"] = reason if isinstance(reason, str) else None
        self.model = about.get("model") or self.model
        text, source = message_text(choice["message"])
        if source not in ("", "content"):
            call["answer_field"] = source
        refusal = choice["message"].get("refusal")
        if isinstance(refusal, str) and refusal.strip():
            call["refusal"] = _sendable(refusal)[:SHOWN_REPLY_CHARS]
        elif not text:
            call["empty_reply"] = fields_with_text(choice["message"])
        return _sendable(text)

    def _refusal(self, name: str, status: int, error: dict[str, Any], correcting: bool) -> VlmError:
        message, code = str(error.get("message")), error.get("code")
        where = f"call {name!r} ({self.group})"
        if code == "not_in_cache":
            what = "the correction of its reply" if correcting else "its answer"
            return VlmError(_replay_advice(where, what, str(error.get("key")), message))
        if code == "context_length_exceeded" or (
            status in (400, 413, 422) and _CONTEXT_WORDS.search(message)
        ):
            if correcting:
                return _NoRoomError(message)
            return VlmError(_context_advice(where, message))
        advice = {
            "model_server_failed": "the model server failed",
            "unauthorized": "the run's gateway refused the key of server.json; start the run again",
            "gave_up": "no usable reply came back",
        }.get(str(code))
        if advice is None and status in (401, 403):
            advice = "the server refused the API key; check vlm.api_key_env or vlm.api_key_file"
        if advice is None and status == 404:
            advice = (
                f"the server does not know the model {self.settings.model!r} or the address; check "
                "vlm.model and vlm.base_urls (which end in /v1)"
            )
        advice = advice or "the server refused the request"
        kind = VlmError if status in (400, 413, 422) else VlmUnavailableError
        return kind(f"{where}: {advice}: {status} {message}")


class _NoRoomError(VlmError):
    """The dialogue with the correction does not fit the model's context."""


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


def _with_cause(error: str, call: Mapping[str, Any]) -> str:
    """Return what is wrong with a reply, with what the server said about it."""
    cut = _CUT.get(call["finish_reason"])
    if call.get("refusal"):
        return f"{error} (the model refused: {call['refusal'][:300]})"
    if call.get("empty_reply"):
        return f"{error} (only these fields had text: {', '.join(call['empty_reply'])})"
    return f"{error} ({cut})" if cut else error


def _sendable(text: str) -> str:
    """Replace lone surrogates: JSON can escape them, but they can be neither sent nor written."""
    return text.encode(errors="replace").decode()


def _context_advice(where: str, message: str) -> str:
    limit = _LIMIT.search(message)
    allowed = limit.group(1) if limit else None
    others = [int(number) for number in _TOKENS.findall(message) if number != allowed]
    sizes = ""
    if allowed and others:
        sizes = f" (about {max(others)} tokens asked for, {allowed} fit)"
    elif allowed:
        sizes = f" ({allowed} tokens fit)"
    return (
        f"{where}: the request does not fit the model's context{sizes}. Lower "
        "max_frames_per_call, tile_width or keyframes.per_second, or vlm.sampling.max_tokens, or "
        f"serve the model with a longer context. The server says: {message}"
    )


def _replay_advice(where: str, what: str, key: str, message: str) -> str:
    return (
        f"{where}: {what} is not in the cache and vlm.serve is replay, so it is not asked: "
        f"{message}. Its key is {key}; the entry would be {key[:2]}/{key}.json. Copy the whole "
        "cache of the run that is replayed (vlm.cache_dir) and use its dataset, configuration and "
        "prompts: whatever changes a request changes its key. Or set vlm.serve to external or "
        "demo to request what is missing"
    )


def _data_url(media: Media) -> str:
    return f"data:{media.mime};base64,{base64.b64encode(media.data).decode('ascii')}"
