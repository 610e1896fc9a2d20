"""Error responses of model servers: message, kind, requested delay, and the setting that helps.

Servers report errors in many forms: an object or a list of objects, under `error`, `detail` or at
the top level, with HTTP status 200 or as an HTML page of a proxy. `read_error` and `error_in_reply`
read all of them into a `ServerError`.
"""

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cuesheet.serving.retry_delays import delay_in, header_delay_s, said_delay_s

MAX_MESSAGE_CHARS = 2000
# Temporary by nature: request timeout, conflict, failed generation (TGI), too early, too many
# requests, over capacity (Groq).
RETRIED_STATUSES = frozenset({408, 409, 424, 425, 429, 498})

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
_TOKEN_LIMIT = re.compile(
    r"max_(?:completion_|new_)?tokens\b.{0,80}"
    r"(?:too (?:large|high)|at most|exceed|less than|valid range|maximum allowed|<=)",
    re.IGNORECASE | re.DOTALL,
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
_IMAGE_FORMAT = re.compile(
    r"(?:unsupported|invalid|unknown|unrecogni[sz]ed) (?:image[ _-]?(?:format|type)|mime[ _-]?type)"
    r"|(?:image[ _-]?(?:format|type)|(?:mime|media)[ _-]?type)\b.{0,40}"
    r"(?:not support|n't support|unsupported|should be|must be)"
    r"|(?:not|n't) support\w*.{0,20}\b(?:png|jpe?g)\b"
    r"|\b(?:png|jpe?g)\b.{0,30}(?:not|n't) (?:be )?(?:supported|allowed|accepted)"
    r"|only (?:supports? |accepts? )?(?:image/)?(?:png|jpe?g)\b",
    re.IGNORECASE,
)
_NO_IMAGES = re.compile(
    r"image input is not supported|(?:does not|doesn't|not) support (?:image|vision|multimodal)"
    r"|support image input|unsupported content part type|is not a (?:vision|multimodal) model"
    r"|missing data required for image input|image input is not enabled"
    r"|invalid type: sequence, expected a string|unknown variant `image_url`"
    r"|content must be a string|image_url is only supported by|at most 0 image",
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
    r"|additionalProperties|compile the regex|\bFSM\b|regex too large"
    r"|output_(?:format|config)|json_validate_failed|failed to generate json"
    r"|match the expected schema|can handle the requested parameters"
    r"|(?-i:(?:min|max)(?:Items|Length))",
    re.IGNORECASE,
)
_ADVICE = {
    "quota_exhausted": (
        "the quota or credit of this account is exhausted, so the run ends; responses received so "
        "far are cached. Add credit or wait for the quota to reset, then run the same command"
    ),
    "context_length_exceeded": (
        "the request does not fit the model's context; lower plan.frames.max_frames_per_call, "
        "plan.frames.tile_width, keyframes.per_second or vlm.sampling.max_tokens, or serve the "
        "model with a longer context"
    ),
    "payload_too_large": (
        "the request is too large for the server or a proxy in front of it; lower "
        "plan.frames.tile_width or plan.frames.max_frames_per_call, set vlm.images.format to jpeg, "
        "or raise the body limit of the proxy (client_max_body_size in nginx)"
    ),
    "too_many_tokens": (
        "the model does not write such long replies; lower vlm.sampling.max_tokens, or set it to "
        "null"
    ),
    "image_format": (
        "the server does not read images of this format; set vlm.images.format to the other one, "
        "jpeg or png"
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
        if self.status < 500 and _IMAGE_FORMAT.search(said):
            return "image_format"
        if _NO_IMAGES.search(said):
            return "images_not_supported"
        if self.status < 500 and any(pattern.search(said) for pattern in _IMAGE_LIMIT):
            return "too_many_images"
        if self.status < 500 and _CONTENT_FILTER.search(said):
            return "content_filter"
        if self.status < 500 and _TOKEN_LIMIT.search(said):
            return "too_many_tokens"
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
    text = content.decode("utf-8-sig", errors="replace")
    if 300 <= status < 400:
        address = headers.get("location", "another address")
        return ServerError(
            status,
            f"the server redirects to {address}, which is not followed; set vlm.base_urls to the "
            "address of the API itself (https, usually ending in /v1)",
        )
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if found is None:
        message = _html_message(text) if "<" in text[:200] else text
        delay_s = header_delay_s(headers, status)
        return ServerError(
            status,
            _clean(message),
            retry_after_s=said_delay_s(message) if delay_s is None else delay_s,
        )
    return _from_json(status, found, header_delay_s(headers, status))


def error_in_reply(reply: Any) -> ServerError | None:
    """Return the error in a response with HTTP status 200; None if there is none.

    An error code of three digits counts as the status; so does the name of a rate limit or of a
    failure of the server. Any other error counts as 400.
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
    if re.search(r"rate.?limit|too.?many.?requests", error.code, re.IGNORECASE):
        status = 429
    elif re.search(r"overloaded|server_error|unavailable", error.code, re.IGNORECASE):
        status = 503
    return ServerError(status, error.message, error.code, error.param, error.retry_after_s)


def _from_json(status: int, found: Any, delay_s: float | None) -> ServerError:
    if isinstance(found, list):
        found = found[0] if found else {}
    inner = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(inner, list):
        inner = inner[0] if inner else {}
    if not isinstance(inner, dict):
        if delay_s is None:
            delay_s = delay_in(found, inner) if isinstance(found, dict) else said_delay_s(inner)
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
        delay_s if delay_s is not None else delay_in(inner, message),
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
