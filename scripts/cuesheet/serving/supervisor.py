"""The process that serves a run: gateway, model servers and progress line.

It runs in its own session and ends with the run: on SIGTERM or SIGINT, or when the process
that started it has ended. The processes that it started end with it.
"""

import asyncio
import contextlib
import functools
import gc
import itertools
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from aiohttp import web

from cuesheet.errors import CuesheetError
from cuesheet.serving.backends import Backend, ExternalBackend, ReplayBackend
from cuesheet.serving.budget import Budget
from cuesheet.serving.credentials import keys_of
from cuesheet.serving.dispatcher import Counters, Dispatcher
from cuesheet.serving.gateway import Gateway
from cuesheet.serving.gpus import deal_out, visible_gpus
from cuesheet.serving.launch_command import (
    Launch,
    check_executable,
    check_model,
    demo_launch,
    find_python,
    managed_launch,
)
from cuesheet.serving.lifecycle import LOG_FILE, ServerFile
from cuesheet.serving.model_server import ManagedBackend, Replica
from cuesheet.serving.progress import PROGRESS_FILE, Progress
from cuesheet.serving.response_cache import ResponseCache
from cuesheet.serving.server_check import (
    CheckFailedError,
    CheckRequest,
    check_external,
    check_managed,
)
from cuesheet.serving.usage import WRITE_EVERY_S, Usage
from cuesheet.vlm.gateway_client import SERVER_FAILED
from demo_vlm import MODEL_ID as DEMO_MODEL

log = logging.getLogger(__name__)

PARENT_POLL_S = 0.5
LOADING_EVERY_S = 10.0
HTTP_SHUTDOWN_S = 1.0


def make_backend(
    config: dict[str, Any], run_dir: Path, on_failed: Callable[[str], None]
) -> Backend:
    """Return the model servers of a config, none started yet. Raises CuesheetError.

    `on_failed` is called with the cause if no managed server runs or will be started.
    """
    serve = config["serve"]
    if serve == "external":
        keys = keys_of(config)
        return ExternalBackend(
            keys, config.get("model"), config["timeout_s"], config.get("structured_output", True)
        )
    if serve == "replay":
        return ReplayBackend(config["model"], Path(config["cache_dir"]))
    if serve == "demo":
        launches = [demo_launch(run_dir)] * config["replicas"]
        model = config.get("model") or DEMO_MODEL
    elif serve in ("managed", "vllm-batch"):
        launches, model = _managed_launches(config), config["model"]
    else:
        raise CuesheetError(
            f"vlm.serve is {serve!r}; it can be demo, managed, vllm-batch, external or replay"
        )
    timeouts = config["ready_timeout_s"], config["timeout_s"]
    replicas = [
        Replica(name, launch, path, model, *timeouts)
        for (name, path), launch in zip(_logs(config, run_dir).items(), launches, strict=True)
    ]
    return ManagedBackend(replicas, model, config["max_restarts"], on_failed)


def _managed_launches(config: dict[str, Any]) -> list[Callable[[str], Launch]]:
    settings = config["managed"]
    if config["serve"] == "vllm-batch":
        python = find_python(settings) or sys.executable
        settings = {**settings, "server": "vllm-batch", "python": python}
    check_executable(settings)
    check_model(settings, config["model"])
    shares = deal_out(
        settings["gpus"],
        config["replicas"],
        settings["gpus_per_replica"],
        settings["tensor_parallel_size"],
    )
    return [
        managed_launch(
            settings,
            config["model"],
            gpus,
            config.get("shared_folder"),
            config.get("structured_output", True),
        )
        for gpus in shares
    ]


def _logs(config: dict[str, Any], run_dir: Path) -> dict[str, Path]:
    """Return the log of every replica by name; none for servers that the run does not start."""
    if config["serve"] in ("external", "replay"):
        return {}
    names = [f"replica-{number}" for number in range(config["replicas"])]
    return {name: run_dir / f"{name}.log" for name in names}


def _say(text: str) -> None:
    """Show a line on the terminal, if it still exists."""
    with contextlib.suppress(OSError, ValueError):
        # Snakemake's logger plugin may show its progress line there.
        erase = "\r\x1b[K" if sys.stderr.isatty() else ""
        print(f"{erase}cuesheet: {text}", file=sys.stderr, flush=True)


