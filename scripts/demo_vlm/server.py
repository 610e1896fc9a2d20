"""The HTTP side: routes, authorization, life and death of the process."""

import asyncio
import hashlib
import hmac
import json
import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
from aiohttp import web

from demo_vlm import MODEL_ID, answers, tokens
from demo_vlm.request import ApiError, ChatRequest, parse_body, read_media

log = logging.getLogger("demo_vlm")

# Room for a request with many images: 60 frames of 1 MB as base64 are 80 MB.
MAX_BODY_BYTES = 256 * 1024 * 1024
PARENT_POLL_S = 0.5


def complete(body: Any) -> dict:
    """Answer one chat request: the body of the OpenAI response. Raises ApiError."""
    request = parse_body(body)
    media = read_media(request.parts)
    text = answers.reply_text(request, media)
    prompt_tokens = tokens.count_prompt(request.texts, media)
    text, completion_tokens, finish_reason = tokens.cut(text, request.max_tokens)
    return {
        "id": f"chatcmpl-{_digest(request)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL_ID,
        "system_fingerprint": "classical-vision",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def _digest(request: ChatRequest) -> str:
    """Return the id of a request; equal requests have equal ids."""
    digest = hashlib.sha256()
    for text in request.texts:
        digest.update(text.encode("utf-8", "replace"))
    for part in request.parts:
        digest.update(hashlib.sha256(part.url.encode("utf-8", "replace")).digest())
    return digest.hexdigest()[:24]


def application(api_key: str | None, pool: ThreadPoolExecutor) -> web.Application:
    """Return the aiohttp application. Images are processed in `pool`, so `/health` can answer."""

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "model": MODEL_ID, "language_model": False})

    async def models(_: web.Request) -> web.Response:
        entry = {"id": MODEL_ID, "object": "model", "created": 0, "owned_by": "cuesheet"}
        return web.json_response({"object": "list", "data": [entry]})

    async def model(request: web.Request) -> web.Response:
        if request.match_info["name"] != MODEL_ID:
            raise ApiError.unknown_model(request.match_info["name"])
        return web.json_response(
            {"id": MODEL_ID, "object": "model", "created": 0, "owned_by": "cuesheet"}
        )

    async def chat(request: web.Request) -> web.Response:
        try:
            raw = await request.read()
            body = await asyncio.get_running_loop().run_in_executor(pool, json.loads, raw)
        except (ValueError, RecursionError) as error:
            raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error
        started = time.perf_counter()
        result = await asyncio.get_running_loop().run_in_executor(pool, complete, body)
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
            return web.json_response(error.body(), status=error.status)
        except web.HTTPException as error:
            message = f"{request.method} {request.path}: {error.reason}"
            return web.json_response(ApiError(error.status, message).body(), status=error.status)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            failure = ApiError(500, "the server failed on this request; see its log")
            return web.json_response(failure.body(), status=500)

    app = web.Application(middlewares=[guard], client_max_size=MAX_BODY_BYTES)
    app.router.add_get("/health", health)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/v1/models/{name}", model)
    app.router.add_post("/v1/chat/completions", chat)
    return app


def _authorize(header: str, api_key: str) -> None:
    scheme, _, given = header.partition(" ")
    same = hmac.compare_digest(given.strip().encode(), api_key.encode())
    if scheme.lower() != "bearer" or not same:
        raise ApiError(
            401,
            "the API key is missing or wrong: send it as `Authorization: Bearer KEY`",
            code="invalid_api_key",
        )


async def _serve(
    host: str,
    port: int,
    port_file: Path | None,
    api_key: str | None,
    workers: int,
    parent_pid: int,
) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="vision")
    runner = web.AppRunner(application(api_key, pool), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, shutdown_timeout=2.0)
        await site.start()
        bound = runner.addresses[0][1]
        log.info("%s listens on http://%s:%d/v1", MODEL_ID, host, bound)
        log.info(
            "%s is not a language model: its replies come from classical vision on the pixels "
            "of each request and from the words of its task",
            MODEL_ID,
        )
        if port_file is not None:
            partial = port_file.with_name(f".{port_file.name}.{os.getpid()}")
            partial.write_text(f"{bound}\n", encoding="utf-8")
            partial.replace(port_file)  # whoever waits for the file reads it whole
        while not ended.is_set():
            try:
                await asyncio.wait_for(ended.wait(), PARENT_POLL_S)
            except TimeoutError:
                if os.getppid() != parent_pid:
                    log.info("the parent process %d has ended, so this one ends too", parent_pid)
                    break
    finally:
        await runner.cleanup()
        pool.shutdown(wait=False, cancel_futures=True)
        log.info("%s has stopped", MODEL_ID)


def serve(
    *,
    host: str,
    port: int,
    port_file: Path | None = None,
    api_key: str | None = None,
    workers: int = 2,
    parent_pid: int | None = None,
) -> int:
    """Serve until SIGTERM, SIGINT or the end of the parent process; returns 0.

    Raises OSError if the address cannot be had.
    """
    # One thread a call: concurrency comes from the calls, and the order of sums stays the same.
    cv2.setNumThreads(1)
    asyncio.run(_serve(host, port, port_file, api_key, workers, parent_pid or os.getppid()))
    return 0
