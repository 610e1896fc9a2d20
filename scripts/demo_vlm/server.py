"""The HTTP side: routes, authorization, life and death of the process."""

import argparse
import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
from aiohttp import web

from demo_vlm import MODEL_ID, tokens
from demo_vlm.answers import reply_text
from demo_vlm.request import ApiError, parse_request

log = logging.getLogger("demo_vlm")

# Room for a request with many images: 60 frames of 1 MB as base64 are 80 MB.
MAX_BODY_BYTES = 256 * 1024 * 1024
PARENT_POLL_S = 0.5


def complete(raw: bytes) -> dict:
    """Answer one chat request: the body of the OpenAI response. Raises ApiError."""
    request = parse_request(raw)
    media = request.read_media()
    prompt_tokens = tokens.count_prompt(request.texts, media)
    most = request.max_completion_tokens or request.max_tokens
    text = reply_text(request.question, request.schema(), media)
    text, completion_tokens, finish_reason = tokens.cut(text, most)
    message = {"role": "assistant", "content": text}
    return {
        "id": f"chatcmpl-{hashlib.sha256(raw).hexdigest()[:24]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL_ID,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def application(api_key: str | None, pool: ThreadPoolExecutor) -> web.Application:
    """Return the aiohttp application. Images are processed in `pool`, so `/health` can answer."""

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "model": MODEL_ID, "language_model": False})

    async def models(_: web.Request) -> web.Response:
        entry = {"id": MODEL_ID, "object": "model", "created": 0, "owned_by": "cuesheet"}
        return web.json_response({"object": "list", "data": [entry]})

    async def chat(request: web.Request) -> web.Response:
        raw = await request.read()
        started = time.perf_counter()
        result = await asyncio.get_running_loop().run_in_executor(pool, complete, raw)
        log.info(
            "chat: %d prompt tokens, %d completion tokens, %s, %.0f ms",
            result["usage"]["prompt_tokens"],
            result["usage"]["completion_tokens"],
            result["choices"][0]["finish_reason"],
            1000 * (time.perf_counter() - started),
        )
        return web.json_response(result)

    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            if api_key is not None and request.path != "/health":
                _authorize(request.headers.get("Authorization", ""), api_key)
            return await handler(request)
        except ApiError as error:
            failure = error
        except web.HTTPException as error:
            failure = ApiError(error.status, f"{request.method} {request.path}: {error.reason}")
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            failure = ApiError(500, "the server failed on this request; see its log")
        return web.json_response(failure.body(), status=failure.status)

    app = web.Application(middlewares=[guard], client_max_size=MAX_BODY_BYTES)
    app.router.add_get("/health", health)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    return app


def _authorize(header: str, api_key: str) -> None:
    scheme, _, given = header.partition(" ")
    same = hmac.compare_digest(given.strip().encode(), api_key.encode())
    if scheme.lower() != "bearer" or not same:
        message = "the API key is missing or wrong: send it as `Authorization: Bearer KEY`"
        raise ApiError(401, message, code="invalid_api_key")


async def serve(options: argparse.Namespace, api_key: str | None) -> None:
    """Serve until SIGTERM, SIGINT or the end of the parent process.

    Raises OSError if the address cannot be had.
    """
    parent_pid = os.getppid()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    # One thread per call: concurrency comes from the calls, and the order of sums stays the same.
    cv2.setNumThreads(1)
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    runner = web.AppRunner(application(api_key, pool), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", options.port, shutdown_timeout=2.0).start()
        port = runner.addresses[0][1]
        log.info("%s listens on http://127.0.0.1:%d/v1", MODEL_ID, port)
        log.info(
            "%s is not a language model: its replies come from classical vision on the pixels "
            "of each request and from the words of its task",
            MODEL_ID,
        )
        if options.port_file is not None:
            partial = options.port_file.with_name(f".{options.port_file.name}.{os.getpid()}")
            partial.write_text(f"{port}\n", encoding="utf-8")
            partial.replace(options.port_file)  # whoever waits for the file reads it whole
        while not ended.is_set() and os.getppid() == parent_pid:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), PARENT_POLL_S)
    finally:
        await runner.cleanup()
        pool.shutdown(wait=False, cancel_futures=True)
        log.info("%s has stopped", MODEL_ID)
