"""Check the model server that a configuration names, and print what was found.

CONFIG is a YAML file with settings that override those of config/config.yaml, as in a run. A
managed server is started for the check and stopped afterwards. With --throughput, the check also
measures how many tokens per second the servers read and write, for `vlm.throughput` (about one
minute).
"""

import argparse
import asyncio
import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cuesheet.app.settings_file import DEFAULT_CONFIG, read_settings
from cuesheet.config.load import load_config
from cuesheet.config.models import Config
from cuesheet.errors import CuesheetError
from cuesheet.serving.backends import Backend, BackendFailedError, ExternalBackend
from cuesheet.serving.server_check import (
    CheckFailedError,
    CheckRequest,
    ServerReport,
    check_managed,
    check_upstream,
)
from cuesheet.serving.supervisor import make_backend
from cuesheet.serving.upstream import Upstream
from cuesheet.vlm.coordinates import explain_convention
from cuesheet.workflow.request_images import image_counts
from cuesheet.workflow.run import served_model, vlm_settings

_SHOWN_MODELS = 5


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 if a server cannot be used."""
    parser = argparse.ArgumentParser(
        prog="cuesheet check-server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "config",
        type=Path,
        nargs="?",
        metavar="CONFIG",
        help=f"settings that override those of {DEFAULT_CONFIG}",
    )
    parser.add_argument(
        "--throughput",
        action="store_true",
        help="measure tokens per second at rising concurrency, for vlm.throughput (1 minute)",
    )
    options = parser.parse_args(arguments)
    logging.getLogger("cuesheet").addHandler(logging.NullHandler())  # findings are enough
    config = load_config(read_settings(options.config))
    if config.vlm.serve == "replay":
        print("vlm.serve is replay, which needs no server; there is nothing to check")
        return 0
    return asyncio.run(check(config, print, throughput=options.throughput))


async def check(config: Config, show: Callable[[str], None], *, throughput: bool = False) -> int:
    """Check all servers of a configuration and show the findings; 1 if one cannot be used.

    `throughput`: also measure their tokens per second if all can be used.
    """
    request = CheckRequest(
        served_model(config),
        image_counts(config),
        config.vlm.sampling.model_dump(exclude_none=True),
        config.vlm.images.format,
    )
    with tempfile.TemporaryDirectory(prefix="cuesheet-check-") as folder:
        settings = vlm_settings(config)
        backend = make_backend(settings, Path(folder), lambda cause: None)
        try:
            if isinstance(backend, ExternalBackend):
                checks = [
                    await _show_external(upstream, request, config, show)
                    for upstream in backend.upstreams
                ]
                if not all(checks):
                    return 1
            else:
                attempts = config.vlm.max_attempts
                report = await check_managed(backend, request, lambda text: None, attempts)
                _show(report, request, config, f"{request.images} per request are accepted", show)
            if throughput:
                await _show_throughput(backend, config, show)
            return 0
        except BackendFailedError as error:
            raise CuesheetError(str(error)) from None
        finally:
            await backend.close()


async def _show_throughput(backend: Backend, config: Config, show: Callable[[str], None]) -> None:
    from cuesheet.app import throughput  # loads Pillow

    levels = throughput.concurrencies(config.vlm.concurrency)
    found = await throughput.measure(backend, throughput.Requests(config), levels, show)
    show("\n" + throughput.as_settings(found))


async def _show_external(
    upstream: Upstream, request: CheckRequest, config: Config, show: Callable[[str], None]
) -> bool:
    """Check one server, with one image if it rejects as many as the run may send."""
    images = f"{request.images} per request are accepted, as many as this configuration sends"
    try:
        try:
            report = await check_upstream(upstream, request, lambda text: None)
        except CheckFailedError as error:
            if error.error is None or error.error.kind != "too_many_images":
                raise
            images = str(error)
            report = await check_upstream(
                upstream, replace(request, image_counts=()), lambda text: None
            )
    except CheckFailedError as error:
        show(upstream.name)
        show(f"  ERROR: {error}")
        return False
    _show(report, request, config, images, show)
    return True


def _show(
    report: ServerReport,
    request: CheckRequest,
    config: Config,
    images: str,
    show: Callable[[str], None],
) -> None:
    for name, text in findings(report, request, config, images).items():
        show(f"  {name + ':':<20}{text}" if name else text)


def findings(
    report: ServerReport, request: CheckRequest, config: Config, images: str
) -> dict[str, Any]:
    """Return the findings by name, in the order in which they are shown."""
    listed = ", ".join(report.models[:_SHOWN_MODELS]) or "none"
    more = len(report.models) - _SHOWN_MODELS
    in_prompt = any("schema" in change for change in report.adjustments)
    structured = "in the prompt" if in_prompt else "response_format is accepted"
    if report.reply_error:
        structured += f"; the reply was not of the requested form: {report.reply_error}"
    changes = [change for change in report.adjustments if "schema" not in change]
    convention, reason = explain_convention(
        request.model, config.vlm.coordinates, report.root or ""
    )
    return {
        "": report.server,
        "model": request.model + (f" ({report.root})" if report.root else ""),
        "listed models": listed + (f" and {more} more" if more > 0 else ""),
        "structured output": structured,
        "answers": f"in {report.answer_field or 'no field'}",
        "images": images,
        "parameters": "; ".join(changes) or "all are accepted",
        "coordinates": f"{convention}: {reason}",
        "latency": f"{report.latency_s:.2f} s for a small request",
    }
