"""A gateway on a real port in front of given servers, for tests."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestServer
from chat_server import KEY
from processes import PATIENCE_S

from cuesheet.serving.backends import Backend, ExternalBackend
from cuesheet.serving.dispatcher import Counters, Dispatcher
from cuesheet.serving.gateway import Gateway
from cuesheet.serving.response_cache import ResponseCache, describe_request, key_of
from cuesheet.vlm.gateway_client import GatewayClient

GATEWAY_KEY = "gateway-key-77aa"


@dataclass
class Running:
    """A gateway that runs; `naps` are the seconds that its retries would have waited."""

    gateway: Gateway
    link: GatewayClient
    naps: list[float]

    @property
    def counters(self) -> Counters:
        return self.gateway.dispatcher.counters

    async def ask(
        self, body: dict[str, Any], group: str = "", stage: str = ""
    ) -> tuple[int, dict[str, Any]]:
        headers = {"X-Cuesheet-Group": group, "X-Cuesheet-Stage": stage}
        return await self.link.post("/chat/completions", body, headers)


def supervisor_settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the settings of a supervisor of one demo server, with changes."""
    return {
        "serve": "demo",
        "model": None,
        "base_urls": [],
        "api_key_env": None,
        "api_key_file": None,
        "concurrency": 4,
        "timeout_s": 30.0,
        "max_attempts": 5,
        "max_restarts": 2,
        "ready_timeout_s": 60.0,
        "replicas": 1,
        "cache_dir": str(folder / "cache"),
        "results_dir": str(folder / "results"),
        "totals": {"demo": {"episodes": ["000000"]}},
        **changes,
    }


@asynccontextmanager
async def gateway_before(
    folder: Path,
    *urls: str,
    backend: Backend | None = None,
    concurrency: int = 8,
    max_attempts: int = 3,
    timeout_s: float = PATIENCE_S,
) -> AsyncIterator[Running]:
    """Run a gateway with its cache in `folder`/cache and a server.json for jobs in `folder`."""
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    backend = backend or ExternalBackend(dict.fromkeys(urls, KEY), "test-model", timeout_s)
    dispatcher = Dispatcher(backend, concurrency, max_attempts, Counters(), sleep=nap)
    gateway = Gateway(dispatcher, ResponseCache(folder / "cache"), GATEWAY_KEY)
    http = TestServer(gateway.application(), host="127.0.0.1")
    await http.start_server(shutdown_timeout=0.1)
    server_file = folder / "server.json"
    url = str(http.make_url("/v1"))
    server_file.write_text(
        json.dumps({"state": "ready", "url": url, "api_key": GATEWAY_KEY, "logs": {}})
    )
    try:
        yield Running(gateway, GatewayClient(url, GATEWAY_KEY, server_file), naps)
    finally:
        await gateway.close()
        await http.close()
        await backend.close()


def chat(text: str, **more: Any) -> dict[str, Any]:
    """A chat request with one question."""
    content = [{"type": "text", "text": text}]
    messages = [
        {"role": "system", "content": "Look closely."},
        {"role": "user", "content": content},
    ]
    return {"model": "test-model", "messages": messages, "max_tokens": 64, **more}


def request_key(body: dict[str, Any]) -> str:
    """The key under which the response to a chat request is cached."""
    return key_of(describe_request(body))
