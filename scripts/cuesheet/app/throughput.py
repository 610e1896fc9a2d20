"""Measures how many tokens per second the model servers read and write, in about one minute.

The requests are like those of a run: a contact sheet, the prompt `plan_describe` and the schema of
its reply. Every request has an image of its own, so no server can take it from a cache. At each
concurrency, replies of one token tell how fast prompts are read, and whole replies how fast
replies are written.
"""

import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from cuesheet.annotate import contact_sheet
from cuesheet.artifacts.episode import Keyframe
from cuesheet.config.models import Config
from cuesheet.config.prompt_files import bundled_files
from cuesheet.errors import CuesheetError
from cuesheet.serving.backends import Backend
from cuesheet.serving.upstream import CallFailedError, TransientError
from cuesheet.vlm import client
from cuesheet.vlm.prompts import Prompts
from cuesheet.vlm.replies import Description
from cuesheet.vlm.structured_output import response_format
from cuesheet.workflow.run import served_model

TOTAL_S = 60.0
# Concurrencies that are measured: 1, this factor, its square and so on, up to vlm.concurrency.
_FACTOR = 4
# Shares of a concurrency's time after which no further request is sent; the rest is for replies.
_READING_SHARE, _WRITING_SHARE = 0.25, 0.65
_FRAME_PX = (640, 480)
_FRAMES_PER_S = 2.0


@dataclass
class Phase:
    """Requests of one kind that were answered, their tokens, and the time until the last (s)."""

    requests: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Rates:
    """Tokens per second at one concurrency.

    `input` and `output` are those of `vlm.throughput`: a request with P prompt tokens and R reply
    tokens takes P / input + R / output seconds of the servers' time.
    """

    concurrency: int
    input: float
    output: float
    whole: Phase

    @property
    def requests_per_s(self) -> float:
        """Whole requests per second."""
        return self.whole.requests / self.whole.seconds


def rates_of(concurrency: int, short: Phase, whole: Phase) -> Rates:
    """Return the rates that explain the times of short and whole replies.

    Both phases give an equation, prompt_tokens / input + reply_tokens / output = seconds. If no
    positive rates solve them, or the server does not shorten replies, reading and writing each get
    half of the time. Raises CuesheetError if the server does not count tokens.
    """
    if not (whole.prompt_tokens and whole.reply_tokens):
        raise CuesheetError("the server's responses do not say how many tokens they have (usage)")
    shortened = 2 * short.reply_tokens * whole.requests < whole.reply_tokens * short.requests
    determinant = (
        short.prompt_tokens * whole.reply_tokens - whole.prompt_tokens * short.reply_tokens
    )
    reading = short.seconds * whole.reply_tokens - whole.seconds * short.reply_tokens
    writing = short.prompt_tokens * whole.seconds - whole.prompt_tokens * short.seconds
    if shortened and determinant > 0 and reading > 0 and writing > 0:
        return Rates(concurrency, determinant / reading, determinant / writing, whole)
    half_s = whole.seconds / 2
    return Rates(concurrency, whole.prompt_tokens / half_s, whole.reply_tokens / half_s, whole)


def concurrencies(most: int) -> list[int]:
    """Return the concurrencies to measure, rising to `most`."""
    powers = itertools.takewhile(
        lambda value: value < most, (_FACTOR**exponent for exponent in itertools.count())
    )
    return [*powers, most]


