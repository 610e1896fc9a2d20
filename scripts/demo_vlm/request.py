"""The chat request, as the OpenAI API defines it, and errors in the form of that API."""

import json
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from demo_vlm import MODEL_ID
from demo_vlm.media import Media, MediaError, decode_clip, decode_image, load_bytes


class ApiError(Exception):
    """An error in the form of the OpenAI API."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> dict:
        """Return the JSON body of the response."""
        names = {401: "authentication_error", 404: "not_found_error", 500: "server_error"}
        kind = names.get(self.status, "invalid_request_error")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


class Url(BaseModel):
    url: str


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ImagePart(BaseModel):
    type: Literal["image_url"]
    image_url: Url


class ClipPart(BaseModel):
    type: Literal["video_url"]
    video_url: Url


Part = Annotated[TextPart | ImagePart | ClipPart, Field(discriminator="type")]


class Message(BaseModel):
    role: str
    content: str | list[Part] | None = None

    def parts(self) -> list[TextPart | ImagePart | ClipPart]:
        if isinstance(self.content, str):
            return [TextPart(type="text", text=self.content)]
        return self.content or []

    def texts(self) -> list[str]:
        return [part.text for part in self.parts() if isinstance(part, TextPart)]


class JsonSchema(BaseModel):
    definition: dict = Field(alias="schema")


class ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(BaseModel):
    """What is read of a chat request. Other parameters change no reply."""

    model: str
    messages: list[Message]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = None
    stream: Literal[False] | None = None
    n: Literal[1] | None = None
    response_format: ResponseFormat | None = None

    @property
    def texts(self) -> list[str]:
        return [text for message in self.messages for text in message.texts()]

    @property
    def question(self) -> str:
        """The text of all messages of the user."""
        users = [message for message in self.messages if message.role == "user"]
        return "\n".join(text for message in users for text in message.texts())

    def schema(self) -> dict | None:
        """Return the schema of the reply: the one of `response_format`, or the last in a text."""
        wanted = self.response_format and self.response_format.json_schema
        return wanted.definition if wanted else _schema_in_text("\n".join(self.texts))

    def read_media(self) -> Media:
        """Decode the images and clips. Raises ApiError (400)."""
        media = Media()
        for part in (part for message in self.messages for part in message.parts()):
            try:
                if isinstance(part, ImagePart):
                    media.images.append(decode_image(load_bytes(part.image_url.url)))
                elif isinstance(part, ClipPart):
                    media.clips.append(decode_clip(load_bytes(part.video_url.url)))
            except MediaError as error:
                raise ApiError(400, str(error), param="messages") from error
        return media


def parse_request(raw: bytes) -> ChatRequest:
    """Parse and check the body of a chat request. Raises ApiError (400 or 404)."""
    try:
        request = ChatRequest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(key) for key in first["loc"])
        code = "invalid_json" if first["type"] == "json_invalid" else None
        param = str(first["loc"][0]) if first["loc"] else None
        message = f"{path or 'the body'}: {first['msg']}"
        raise ApiError(400, message, param=param, code=code) from error
    if request.model != MODEL_ID:
        message = f"the model {request.model!r} is not served here; the only one is {MODEL_ID!r}"
        raise ApiError(404, message, param="model", code="model_not_found")
    if not request.question:
        raise ApiError(400, "no message of the user holds text", param="messages")
    return request


def _schema_in_text(text: str) -> dict | None:
    """Return the last JSON schema of an object in `text`."""
    decoder = json.JSONDecoder()
    found: dict | None = None
    position = text.find("{")
    while position != -1:
        value: Any = None
        end = position + 1
        with suppress(ValueError, RecursionError):  # a brace that begins no JSON
            value, end = decoder.raw_decode(text, position)
        if isinstance(value, dict) and isinstance(value.get("properties"), dict):
            found = value
        position = text.find("{", end)
    return found
