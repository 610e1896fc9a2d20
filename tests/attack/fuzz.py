"""Fuzzing with hypothesis of everything that reads what others wrote.

Whatever comes in, the result is a valid value or the error that is meant for it, in bounded time:

    PYTHONPATH=scripts:tests:tests/unit python tests/attack/fuzz.py --examples 2000 --seed 0
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis
from chat_server import completion, serving
from gateway_setup import GATEWAY_KEY, gateway_before
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from cuesheet.artifacts.apply_corrections import subtasks_from_spans
from cuesheet.artifacts.corrections import read_correction
from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.subtasks import Window, clean_spans, join_windows
from cuesheet.config.load import load_config
from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError
from cuesheet.vlm import replies
from cuesheet.vlm.parsing import UnusableReplyError, parse_reply

MOST_SECONDS = 5.0  # for one input; all take milliseconds on an idle machine
REPLIES = [
    model
    for model in vars(replies).values()
    if isinstance(model, type) and issubclass(model, replies.Reply) and model is not replies.Reply
]
ANY_TEXT = some.text(alphabet=some.characters(), max_size=60)
ODD_TEXT = some.sampled_from(
    ["", "\x00", "\x1b[31m", "\ud800", "‮", "<think>", "</think>", "```json", "{", "}", '"', "0-3"]
)
NUMBERS = some.one_of(
    some.integers(-(10**20), 10**20),
    some.floats(allow_nan=True, allow_infinity=True),
    some.sampled_from([0, -1, 1, 1e308, -1e308, 2**63, 10**400]),
)
LEAVES = some.one_of(some.none(), some.booleans(), NUMBERS, ANY_TEXT, ODD_TEXT)
VALUES = some.recursive(
    LEAVES,
    lambda inner: some.lists(inner, max_size=5) | some.dictionaries(ANY_TEXT, inner, max_size=5),
    max_leaves=20,
)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Fail if an input takes too long."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < MOST_SECONDS, "an input took too long"


def _object_like(model: type) -> some.SearchStrategy:
    """Return objects with the keys of a reply model and values of any kind."""
    keys = some.sampled_from([*model.model_fields, "other"])
    return some.dictionaries(keys, VALUES, max_size=6)


@some.composite
def reply_texts(draw: Callable) -> tuple[str, type]:
    """A text that a model could send, and the reply class that is expected."""
    model = draw(some.sampled_from(REPLIES))
    parts = draw(
        some.lists(
            some.one_of(
                ANY_TEXT,
                ODD_TEXT,
                _object_like(model).map(json.dumps),
                some.just("[" * 3000),
                some.just('{"a":' * 3000),
            ),
            min_size=1,
            max_size=4,
        )
    )
    text = "".join(parts)
    return text[: draw(some.integers(0, len(text)))] if draw(some.booleans()) else text, model


@given(reply_texts())
def fuzz_replies(case: tuple[str, type]) -> None:
    text, model = case
    with bounded():
        try:
            value = parse_reply(text, model)
        except UnusableReplyError as error:
            value, message = None, str(error)
    if value is None:
        assert len(message) < 4000
        return
    assert isinstance(value, model)
    content = json.dumps(value.model_dump(mode="json"), ensure_ascii=False, allow_nan=False)
    assert "\x00" not in content
    assert "\\u0000" not in content
    assert "\x1b" not in content


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


@given(
    some.lists(some.tuples(NUMBERS.map(_float), NUMBERS.map(_float), ANY_TEXT)),
    some.integers(1, 80),
    some.sampled_from([1.0, 10.0, 29.97, 30.0]),
    some.floats(0.05, 5.0),
    some.integers(1, 40),
    some.integers(1, 3),
)
def fuzz_spans(
    spans: list, length: int, fps: float, min_subtask_s: float, max_subtasks: int, windows: int
) -> None:
    episode = Episode("d", 0, "t", fps, [index / fps for index in range(length)], {})
    edges = sorted({0, length, *(length * n // windows for n in range(windows))})
    segmentations = []
    with bounded():
        for start, end in itertools.pairwise(edges):
            cleaned = clean_spans(
                spans,
                Window(start, end),
                episode,
                min_subtask_s=min_subtask_s,
                max_subtasks=max_subtasks,
            )
            if not cleaned:
                return
            assert len(cleaned) <= max_subtasks
            segmentations.append(cleaned)
        joined = join_windows(segmentations, episode, min_subtask_s=min_subtask_s)
    # The invariants of a valid plan: one subtask at every frame, distinct starts, no empty label.
    assert joined[0].start_frame == 0
    assert joined[-1].end_frame == length
    assert all(a.end_frame == b.start_frame for a, b in itertools.pairwise(joined))
    assert all(part.start_frame < part.end_frame for part in joined)
    assert all(part.label.strip() for part in joined)
    if len(joined) > 1:
        assert min(part.end_s(episode) - part.start_s(episode) for part in joined) >= (
            min_subtask_s - 1e-3
        )


CORRECTION_KEYS = [
    "format",
    "dataset",
    "episode_index",
    "length",
    "subtasks",
    "vqa",
    "verdict",
    "note",
    "start_s",
    "end_s",
    "label",
    "camera",
    "frame_index",
    "type",
    "question",
    "answer",
    "delete",
]
CORRECTIONS = some.one_of(
    VALUES,
    some.fixed_dictionaries(
        {"format": some.just(1), "dataset": some.just("d"), "episode_index": some.just(3)},
        optional={
            "length": LEAVES,
            "subtasks": some.lists(
                some.fixed_dictionaries(
                    {}, optional={"start_s": LEAVES, "end_s": LEAVES, "label": LEAVES}
                ),
                max_size=4,
            ),
            "vqa": some.lists(
                some.dictionaries(some.sampled_from(CORRECTION_KEYS), VALUES, max_size=6),
                max_size=2,
            ),
            "verdict": LEAVES,
            "note": LEAVES,
        },
    ),
)
CSV_ROWS = some.lists(
    some.lists(some.one_of(ANY_TEXT, ODD_TEXT, NUMBERS.map(str)), max_size=4), max_size=6
)


@given(
    some.one_of(
        CORRECTIONS.map(lambda value: (json.dumps(value).encode(), ".json")),
        some.binary(max_size=200).map(lambda data: (data, ".json")),
        some.binary(max_size=200).map(lambda data: (data, ".csv")),
        some.tuples(some.sampled_from([",", ";", "\t"]), CSV_ROWS).map(
            lambda case: (
                "\n".join(
                    [case[0].join(["start", "end", "text"]), *map(case[0].join, case[1])]
                ).encode(errors="surrogatepass"),
                ".csv",
            )
        ),
    )
)
def fuzz_corrections(case: tuple[bytes, str]) -> None:
    data, suffix = case
    episode = Episode("d", 3, "t", 10.0, [index / 10 for index in range(50)], {})
    with tempfile.TemporaryDirectory() as folder, bounded():
        path = Path(folder) / f"000003{suffix}"
        path.write_bytes(data)
        try:
            message = ""
            correction = read_correction(path, "d")
            spans = [span.model_dump() for span in correction.subtasks or ()]
            parts = subtasks_from_spans(spans, episode) if spans else []
        except CuesheetError as error:
            parts, message = [], str(error)
    assert "Traceback" not in message
    assert len(message) < 20_000
    for before, after in itertools.pairwise(parts):
        assert before.end_frame == after.start_frame


@given(
    some.one_of(
        some.dictionaries(ANY_TEXT, VALUES, max_size=5),
        some.dictionaries(
            some.sampled_from(
                [
                    "dataset",
                    "episodes",
                    "cameras",
                    "keyframes",
                    "plan",
                    "interjections",
                    "vqa",
                    "vlm",
                    "output",
                    "existing",
                    "cluster",
                    "report",
                    "evaluate",
                    "seed",
                    "corrections_dir",
                    "prompts_dir",
                    "typo",
                ]
            ),
            VALUES,
            max_size=5,
        ),
    )
)
def fuzz_config(raw: Any) -> None:
    with bounded(), contextlib.suppress(CuesheetError):
        load_config(raw)


EDITS = some.lists(
    some.tuples(
        some.sampled_from(
            [
                "codebase_version",
                "fps",
                "features",
                "total_episodes",
                "total_frames",
                "data_path",
                "video_path",
                "chunks_size",
                "splits",
                "robot_type",
                "tools",
            ]
        ),
        VALUES,
    ),
    min_size=1,
    max_size=3,
)
V21_INFO = {
    "codebase_version": "v2.1",
    "fps": 10,
    "total_episodes": 1,
    "total_frames": 5,
    "chunks_size": 1000,
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": None,
    "features": {"action": {"dtype": "float32", "shape": [2], "names": None}},
}


@given(EDITS, some.lists(VALUES | some.binary(max_size=40), max_size=3))
def fuzz_metadata(edits: list[tuple[str, Any]], lines: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, bounded():
        meta = Path(folder) / "meta"
        meta.mkdir()
        (meta / "info.json").write_text(json.dumps(V21_INFO | dict(edits)))
        episode = {"episode_index": 0, "tasks": ["t"], "length": 5}
        encoded = [json.dumps(episode).encode()]
        encoded += [v if isinstance(v, bytes) else json.dumps(v).encode() for v in lines]
        (meta / "episodes.jsonl").write_bytes(b"\n".join(encoded))
        (meta / "tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "t"}))
        with contextlib.suppress(CuesheetError):
            read_dataset(Path(folder), "fuzzed")


REQUESTS = some.one_of(
    some.binary(max_size=200),
    VALUES.map(lambda value: json.dumps(value).encode()),
    some.fixed_dictionaries(
        {"messages": some.lists(some.dictionaries(ANY_TEXT, VALUES, max_size=3), max_size=3)},
        optional={"model": LEAVES, "stream": LEAVES, "response_format": VALUES, "seed": LEAVES},
    ).map(lambda value: json.dumps(value).encode()),
    some.just(b"[" * 100_000),
)
PATHS = some.sampled_from(
    ["/chat/completions", "/responses/invalidate", "/models", "/nothing", "/"]
)


class GatewayFuzz:
    """A gateway that runs in a loop of its own; requests are sent to it from fuzzed inputs."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._ending = contextlib.AsyncExitStack()
        self._folder = folder
        self._loop.run_until_complete(self._open())

    async def _open(self) -> None:
        server = await self._ending.enter_async_context(
            serving(lambda body, number: completion('{"x": 1}'))
        )
        gateway = await self._ending.enter_async_context(gateway_before(self._folder, server.url))
        self._url = gateway.link.url
        self._http = await self._ending.enter_async_context(aiohttp.ClientSession())

    def close(self) -> None:
        self._loop.run_until_complete(self._ending.aclose())
        self._loop.close()

    def send(self, path: str, body: bytes, key: str) -> None:
        self._loop.run_until_complete(self._send(path, body, key))

    async def _send(self, path: str, body: bytes, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        with bounded():
            async with self._http.post(self._url + path, data=body, headers=headers) as response:
                content = await response.read()
        assert response.status < 500, (response.status, content[:500])
        if key != GATEWAY_KEY:
            assert response.status == 401
        assert b"Traceback" not in content


def gateway_fuzz(gateway: GatewayFuzz) -> Callable[[], None]:
    keys = some.sampled_from([GATEWAY_KEY, GATEWAY_KEY, GATEWAY_KEY, "wrong", "é", ""])

    @given(PATHS, REQUESTS, keys)
    def fuzz_gateway(path: str, body: bytes, key: str) -> None:
        gateway.send(path, body, key)

    return fuzz_gateway


PURE = (
    fuzz_replies,
    fuzz_spans,
    fuzz_corrections,
    fuzz_config,
    fuzz_metadata,
)


def run_fuzz(target: Callable[[], None], examples: int, seed: int) -> tuple[int, float]:
    """Run a target on `examples` inputs; return how many there were, and the seconds."""
    count = 0
    inner = target.hypothesis.inner_test

    def counted(*arguments: Any, **named: Any) -> None:
        nonlocal count
        count += 1
        inner(*arguments, **named)

    target.hypothesis.inner_test = counted
    options = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    began = time.monotonic()
    try:
        hypothesis.seed(seed)(options(target))()
    finally:
        target.hypothesis.inner_test = inner
    return count, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=2000, help="inputs per target")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    total, seconds = 0, 0.0
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ending:
        gateway = GatewayFuzz(Path(folder))
        ending.callback(gateway.close)
        for target in (*PURE, gateway_fuzz(gateway)):
            count, target_s = run_fuzz(target, arguments.examples, arguments.seed)
            print(f"{target.__name__:20} {count:6} inputs {target_s:6.1f} s", flush=True)
            total, seconds = total + count, seconds + target_s
    print(f"{total} inputs, {seconds:.0f} s, none crashed or broke an invariant")
    sys.exit(0)


if __name__ == "__main__":
    main()
