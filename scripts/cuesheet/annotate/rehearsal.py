"""Rehearses the stages of an episode: they run, but requests are recorded instead of sent.

The stages are the real ones, so the requests are those of a run: same prompts, same images, same
conditions. No frame is decoded: images are known by their size. Replies are typical ones; how many
subtasks an episode has is assumed.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cuesheet.annotate import contact_sheet
from cuesheet.annotate.stage import CutClip, Reply, Stage
from cuesheet.artifacts.episode import Episode, Keyframe
from cuesheet.artifacts.stage_files import StageName
from cuesheet.config.vlm import VlmConfig
from cuesheet.vlm.client import Answer, Clip, Image, Media
from cuesheet.vlm.prompts import Prompts
from cuesheet.vlm.replies import MAX_LABEL_CHARS, Description, Segmentation
from cuesheet.vlm.vocabulary import DraftedSteps, MergedSteps

# All have four digits, so that estimates do not depend on what was rehearsed before.
_numbers = itertools.cycle(range(1000, 10_000))


def _words() -> str:
    """Return a typical sentence. Stages request repetitions again, so the sentences differ."""
    return f"the gripper moves to the red block and lifts it at {next(_numbers)}"


@dataclass(frozen=True)
class UnsentImage(Image):
    """An image that would be sent, by its size (px)."""

    data: bytes = b""
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class UnsentClip(Clip):
    """A clip that would be sent, by the size (px) and number of its sampled frames."""

    data: bytes = b""
    width: int = 0
    height: int = 0
    count: int = 1


@dataclass(frozen=True)
class Request:
    """One request. `texts`: of the system and the user; `reply`: a typical reply as JSON."""

    stage: str
    prompt: str
    images: tuple[tuple[int, int], ...]
    texts: tuple[str, str]
    reply: str


class _NoModel:
    """Takes the place of the connection to the model: records requests, returns typical replies."""

    model: str | None = None

    def __init__(self, hashes: Mapping[str, str], subtask_s: float) -> None:
        self.prompts = hashes
        self.calls: list[dict[str, Any]] = []
        self.requests: list[Request] = []
        self.values: Mapping[str, Any] = {}  # of the prompt of the next request
        self.stage = ""
        self.subtask_s = subtask_s

    async def ask(
        self,
        *,
        name: str,
        prompt: str,
        reply: type[Reply],
        system: str,
        media: Sequence[Media],
        text: str,
        **_: Any,
    ) -> Answer[Reply]:
        value = self._typical(reply)
        images = tuple(size for one in media for size in _sizes(one))
        written = value.model_dump_json()
        self.requests.append(Request(self.stage, prompt, images, (system, text), written))
        return Answer(value, written, {"name": name, "outcome": "ok", "key": "0" * 64})

    def _typical(self, reply: type[BaseModel]) -> Any:
        """Return a typical reply; a `Segmentation` may have labels that `reply` does not allow."""
        if not issubclass(reply, Segmentation | Description | DraftedSteps | MergedSteps):
            schema = _schema(reply)
            counts = {
                "rephrasings": self.values.get("count"),
                "labels": self.values.get("count"),
                **dict(self.values.get("axes") or {}),
            }
            return reply.model_validate(_instance(schema, schema, counts))
        start_s, end_s = float(self.values.get("start_s", 0)), float(self.values["end_s"])
        count = max(1, min(40, round((end_s - start_s) / self.subtask_s)))
        times = [round(start_s + (end_s - start_s) * n / count, 2) for n in range(count + 1)]
        # What a part of any of these replies has; the rest is ignored.
        parts = [
            {
                **dict.fromkeys(("what_changed", "what"), _words()),
                "start_s": begins_s,
                "end_s": ends_s,
                "at_s": begins_s if reply is Description else ends_s,
                "numbers": [number + 1],
                "label": f"pick up block {number}",
            }
            for number, (begins_s, ends_s) in enumerate(itertools.pairwise(times))
        ]
        model = Segmentation if issubclass(reply, Segmentation) else reply
        scene = ". ".join(_words() for _ in range(3))
        return model.model_validate(
            {**dict.fromkeys(("subtasks", "events", "steps"), parts), "scene": scene}
        )


@dataclass
class Rehearsal(Stage):
    """A stage whose requests are recorded instead of sent."""

    vlm: _NoModel

    def encode_keyframe(self, frame: Keyframe) -> UnsentImage:
        return UnsentImage(width=frame.width, height=frame.height)

    def encode_sheet(self, sheet: contact_sheet.Sheet) -> UnsentImage:
        width, height = sheet.size
        return UnsentImage(width=width, height=height)

    def clip(self, cut: CutClip, start_frame: int, end_frame: int, fps: float) -> UnsentClip:
        """Return a clip without cutting it; models merge two sampled frames into one."""
        frame = next(iter(self.episode.cameras.values()))
        seconds = (end_frame - start_frame) / self.episode.fps
        count = max(1, round(seconds * fps / 2))
        return UnsentClip(width=frame.width, height=frame.height, count=count)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def expect(self, values: Mapping[str, object]) -> None:
        """Tell the model that is not asked the values of the prompt of the next request."""
        # Nothing else runs before it reads them.
        self.vlm.values, self.vlm.stage = values, self.name

    async def ask(
        self,
        name: str,
        prompt: str,
        reply: type[Reply],
        media: Sequence[Media] | None,
        values: Mapping[str, object] | None = None,
        *more: Any,
        **others: Any,
    ) -> Answer[Reply]:
        self.expect(values or {})
        return await super().ask(name, prompt, reply, media, values, *more, **others)


def unread_clip(start_frame: int, end_frame: int) -> bytes:
    """Take the place of the function that cuts a clip: a rehearsal reads no frames."""
    return b""


def _sizes(media: Media) -> list[tuple[int, int]]:
    """Return the size of each image that `media` is sampled to."""
    if isinstance(media, UnsentClip):
        return [(media.width, media.height)] * media.count
    assert isinstance(media, UnsentImage)
    return [(media.width, media.height)]


@functools.cache
def _schema(reply: type[BaseModel]) -> dict[str, Any]:
    return reply.model_json_schema()


def _instance(
    schema: Mapping[str, Any], root: Mapping[str, Any], counts: Mapping[str, Any], number: int = 0
) -> Any:
    """Return a value that a JSON schema allows.

    References point into `root`. `counts` are the lengths of lists by their key; `number` is the
    place of the value in its list, whose items differ.
    """
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return _instance(schema["anyOf"][0], root, counts)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][number % len(schema["enum"])]
    kind = schema.get("type")
    if kind == "object":
        return {
            key: _list_of(part, root, counts, counts[key])
            if counts.get(key) is not None and part.get("type") == "array"
            else _instance(part, root, counts)
            for key, part in schema.get("properties", {}).items()
        }
    if kind == "array":
        return _list_of(schema, root, counts, max(1, schema.get("minItems", 1)))
    if kind == "string" and schema.get("maxLength") == MAX_LABEL_CHARS:
        return f"pick up block {next(_numbers)}"
    if kind == "string":
        return _words()[-schema.get("maxLength", 200) :].strip()
    return {"integer": 1, "number": 120.5, "boolean": True}.get(str(kind))


def _list_of(
    schema: Mapping[str, Any], root: Mapping[str, Any], counts: Mapping[str, Any], count: int
) -> list[Any]:
    return [_instance(schema["items"], root, counts, number) for number in range(count)]


def make_rehearsal(
    name: StageName, episode: Episode, prompts: Prompts, settings: VlmConfig, subtask_s: float
) -> Rehearsal:
    """Return a stage to rehearse. `subtask_s`: assumed length of a subtask (s)."""
    return Rehearsal(
        name=name,
        episode=episode,
        prompts=prompts,
        vlm=_NoModel(prompts.hashes, subtask_s),
        images=settings.images,
        sampling=settings.sampling.model_dump(),
        serve=settings.serve,
    )