class Requests:
    """Makes chat requests whose images all differ."""

    def __init__(self, config: Config) -> None:
        folder = Path(config.prompts_dir)
        folder = folder if folder.is_dir() else bundled_files() / folder
        prompts = Prompts(folder / f"{name}.md" for name in ("system", "plan_describe"))
        layout = config.plan.frames
        with tempfile.TemporaryDirectory(prefix="cuesheet-throughput-") as made:
            frame = Path(made) / "frame.png"
            Image.radial_gradient("L").convert("RGB").resize(_FRAME_PX).save(frame)
            frames = [
                Keyframe("camera", number, number / _FRAMES_PER_S, frame, *_FRAME_PX)
                for number in range(layout.per_sheet)
            ]
            sheets = contact_sheet.compose(
                frames,
                columns=layout.columns,
                per_sheet=layout.per_sheet,
                tile_width=layout.tile_width,
            )
            self._sheet = sheets[0].image
        self._images = config.vlm.images
        end_s = layout.per_sheet / _FRAMES_PER_S
        self._texts = (
            prompts.render("system"),
            prompts.render(
                "plan_describe",
                frames=contact_sheet.describe_layout(sheets),
                task="Put the block into the box",
                start_s=0.0,
                end_s=end_s,
                episode_s=end_s,
                more_before=False,
                more_after=False,
                recorded="",
                suggested="",
                granularity=config.plan.granularity,
            ),
        )
        self._common: dict[str, Any] = {
            "model": served_model(config),
            "response_format": response_format(Description),
            **config.vlm.sampling.model_dump(exclude_none=True),
        }

    def body(self, *, whole: bool) -> dict[str, Any]:
        """Return a request for a whole reply, or for one token."""
        sheet = self._sheet.copy()
        colors = [tuple(random.randbytes(3)) for _ in range(16)]
        for number, color in enumerate(colors):
            ImageDraw.Draw(sheet).rectangle((8 * number, 0, 8 * number + 7, 7), fill=color)
        image = client.Image(
            *contact_sheet.encode(sheet, self._images.format, self._images.jpeg_quality)
        )
        system, text = self._texts
        content = [image.part(), {"type": "text", "text": text}]
        messages = [
            {"role": "system", "content": system},
            {"role": "user", "content": content},
        ]
        limit = {} if whole else {"max_tokens": 1}
        return {**self._common, "messages": messages, **limit}


async def measure(
    backend: Backend,
    requests: Requests,
    levels: Sequence[int],
    show: Callable[[str], None],
    total_s: float = TOTAL_S,
) -> list[Rates]:
    """Measure the rates at rising concurrency and show a line for each.

    Stops if the time is over or the server rejects requests at this concurrency. Raises
    CuesheetError if no concurrency was measured.
    """
    deadline = time.monotonic() + total_s
    found: list[Rates] = []
    for number, concurrency in enumerate(levels):
        slot_s = (deadline - time.monotonic()) / (len(levels) - number)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                if not found:  # the first request of its kind includes compilation of the schema
                    await _send(backend, requests, whole=False)
                rates = await _measure_level(backend, requests, concurrency, slot_s)
        except TimeoutError:
            problem = f"not every request was answered within {total_s:g} s"
        except (CallFailedError, TransientError) as error:
            problem = str(error)
        else:
            found.append(rates)
            show(_line(rates))
            continue
        if not found:
            raise CuesheetError(f"the throughput cannot be measured: {problem}")
        show(f"  concurrency {concurrency:>4}: {problem}; higher ones are not measured")
        break
    return found


async def _measure_level(
    backend: Backend, requests: Requests, concurrency: int, slot_s: float
) -> Rates:
    begun = time.monotonic()

    async def phase(*, whole: bool, until: float) -> Phase:
        made, start = Phase(), time.monotonic()

        async def worker() -> None:
            while True:
                usage = await _send(backend, requests, whole=whole)
                made.requests += 1
                made.prompt_tokens += usage.get("prompt_tokens") or 0
                made.reply_tokens += usage.get("completion_tokens") or 0
                made.seconds = time.monotonic() - start
                if time.monotonic() >= until:
                    return

        await asyncio.gather(*(worker() for _ in range(concurrency)))
        return made

    short = await phase(whole=False, until=begun + _READING_SHARE * slot_s)
    whole = await phase(whole=True, until=begun + _WRITING_SHARE * slot_s)
    return rates_of(concurrency, short, whole)


async def _send(backend: Backend, requests: Requests, *, whole: bool) -> Mapping[str, Any]:
    """Send a request as the server accepts it, and return its token counts."""
    body = await asyncio.to_thread(requests.body, whole=whole)
    upstream = await backend.pick("")
    reply = await upstream.ask(upstream.adjustments.apply(body))
    usage = reply.get("usage")
    return usage if isinstance(usage, Mapping) else {}


def _line(rates: Rates) -> str:
    whole = rates.whole
    return (
        f"  concurrency {rates.concurrency:>4}: input {rates.input:,.0f} tokens/s, "
        f"output {rates.output:,.0f} tokens/s; {rates.requests_per_s:.2f} requests/s of "
        f"{whole.prompt_tokens / whole.requests:,.0f} + {whole.reply_tokens / whole.requests:,.0f} "
        "tokens"
    )


def as_settings(found: Sequence[Rates]) -> str:
    """Return the settings with the rates of the concurrency that serves most requests."""
    best = max(found, key=lambda rates: rates.requests_per_s)
    return (
        "Settings for the estimate:\n\n"
        "vlm:\n"
        f"  throughput: {{input: {best.input:.1f}, output: {best.output:.1f}}}"
        f"  # measured with {best.concurrency} requests in flight"
    )
