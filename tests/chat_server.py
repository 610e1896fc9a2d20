"""A real HTTP server that answers chat requests as a test tells it to, and counts them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

KEY = "upstream-key-3b8e1f"


def completion(
    content: str | None, finish_reason: str = "stop", model: str = "test-model", **extra: Any
) -> dict[str, Any]:
    """A chat completion as an OpenAI-compatible server writes it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        **extra,
    }


def refusal(status: int, message: str, **headers: str) -> web.Response:
    return web.json_response(
        {"error": {"message": message, "type": "invalid_request_error", "code": None}},
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def question_of(body: dict[str, Any]) -> str:
    """The text of the last user message."""
    content = [m for m in body["messages"] if m["role"] == "user"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


@dataclass
class ChatServer:
    """`behave(body, number)` returns a reply, a response, None (the connection is cut), or waits.

    It may also return a coroutine function that answers the HTTP request itself. `number` counts
    requests from 0. With `key` None everybody is served.
    """

    behave: Callable[[dict[str, Any], int], Any]
    bodies: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0
    url: str = ""
    key: str | None = KEY
    model: str = "test-model"
    listed: list[dict[str, Any]] | None = None

    @property
    def calls(self) -> int:
        return len(self.bodies)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        got = request.headers.get("Authorization")
        if self.key is not None and got != f"Bearer {self.key}":
            return refusal(401, f"Incorrect API key provided: {got}")
        body = json.loads(await request.read())
        number = len(self.bodies)
        self.bodies.append(body)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            answer = self.behave(body, number)
            if asyncio.iscoroutine(answer):
                answer = await answer
            if callable(answer):
                answer = await answer(request)
        finally:
            self.in_flight -= 1
        if answer is None:
            request.transport.abort()
            return web.Response()
        if isinstance(answer, web.StreamResponse):
            return answer
        return web.json_response(answer)

    async def models(self, request: web.Request) -> web.Response:
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return refusal(401, "Incorrect API key provided")
        listed = self.listed or [{"id": self.model, "object": "model"}]
        return web.json_response({"object": "list", "data": listed})


@asynccontextmanager
async def serving(
    behave: Callable[[dict[str, Any], int], Any],
    key: str | None = KEY,
    model: str = "test-model",
    listed: list[dict[str, Any]] | None = None,
) -> AsyncIterator[ChatServer]:
    """Run a ChatServer on a free port of 127.0.0.1."""
    server = ChatServer(behave, key=key, model=model, listed=listed)
    app = web.Application(client_max_size=2**28)
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_get("/v1/models", server.models)
    http = TestServer(app, host="127.0.0.1")
    await http.start_server(shutdown_timeout=0.1)
    server.url = str(http.make_url("/v1"))
    try:
        yield server
    finally:
        await http.close()