def _write_failure(server_file: ServerFile, cause: str) -> None:
    """Make jobs fail at once because the model server failed, and print the cause."""
    server_file.write(state="failed", error=cause)
    _say(f"{SERVER_FAILED}{cause}")


def _end_run(server_file: ServerFile, parent_pid: int | None, cause: str) -> None:
    """Make jobs fail at once with the cause, and ask Snakemake to start no further jobs."""
    log.error("%s", cause)
    _say(cause)
    server_file.write(state="failed", error=cause)
    if parent_pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(parent_pid, signal.SIGTERM)


async def supervise(config: dict[str, Any], run_dir: Path, parent_pid: int) -> int:
    """Serve until the run ends; return the exit status."""
    # Thousands of requests may wait here. The cycle collector would delay replies by inspecting
    # them, and they form no cycles.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    logs = {name: str(path) for name, path in _logs(config, run_dir).items()}
    server_file = ServerFile(
        run_dir,
        os.getpid(),
        parent_pid,
        pid_created=psutil.Process().create_time(),
        logs={"supervisor": str(run_dir / LOG_FILE), **logs},
    )
    server_file.write()
    try:
        async with contextlib.AsyncExitStack() as ending:
            backend = make_backend(config, run_dir, functools.partial(_write_failure, server_file))
            ending.push_async_callback(backend.close)
            about = {"shard": config.get("shard"), "datasets": list(config.get("totals") or {})}
            usage = Usage(run_dir / "usage.json", about, _gpus(config), backend.state)
            ending.callback(usage.write, ended=True)
            gateway, url = await _open_gateway(config, backend, ending)
            gateway.dispatcher.usage = usage
            usage.sent = gateway.dispatcher.counters.sent
            gateway.dispatcher.notify = _say
            gateway.dispatcher.on_fatal = functools.partial(
                _end_run, server_file, parent_pid if config.get("ends_run") else None
            )
            _start_reporting(config, run_dir, gateway, usage, ending)
            over = asyncio.create_task(_until_over(stop, parent_pid))
            ending.callback(over.cancel)
            checking = asyncio.create_task(_check(config, gateway, server_file))
            await asyncio.wait({checking, over}, return_when=asyncio.FIRST_COMPLETED)
            if not checking.done():
                checking.cancel()
            else:
                checking.result()
                server_file.write(state="ready", url=url, api_key=gateway.api_key)
                log.info("gateway ready at %s", url)
            await over
    except CuesheetError as error:
        log.error("%s", error)
        if not config.get("check"):  # otherwise the run waits for the check and prints the error
            _say(str(error))
        is_temporary = isinstance(error, CheckFailedError) and error.is_temporary
        server_file.write(state="failed", error=str(error), is_temporary=is_temporary)
        return 1
    except Exception as error:
        log.exception("the supervisor failed")
        server_file.write(state="failed", error=f"{type(error).__name__}: {error}")
        return 1
    if server_file.state != "failed":
        server_file.write(state="stopped")
    log.info("stopped")
    return 0


def _start_reporting(
    config: dict[str, Any],
    run_dir: Path,
    gateway: Gateway,
    usage: Usage,
    ending: contextlib.AsyncExitStack,
) -> None:
    """Start the tasks that show progress and record usage until `ending` closes."""
    progress = Progress(
        Path(config["results_dir"]),
        config.get("totals") or {},
        gateway.snapshot,
        file=run_dir / PROGRESS_FILE if config.get("progress_to_file") else None,
    )
    ending.callback(progress.print)
    reports = [_show_progress(progress), _record_usage(usage)]
    backend = gateway.backend
    if isinstance(backend, ManagedBackend) and (every_s := progress.every_s()):
        reports.append(_show_loading(backend, min(every_s, LOADING_EVERY_S)))
    for report in reports:
        ending.callback(asyncio.create_task(report).cancel)


