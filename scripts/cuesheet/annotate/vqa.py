"""Stage VQA: questions about single frames, with answers grounded in them."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cuesheet.annotate.object_names import objects_in
from cuesheet.annotate.stage import Stage, row
from cuesheet.annotate.vqa_topics import PLACE_TYPES, Topic, draw_topics, group_frames
from cuesheet.artifacts.apply_corrections import apply_vqa, check_decoded
from cuesheet.artifacts.episode import Keyframe
from cuesheet.config.stages import VqaConfig
from cuesheet.text import is_placeholder
from cuesheet.vlm.client import Answer
from cuesheet.vlm.coordinates import (
    Convention,
    CoordinateCheck,
    CoordinateFrame,
    PixelLimits,
)
from cuesheet.vlm.errors import VlmError
from cuesheet.vlm.replies import (
    VQA_REPLIES,
    BboxAnswer,
    KeypointAnswer,
    QuestionAndAnswer,
    visual_questions,
)

# Requests of one episode in flight at the same time: enough to keep a server busy, few enough to
# bound the memory of a job for an hour of three cameras.
MAX_IN_FLIGHT = 64
# Maximum number of questions that a request lists as already asked.
_MAX_LISTED = 40


@dataclass(frozen=True)
class PlanFacts:
    """What the plan tells about the whole episode: its task and the labels of its subtasks.

    `vocabulary`: the labels that it might use.
    """

    task: str
    labels: Sequence[str] = ()
    vocabulary: Sequence[str] = ()


async def annotate(
    stage: Stage,
    settings: VqaConfig,
    *,
    cameras: Sequence[str],
    convention: Convention,
    seed: int,
    plan: PlanFacts | None = None,
    corrections: Sequence[Mapping[str, Any]] = (),
    progress: Any = None,
) -> dict[str, Any]:
    """Fill `stage` with question and answer events. Return `pairs`, the same in typed form.

    The frames of all `cameras` are shown at every tick. Questions are about the objects of the
    `plan`, or else of the task. `corrections` are applied to the replies (see
    `cuesheet.artifacts.apply_corrections`) and listed in `corrected`. `progress` is called after
    each reply.
    """
    check_decoded(corrections, stage.episode)
    plan = plan or PlanFacts(stage.episode.task)
    task = "" if is_placeholder(plan.task) else plan.task
    asking = _Asking(stage, convention, task)
    objects = objects_in([*plan.labels, *plan.vocabulary, task])
    by_camera = []
    for camera in cameras:
        groups = _groups(stage, settings, camera)
        topics = draw_topics(
            groups,
            settings.types,
            objects=objects,
            seed=seed,
            episode_index=stage.episode.episode_index,
        )
        by_camera.append(list(zip(groups, topics, strict=True)))
    pairs = await _ask_all(asking, by_camera, progress)
    pairs = await _replace_repeated(asking, pairs)
    _check_replies(stage, settings.max_invalid)
    if problem := asking.check.warning():
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


def _groups(stage: Stage, settings: VqaConfig, camera: str) -> list[list[Keyframe]]:
    return group_frames(stage.episode.frames_at(camera, stage.episode.vqa), settings.per_call)


def count_requests(stage: Stage, settings: VqaConfig, cameras: Sequence[str]) -> int:
    """Return the number of requests that `annotate` makes, without repetitions."""
    return sum(len(_groups(stage, settings, camera)) for camera in cameras)


class _Asking:
    """Requests about frames, and their replies as pairs."""

    def __init__(self, stage: Stage, convention: Convention, task: str) -> None:
        self.stage = stage
        self.task = task
        self.check = CoordinateCheck(convention)
        self._convention = convention
        self._limits = PixelLimits()
        if convention == "resized_pixels":
            self._limits = PixelLimits().updated(stage.sampling.get("mm_processor_kwargs"))

    async def ask(
        self,
        frames: Sequence[Keyframe],
        topics: Sequence[Topic],
        already_asked: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        """Return the pairs of one request, one per topic unless its reply is unusable.

        The model sees the first of the consecutive `frames`; each frame gets one pair, because
        LeRobot allows one per frame and camera. `already_asked`: questions that must not be asked
        again.
        """
        frame = frames[0]
        coordinates = CoordinateFrame(self._convention, frame.width, frame.height, self._limits)
        question_types = tuple(topic.question_type for topic in topics)
        name = f"{' '.join(question_types)} {frame.camera} {frame.frame_index}"
        first, is_single = question_types[0], len(question_types) == 1
        model = VQA_REPLIES[first] if is_single else visual_questions(question_types)
        answer: Answer[Any] = await self.stage.ask(
            f"{name} again" if already_asked else name,
            f"vqa_{first}" if is_single else "vqa_frame",
            model,
            [self.stage.encode_keyframe(frame)],
            text=self._text(frame, topics, coordinates, already_asked),
        )
        if answer.value is None:
            if not already_asked:
                self.stage.warn(f"vqa: no usable reply for {name}; no pair is written")
            return []
        value = answer.value
        pairs = [
            self._pair(frame, kind, value if is_single else getattr(value, kind), coordinates)
            for frame, kind in zip(frames, question_types, strict=True)
        ]
        return [pair for pair in pairs if pair is not None]

    def _text(
        self,
        frame: Keyframe,
        topics: Sequence[Topic],
        coordinates: CoordinateFrame,
        already_asked: Sequence[str],
    ) -> str:
        render = self.stage.prompts.render
        questions = []
        for topic in topics:
            about = render("vqa_topic", target=topic.target, names=topic.names)
            question_type = topic.question_type
            text = render(f"vqa_{question_type}", topic=about)
            questions.append({"type": question_type, "text": text})
        has_places = any(topic.question_type in PLACE_TYPES for topic in topics)
        return render(
            "vqa_frame",
            time_s=frame.timestamp_s,
            camera=frame.camera,
            task=self.task,
            coordinates=coordinates.describe() if has_places else "",
            already_asked=list(already_asked),
            questions=questions,
        )

    def _pair(
        self,
        frame: Keyframe,
        question_type: str,
        reply: QuestionAndAnswer,
        coordinates: CoordinateFrame,
    ) -> dict[str, Any] | None:
        for values in _coordinates_in(reply.answer):
            self.check.add(values, coordinates)
        value = _in_source_pixels(question_type, reply.answer, coordinates)
        if value is None:
            self.stage.warn(
                f"vqa: the answer for {question_type} {frame.camera} {frame.frame_index} is "
                "outside the frame; no pair is written"
            )
            return None
        return {
            "frame_index": frame.frame_index,
            "camera": frame.camera,
            "type": question_type,
            "question": reply.question,
            "answer": value,
        }


_Wanted = tuple[list[Keyframe], list[Topic]]


async def _ask_all(
    asking: _Asking, by_camera: Sequence[Sequence[_Wanted]], progress: Any
) -> list[dict[str, Any]]:
    """Send the requests about all frames, tick by tick."""
    pairs: list[dict[str, Any]] = []
    waiting = iter([wanted for tick in zip(*by_camera, strict=True) for wanted in tick])

    async def work() -> None:
        for frames, topics in waiting:
            pairs.extend(await asking.ask(frames, topics))
            if progress is not None:
                progress()

    await asyncio.gather(*(work() for _ in range(MAX_IN_FLIGHT)))
    return pairs


async def _replace_repeated(asking: _Asking, pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Request another question for each one that repeats an earlier one of its camera.

    A question that is repeated again is left out, with one warning per episode. It stays if all
    others with the same words are of other types, because their answers have another form.
    """
    stage = asking.stage
    by_camera: dict[str, list[dict[str, Any]]] = {}
    for pair in sorted(pairs, key=lambda pair: pair["frame_index"]):
        by_camera.setdefault(pair["camera"], []).append(pair)

    async def distinct(camera: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept: dict[str, list[dict[str, Any]]] = {}  # by their words
        repeated = []
        for pair in found:
            words = normalized(pair["question"])
            if words in kept:
                repeated.append(pair)
            else:
                kept[words] = [pair]
        frames = {frame.frame_index: frame for frame in stage.episode.keyframes[camera]}
        for pair in repeated:
            question_type = pair["type"]
            previous = [
                alike[0]["question"]
                for words, alike in kept.items()
                if words == normalized(pair["question"])
                or any(o["type"] == question_type for o in alike)
            ]
            frame = frames[pair["frame_index"]]
            new = await asking.ask([frame], [Topic(question_type)], previous[-_MAX_LISTED:])
            one = new[0] if new else pair
            alike = kept.setdefault(normalized(one["question"]), [])
            if not any(other["type"] == question_type for other in alike):
                alike.append(one)
        return [pair for alike in kept.values() for pair in alike]

    found = await asyncio.gather(*(distinct(*item) for item in by_camera.items()))
    result = [pair for camera in found for pair in camera]
    if dropped := len(pairs) - len(result):
        stage.warn(
            f"vqa: {dropped} of {len(pairs)} questions repeated another question of their camera "
            "and type, even after a second request; no pair is written for them"
        )
    return result


def normalized(question: str) -> str:
    """Return a question without differences in case, spaces and final punctuation."""
    return " ".join(question.casefold().split()).rstrip(" .?!")


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


def _coordinates_in(answer: BaseModel) -> list[list[float]]:
    """Return the boxes and points of an answer as the model wrote them."""
    if isinstance(answer, BboxAnswer):
        return [detection.bbox for detection in answer.detections]
    return [answer.point] if isinstance(answer, KeypointAnswer) else []


def _in_source_pixels(
    question_type: str, answer: BaseModel, coordinates: CoordinateFrame
) -> dict[str, Any] | None:
    """Return the answer in pixels of the frame; None if all its coordinates are outside of it."""
    value = answer.model_dump(exclude_none=True)
    if question_type == "bbox":
        boxes = [
            {**detection, "bbox": box}
            for detection in value["detections"]
            if (box := coordinates.box(detection["bbox"])) is not None
        ]
        return {"detections": boxes} if boxes else None
    if question_type == "keypoint":
        point = coordinates.point(value["point"])
        return None if point is None else {**value, "point": point}
    return value
