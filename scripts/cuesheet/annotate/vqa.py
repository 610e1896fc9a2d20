"""Stage VQA: questions about single frames with answers grounded in them."""

import asyncio
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from cuesheet.annotate.stage import Stage, row
from cuesheet.annotate.task_text import is_placeholder
from cuesheet.artifacts.corrections import apply_vqa, check_decoded
from cuesheet.artifacts.episode import Keyframe
from cuesheet.config.models import VqaConfig
from cuesheet.vlm.client import VlmError
from cuesheet.vlm.coordinates import (
    Convention,
    CoordinateCheck,
    CoordinateFrame,
    PixelLimits,
)
from cuesheet.vlm.replies import VQA_REPLIES, BboxAnswer, KeypointAnswer

# Pictures that are encoded and waiting for their answer at any time, in one episode's job: enough
# to fill a server, few enough for an hour of three cameras in bounded memory.
MAX_IN_FLIGHT = 64


def question_type(types: Sequence[str], *, seed: int, frame: Keyframe, episode_index: int) -> str:
    """The type that is asked of a frame; depends on its arguments alone."""
    key = f"vqa {seed} {episode_index} {frame.camera} {frame.frame_index}"
    return random.Random(key).choice(list(types))


async def annotate(
    stage: Stage,
    settings: VqaConfig,
    *,
    cameras: Sequence[str],
    convention: Convention,
    seed: int,
    corrections: Sequence[Mapping[str, Any]] = (),
    progress: Any = None,
) -> dict[str, Any]:
    """Fill `stage` with question and answer events; returns `pairs`, the same in typed form.

    `cameras` are asked at every tick. `corrections` are applied to the replies, see
    `cuesheet.artifacts.corrections`; `corrected` lists them. `progress`, if given, is called after
    every reply.
    """
    check_decoded(corrections, stage.episode)
    frames = _frames(stage, cameras)
    limits = PixelLimits()
    if convention == "resized_pixels":
        limits = PixelLimits.of(stage.sampling.get("mm_processor_kwargs"))
    pairs: list[dict[str, Any]] = []
    check = CoordinateCheck(convention)

    async def work() -> None:
        for frame in frames:
            coordinates = CoordinateFrame(convention, frame.width, frame.height, limits)
            pair = await _ask(stage, settings, frame, coordinates, seed, check)
            if pair is not None:
                pairs.append(pair)
            if progress is not None:
                progress()

    await asyncio.gather(*(work() for _ in range(MAX_IN_FLIGHT)))
    _check_replies(stage, settings.max_invalid)
    if problem := check.warning():
        stage.warn(problem)
    pairs, corrected = apply_vqa(pairs, corrections)
    order = list(dict.fromkeys([*cameras, *stage.episode.keyframes]))
    pairs.sort(key=lambda pair: (pair["frame_index"], order.index(pair["camera"])))
    for pair in pairs:
        timestamp = stage.episode.timestamps_s[pair["frame_index"]]
        answer = json.dumps(pair["answer"], sort_keys=True, ensure_ascii=False)
        stage.events += [
            row("vqa", "user", pair["question"], timestamp, pair["camera"]),
            row("vqa", "assistant", answer, timestamp, pair["camera"]),
        ]
    return {"pairs": pairs, "corrected": corrected}


def _check_replies(stage: Stage, max_invalid: float) -> None:
    """Raise VlmError if too large a share of the replies was invalid."""
    calls = stage.vlm.calls
    invalid = [call for call in calls if call["outcome"] == "invalid"]
    if calls and len(invalid) / len(calls) > max_invalid:
        raise VlmError(
            f"episode {stage.episode.name}: {len(invalid)} of {len(calls)} replies to visual "
            f"questions were invalid, more than vqa.max_invalid ({max_invalid:.0%}); the first: "
            f"{invalid[0]['name']}: {invalid[0]['error']}. Check the model and its server, then "
            "run the same command again: invalid replies are requested again"
        )


def count_frames(stage: Stage, cameras: Sequence[str]) -> int:
    """Return the number of requests that `annotate` makes."""
    return len(stage.episode.vqa) * len(cameras)


def _frames(stage: Stage, cameras: Sequence[str]) -> Iterator[Keyframe]:
    episode = stage.episode
    for frames in zip(*(episode.frames_at(camera, episode.vqa) for camera in cameras)):  # noqa: B905
        yield from frames


async def _ask(
    stage: Stage,
    settings: VqaConfig,
    frame: Keyframe,
    coordinates: CoordinateFrame,
    seed: int,
    check: CoordinateCheck,
) -> dict[str, Any] | None:
    kind = question_type(
        settings.types, seed=seed, frame=frame, episode_index=stage.episode.episode_index
    )
    where = f"{kind} {frame.camera} {frame.frame_index}"
    task = stage.episode.task
    reply = await stage.ask_or_warn(
        where,
        f"vqa_{kind}",
        VQA_REPLIES[kind],
        [stage.picture(frame)],
        {
            "time_s": frame.timestamp_s,
            "camera": frame.camera,
            "task": "" if is_placeholder(task) else task,
            "type": kind,
            "coordinates": coordinates.describe(),
        },
        otherwise=f"vqa: no usable reply for {where}; no pair is written there",
    )
    if reply is None:
        return None
    for values in _coordinates_in(reply.answer):
        check.add(values, coordinates)
    value = _in_source_pixels(kind, reply.answer, coordinates)
    if value is None:
        stage.warn(f"vqa: the answer for {where} lies outside the frame; no pair is written there")
        return None
    return {
        "frame_index": frame.frame_index,
        "camera": frame.camera,
        "type": kind,
        "question": reply.question,
        "answer": value,
    }


def _coordinates_in(answer: BaseModel) -> list[list[float]]:
    """Return the boxes and points of an answer as the model wrote them."""
    if isinstance(answer, BboxAnswer):
        return [detection.bbox for detection in answer.detections]
    return [answer.point] if isinstance(answer, KeypointAnswer) else []


def _in_source_pixels(
    kind: str, answer: BaseModel, coordinates: CoordinateFrame
) -> dict[str, Any] | None:
    """The answer as it is written; None where no coordinate of it lies in the frame."""
    value = answer.model_dump(exclude_none=True)
    if kind == "bbox":
        boxes = [
            {**detection, "bbox": box}
            for detection in value["detections"]
            if (box := coordinates.box(detection["bbox"])) is not None
        ]
        return {"detections": boxes} if boxes else None
    if kind == "keypoint":
        point = coordinates.point(value["point"])
        return None if point is None else {**value, "point": point}
    return value