async def _check(config: dict[str, Any], gateway: Gateway, server_file: ServerFile) -> None:
    """Check external servers now, and managed ones before the first request that is not cached.

    A server that does not answer is a warning if the cache may hold the responses of the run.
    Raises CheckFailedError.
    """
    if not config.get("check"):
        return
    backend, dispatcher, cache = gateway.backend, gateway.dispatcher, gateway.cache
    request = CheckRequest(config["model"], **config["check"])
    if isinstance(backend, ManagedBackend):
        attempts = config["max_attempts"] + config["max_restarts"]
        dispatcher.pending_check = functools.partial(
            check_managed, backend, request, _say, attempts
        )
    elif isinstance(backend, ExternalBackend):
        check = functools.partial(check_external, backend.upstreams, request, _say)
        root = ""
        try:
            reports = await check()
            root = next((report.root for report in reports if report.root), "")
            await asyncio.to_thread(cache.write_root, request.model, root)
        except CheckFailedError as error:
            may_be_cached = await asyncio.to_thread(cache.may_hold, request.model)
            if not error.is_temporary or not may_be_cached:
                raise
            _say(f"{error}. Until a request is not cached, the run works without it")
            dispatcher.pending_check = check
        root = root or await asyncio.to_thread(cache.read_root, request.model)
        server_file.write(model_root=root)


async def _open_gateway(
    config: dict[str, Any], backend: Backend, ending: contextlib.AsyncExitStack
) -> tuple[Gateway, str]:
    limits = config["concurrency"], config["max_attempts"]
    dispatcher = Dispatcher(backend, *limits, Counters(), budget=Budget.of(config))
    cache = ResponseCache(config["cache_dir"], config.get("recipes"))
    gateway = Gateway(dispatcher, cache, secrets.token_urlsafe(24))
    runner = web.AppRunner(gateway.application(), access_log=None, shutdown_timeout=HTTP_SHUTDOWN_S)
    await runner.setup()
    ending.push_async_callback(runner.cleanup)
    ending.push_async_callback(gateway.close)
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    host, port = runner.addresses[0][:2]
    return gateway, f"http://{host}:{port}/v1"


async def _until_over(stop: asyncio.Event, parent_pid: int) -> None:
    """Return on a signal, or when the process that started the run has ended."""
    try:
        parent = psutil.Process(parent_pid)
        parent.create_time()
    except psutil.NoSuchProcess:
        log.warning("the run (pid %d) ended before its gateway was ready", parent_pid)
        return
    while not stop.is_set():
        if not parent.is_running() or parent.status() == psutil.STATUS_ZOMBIE:
            log.warning("the run (pid %d) has ended; stopping", parent_pid)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), PARENT_POLL_S)
    log.info("received a signal to stop")


async def _show_progress(progress: Progress) -> None:
    every_s = progress.every_s()
    if every_s is None:
        return
    is_shown = True
    while is_shown:
        await asyncio.sleep(every_s)
        # In a thread, because counting files of a network file system takes a while.
        is_shown = await asyncio.to_thread(progress.print)


async def _record_usage(usage: Usage) -> None:
    """Count the seconds, and write usage.json every few seconds."""
    for second in itertools.count():
        if second % WRITE_EVERY_S == 0:
            usage.write()
        else:
            usage.tick()
        await asyncio.sleep(1.0)


def _gpus(config: dict[str, Any]) -> int:
    """Return the number of GPUs of the run: those of its job, otherwise those of its servers."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        return len(visible_gpus()[0])
    if config["serve"] != "managed":
        return 0
    managed = config["managed"]
    size = managed["gpus_per_replica"] or managed["tensor_parallel_size"]
    return config["replicas"] * size if visible_gpus()[0] else 0


async def _show_loading(backend: ManagedBackend, every_s: float) -> None:
    """Show what servers do while requests wait for them, unless they start quickly."""
    shown: dict[str, tuple[float, str]] = {}
    while True:
        await asyncio.sleep(every_s)
        loading = backend.loading()
        for name, (waited_s, line) in loading.items():
            before_s, before = shown.get(name, (None, ""))
            if before_s is None:
                shown[name] = waited_s, ""
            elif line != before or not 0 <= waited_s - before_s < LOADING_EVERY_S:
                _say(f"{name} starting, {waited_s:.0f} s" + (f": {line}" if line else ""))
                shown[name] = waited_s, line
        shown = {name: about for name, about in shown.items() if name in loading}
