"""The chat request: checked, and taken apart into texts, media and the schema of the reply."""

import json
from dataclasses import dataclass
from typing import Any

from demo_vlm import MODEL_ID
from demo_vlm.media import Media, MediaError, decode_clip, decode_image, load_bytes


class ApiError(Exception):
    """An error in the shape of the OpenAI API."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    def body(self) -> dict:
        """Return the JSON body of the response."""
        kind = {401: "authentication_error", 404: "not_found_error", 500: "server_error"}.get(
            self.status, "invalid_request_error"
        )
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }

    @classmethod
    def unknown_model(cls, name: object) -> "ApiError":
        """Return the error for a model that is not served here."""
        return cls(
            404,
            f"the model {name!r} is not served here; the only one is {MODEL_ID!r}",
            param="model",
            code="model_not_found",
        )


@dataclass(frozen=True)
class MediaPart:
    """A image or clip of the request, not yet decoded."""

    is_clip: bool
    url: str
    param: str


@dataclass(frozen=True)
class ChatRequest:
    """What a chat request holds. `question` is the text of all user messages."""

    texts: tuple[str, ...]
    question: str
    parts: tuple[MediaPart, ...]
    schema: dict | None
    max_tokens: int | None


def parse_body(body: Any) -> ChatRequest:
    """Check the body of a chat request and take it apart. Raises ApiError (400 or 404)."""
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise ApiError(400, "`model` must be a non-empty string", param="model")
    if model != MODEL_ID:
        raise ApiError.unknown_model(model)
    if body.get("stream"):
        raise ApiError(400, "streaming is not offered: leave `stream` out", param="stream")
    if body.get("n") not in (None, 1):
        raise ApiError(400, "`n` must be 1: replies here do not vary", param="n")
    max_tokens = _max_tokens(body)
    for name in ("temperature", "top_p", "seed"):
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ApiError(400, f"`{name}` must be a number, got {value!r}", param=name)
    texts, questions, parts = _messages(body.get("messages"))
    question = "\n".join(questions)
    schema = _response_format(body.get("response_format"))
    if schema is None:
        schema = _schema_in_text("\n".join(texts))
    return ChatRequest(tuple(texts), question, tuple(parts), schema, max_tokens)


def read_media(parts: tuple[MediaPart, ...]) -> Media:
    """Decode the images and clips of a request. Raises ApiError (400)."""
    media = Media()
    for part in parts:
        try:
            data = load_bytes(part.url)
            if part.is_clip:
                media.clips.append(decode_clip(data))
            else:
                media.images.append(decode_image(data))
        except MediaError as error:
            raise ApiError(400, f"{part.param}: {error}", param=part.param) from error
    return media


def _schema_in_text(text: str) -> dict | None:
    """Return the last JSON schema of an object in `text`."""
    decoder = json.JSONDecoder()
    found: dict | None = None
    position = text.find("{")
    while position != -1:
        end = position + 1
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and isinstance(value.get("properties"), dict):
            found = value
        position = text.find("{", end)
    return found


def _max_tokens(body: dict) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ApiError(
                    400, f"`{name}` must be a whole number of at least 1, got {value!r}", param=name
                )
            return value
    return None


def _messages(messages: Any) -> tuple[list[str], list[str], list[MediaPart]]:
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "`messages` must be a list with at least one message", param="messages")
    texts: list[str] = []
    questions: list[str] = []
    parts: list[MediaPart] = []
    for number, message in enumerate(messages):
        param = f"messages[{number}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ApiError(400, f"{param} must be an object with a `role`", param=param)
        content = message.get("content")
        said = []
        if isinstance(content, str):
            said = [content]
        elif isinstance(content, list):
            for index, part in enumerate(content):
                text, media = _part(part, f"{param}.content[{index}]")
                said += [] if text is None else [text]
                parts += [] if media is None else [media]
        elif content is not None or message["role"] != "assistant":
            raise ApiError(
                400,
                f"{param}.content must be a string or a list of parts",
                param=f"{param}.content",
            )
        texts += said
        if message["role"] == "user":
            questions += said
    if not questions:
        raise ApiError(400, "no message of the user holds text", param="messages")
    return texts, questions, parts


def _part(part: Any, param: str) -> tuple[str | None, MediaPart | None]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise ApiError(400, f"{param}.text must be a string", param=param)
        return part["text"], None
    if kind in ("image_url", "video_url"):
        holder = part.get(kind)
        url = holder.get("url") if isinstance(holder, dict) else holder
        if not isinstance(url, str) or not url:
            raise ApiError(400, f"{param}.{kind}.url must be a URL", param=param)
        return None, MediaPart(kind == "video_url", url, param)
    raise ApiError(
        400,
        f"{param} has the type {kind!r}; expected `text`, `image_url` or `video_url`",
        param=param,
    )


def _response_format(value: Any) -> dict | None:
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    if kind in ("text", "json_object"):
        return None
    if kind != "json_schema":
        raise ApiError(
            400,
            "`response_format.type` must be `text`, `json_object` or `json_schema`",
            param="response_format",
        )
    holder = value.get("json_schema")
    schema = holder.get("schema") if isinstance(holder, dict) else None
    if not isinstance(schema, dict):
        raise ApiError(
            400, "`response_format.json_schema.schema` must be an object", param="response_format"
        )
    return schema
