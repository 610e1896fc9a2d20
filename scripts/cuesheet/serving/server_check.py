"""Check of a model server: the model list, and one small request like those of the run.

The request has as many images as the run will send at most, a reply schema, and the run's own
sampling parameters. What the server rejects is therefore known before the work starts, and
parameters that it rejects are omitted from then on. The name of the request's schema, CHECK_NAME,
tells it from the requests of jobs.
"""

import asyncio
import base64
import contextlib
import functools
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel

from cuesheet.errors import CuesheetError
from cuesheet.serving.backends import Backend, BackendFailedError, ExternalBackend
from cuesheet.serving.dispatcher import Counters, Dispatcher, Outcome
from cuesheet.serving.server_errors import ServerError
from cuesheet.serving.upstream import (
    CallFailedError,
    ListedModel,
    TlsError,
    TransientError,
    UnusableResponseError,
    Upstream,
)
from cuesheet.text import did_you_mean
from cuesheet.vlm.parsing import UnusableReplyError, choice_text, parse_reply
from cuesheet.vlm.structured_output import response_format

IMAGE_EDGE_PX = 64  # the processors of some models reject smaller images
ATTEMPTS = 3
PAUSE_S = 0.5
_SHOWN_MODELS = 8
# Statuses that name another cause than the images: key, credit, address, rate.
_OTHER_CAUSES = frozenset({401, 402, 403, 404, 405, 429})
_MAY_BE_THE_FORMAT = ("refused", "image_format", "gave_up")


class ServerCheck(BaseModel):
    """The reply to the request of the check."""

    color: Literal["red", "green", "blue", "other"]


CHECK_NAME = ServerCheck.__name__


class CheckFailedError(CuesheetError):
    """The server cannot do the work of the run.

    `is_temporary`: it may be able to later, because it did not answer or its quota is exhausted.
    `error`: what the server reported, if it did.
    """

    def __init__(
        self, message: str, *, is_temporary: bool = False, error: ServerError | None = None
    ) -> None:
        super().__init__(message)
        self.is_temporary = is_temporary
        self.error = error


@dataclass(frozen=True)
class CheckRequest:
    """What the run will send: images of the format `vlm.images.format`, and sampling parameters.

    `image_counts` has the number of images of each kind of request, the setting that limits it, and
    the value of that setting per image (0: the setting can be off).
    """

    model: str
    image_counts: Sequence[tuple[int, str, float]] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    image_format: str = "jpeg"

    @property
    def images(self) -> int:
        """The largest number of images per request."""
        return max((images for images, _, _ in self.image_counts), default=1)

    def body(self) -> dict[str, Any]:
        """Return the chat request."""
        data = base64.b64encode(red_square(self.image_format)).decode("ascii")
        url = f"data:image/{self.image_format};base64,{data}"
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": url}} for _ in range(self.images)
        ]
        question = "Which color is this image? Answer with one JSON object such as "
        content.append({"type": "text", "text": question + '{"color": "other"}.'})
        return {
            "model": self.model,
            "messages": [
                {"role": "system", "content": "You describe images."},
                {"role": "user", "content": content},
            ],
            "response_format": response_format(ServerCheck),
            **{name: value for name, value in self.sampling.items() if value is not None},
        }


@dataclass
class ServerReport:
    """The findings of the check. `root`: the model behind the served name, or empty."""

    server: str
    models: list[str]
    root: str = ""
    latency_s: float = 0.0
    adjustments: list[str] = field(default_factory=list)
    answer_field: str = "content"
    reply_error: str = ""

    def notify(self, notify: Callable[[str], None]) -> None:
        """Show what does not prevent the run."""
        if self.reply_error:
            notify(
                f"{self.server}: the reply to the check is not of the requested form "
                f"({self.reply_error}). Replies may be invalid; another model may be needed"
            )


@functools.cache
def red_square(image_format: str) -> bytes:
    """Return a small red image as `jpeg` or `png`."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (IMAGE_EDGE_PX, IMAGE_EDGE_PX), (220, 30, 30)).save(file, image_format.upper())
    return file.getvalue()


async def check_upstream(
    upstream: Upstream, request: CheckRequest, notify: Callable[[str], None]
) -> ServerReport:
    """Check one server and return the findings.

    Parameters that the server rejects are recorded in `upstream.adjustments`. `notify` shows a line
    on the terminal. Raises CheckFailedError.
    """
    listed = await _list_models(upstream)
    entry = _find_model(upstream, listed, request.model)
    report = ServerReport(upstream.name, [one.id for one in listed], entry.root if entry else "")
    try:
        async with asyncio.timeout(upstream.timeout_s):
            backend = ExternalBackend({}, request.model, upstream.timeout_s)
            backend.upstreams = [upstream]
            await _send(backend, upstream, request, report, notify, ATTEMPTS)
    except TimeoutError:
        raise CheckFailedError(
            f"{upstream.name} did not reply to a small request within {upstream.timeout_s:g} s "
            "(vlm.timeout_s)",
            is_temporary=True,
        ) from None
    return report


async def check_external(
    upstreams: Sequence[Upstream], request: CheckRequest, notify: Callable[[str], None]
) -> list[ServerReport]:
    """Check all servers at the same time; return the reports of those that answer.

    A server that does not answer is a notice as long as another one does. Raises CheckFailedError.
    """
    results = await asyncio.gather(
        *(check_upstream(upstream, request, notify) for upstream in upstreams),
        return_exceptions=True,
    )
    failures = [result for result in results if isinstance(result, BaseException)]
    lasting = [one for one in failures if not getattr(one, "is_temporary", False)]
    if lasting or len(failures) == len(results):
        raise (lasting or failures)[0]
    for failure in failures:
        notify(f"{failure}. The other servers are used")
    reports = [result for result in results if isinstance(result, ServerReport)]
    for report in reports:
        report.notify(notify)
    return reports


async def check_managed(
    backend: Backend, request: CheckRequest, notify: Callable[[str], None], attempts: int
) -> ServerReport:
    """Check a server that the run starts, once it is ready. Raises CheckFailedError.

    Raises BackendFailedError if the server does not start.
    """
    upstream = await backend.pick("")
    report = ServerReport(upstream.name, await backend.models())
    await _send(backend, upstream, request, report, notify, attempts)
    report.notify(notify)
    return report


async def _send(
    backend: Backend,
    upstream: Upstream,
    request: CheckRequest,
    report: ServerReport,
    notify: Callable[[str], None],
    attempts: int,
) -> None:
    """Send the request of the check and fill in the report."""
    dispatcher = Dispatcher(
        backend, 1, attempts, Counters(), notify=notify, on_fatal=lambda cause: None
    )
    begun = time.monotonic()
    try:
        outcome = await dispatcher.complete(request.body(), "", "check")
    except CallFailedError as error:
        if await _takes_another_format(backend, request, error):
            raise CheckFailedError(
                f"{upstream.name} rejects images of the format {request.image_format} and accepts "
                f"{_other_format(request)}; set vlm.images.format to {_other_format(request)}: "
                f"{error.status} {error.message}",
                error=error.error,
            ) from None
        raise _explain(upstream, request, bool(report.models), error) from None
    report.latency_s = time.monotonic() - begun
    _read_reply(report, outcome)
    if not report.reply_error or upstream.adjustments.schema_in_prompt:
        return
    # Some servers accept response_format and ignore it (Anthropic's compatible endpoint).
    before, reply_error = upstream.adjustments, report.reply_error
    upstream.adjustments = replace(before, schema_in_prompt=True)
    with contextlib.suppress(CallFailedError):
        _read_reply(report, await dispatcher.complete(request.body(), "", "check"))
    if report.reply_error:
        upstream.adjustments, report.reply_error = before, reply_error
    else:
        notify(f"{upstream.name} ignores response_format; the reply schema is sent in the prompt")


def _other_format(request: CheckRequest) -> str:
    return "png" if request.image_format == "jpeg" else "jpeg"


async def _takes_another_format(
    backend: Backend, request: CheckRequest, error: CallFailedError
) -> bool:
    """Tell whether a rejected request succeeds if its images have the other format."""
    if error.status in _OTHER_CAUSES or error.kind not in _MAY_BE_THE_FORMAT:
        return False
    other = replace(request, image_format=_other_format(request))
    dispatcher = Dispatcher(backend, 1, 1, Counters(), on_fatal=lambda cause: None)
    try:
        await dispatcher.complete(other.body(), "", "check")
    except (CallFailedError, BackendFailedError):
        return False
    return True


def _read_reply(report: ServerReport, outcome: Outcome) -> None:
    report.adjustments = outcome.adjustments
    choice = outcome.reply["choices"][0]
    text, report.answer_field = choice_text(choice)
    try:
        parse_reply(text, ServerCheck, is_complete=choice.get("finish_reason") == "stop")
        report.reply_error = ""
    except UnusableReplyError as error:
        report.reply_error = str(error)


async def _list_models(upstream: Upstream) -> list[ListedModel]:
    """Return the listed models; none if the server has no list."""
    try:
        try:
            return await upstream.list_models()
        except TransientError:
            await asyncio.sleep(PAUSE_S)
            return await upstream.list_models()
    except TransientError as error:
        if error.status is not None:  # it answers; the request will tell
            return []
        if isinstance(error, TlsError):
            raise CheckFailedError(f"the model server cannot be reached: {error}") from None
        closed = " (https:// if it uses TLS)" if "Server disconnected" in str(error) else ""
        raise CheckFailedError(
            f"the model server does not answer: {error}. Start it, or check vlm.base_urls{closed}",
            is_temporary=True,
        ) from None
    except CallFailedError as error:
        if error.status == 401:
            raise CheckFailedError(_key_message(upstream, error), error=error.error) from None
        if error.kind == "quota_exhausted":
            raise CheckFailedError(f"{upstream.name}: {error}", is_temporary=True) from None
        return []  # no list, or a key that may only chat (403); the request will tell


def _key_message(upstream: Upstream, error: CallFailedError) -> str:
    if upstream.has_key:
        advice = "rejected the API key; check vlm.api_key_env or vlm.api_key_file"
    else:
        advice = "needs an API key, but none is set; name its place in vlm.api_key_env"
    return f"{upstream.name} {advice}: {error.status} {error.message}"


def _find_model(
    upstream: Upstream, listed: Sequence[ListedModel], model: str
) -> ListedModel | None:
    """Return the entry of the model. Raises CheckFailedError if the server lists only others."""
    if not listed or upstream.lists_other_names:
        return None
    for entry in listed:
        if is_listed_as(model, entry.id):
            return entry
    names = [entry.id for entry in listed]
    near = did_you_mean(model, names)
    shown = ", ".join(names[:_SHOWN_MODELS]) + (", ..." if len(names) > _SHOWN_MODELS else "")
    hint = f"did you mean {near}? " if near else ""
    raise CheckFailedError(
        f"{upstream.name} does not list the model {model}: {hint}It lists {shown}. Correct "
        "vlm.model; if the server knows the model although it does not list it, set vlm.check to "
        "false"
    )


def is_listed_as(model: str, listed: str) -> bool:
    """Tell whether a server that lists `listed` serves `model`.

    Gemini lists `models/NAME`, Ollama adds the tag `:latest`, routers (Hugging Face, OpenRouter)
    accept a provider or variant after a colon, and LiteLLM lists wildcards such as `openai/*`.
    """
    name, entry = model.lower(), listed.lower()
    if name == entry or entry == f"models/{name}" or name == f"models/{entry}":
        return True
    if entry.endswith("*"):
        return name.startswith(entry[:-1])
    return entry == f"{name}:latest" or name.rpartition(":")[0] == entry


def _explain(
    upstream: Upstream, request: CheckRequest, has_list: bool, error: CallFailedError
) -> CheckFailedError:
    """Return the error for a rejected request, with what the user can do about it."""
    said = f"{error.status} {error.message}"
    found = error.error
    if found is not None and found.kind == "too_many_images":
        return CheckFailedError(_image_message(upstream, request, found), error=found)
    if isinstance(error.__cause__, UnusableResponseError):
        return CheckFailedError(
            f"{upstream.name} answers, but not as the chat API of OpenAI defines it; check "
            f"vlm.base_urls, and the log of the server: {error.__cause__}"
        )
    if error.kind in ("gave_up", "quota_exhausted"):
        return CheckFailedError(f"{upstream.name}: {error.message}", is_temporary=True, error=found)
    if error.status in (401, 403):
        return CheckFailedError(_key_message(upstream, error), error=found)
    if error.status in (404, 405) and not has_list:
        return CheckFailedError(
            f"{upstream.name} does not know the model {request.model} or the address; check "
            f"vlm.model and vlm.base_urls (which usually end in /v1): {said}",
            error=found,
        )
    return CheckFailedError(f"{upstream.name} rejected a small request: {said}", error=found)


def _image_message(upstream: Upstream, request: CheckRequest, found: ServerError) -> str:
    limit = found.max_images
    if limit is None or limit >= request.images:
        allowed, changes = (
            "fewer images",
            [f"{setting} lower" for _, setting, _ in request.image_counts[:1]],
        )
    else:
        allowed = "at most 1 image" if limit == 1 else f"at most {limit} images"
        changes = [
            f"{setting} to {int(limit * units) if units else 'off'}"
            for images, setting, units in request.image_counts
            if images > limit
        ]
    return (
        f"{upstream.name} accepts {allowed} per request, but this run sends up to "
        f"{request.images}. Set {' and '.join(changes)}, or raise the server's limit "
        f"(--limit-mm-per-prompt of vLLM): {found.status} {found.message}"
    )
