"""From a request to the text of its reply."""

import json
from typing import Any

import numpy as np

from demo_vlm import phrasing, question, scene, schema, visual_questions, words
from demo_vlm.labels import labels
from demo_vlm.media import Media
from demo_vlm.moments import Moments, moments
from demo_vlm.motion import Motion, measure
from demo_vlm.question import Question
from demo_vlm.request import ApiError, ChatRequest
from demo_vlm.segmentation import segment

# Kinds of reply by the name of their schema, and by the keys that tell them apart.
KINDS: dict[str, frozenset[str]] = {
    "Description": frozenset({"scene", "events"}),
    "Segmentation": frozenset({"subtasks"}),
    "Relabel": frozenset({"label"}),
    "Memory": frozenset({"memory"}),
    "Rephrasings": frozenset({"rephrasings"}),
    "AxisRephrasings": frozenset({"synonym", "combined"}),
    "TaskFromVideo": frozenset({"task"}),
    "Interjection": frozenset({"interjection", "speech"}),
    "Acknowledgement": frozenset({"speech"}),
    "Verdict": frozenset({"same"}),
}
VQA_KINDS: dict[str, tuple[str, frozenset[str]]] = {
    "BboxQA": ("bbox", frozenset({"detections"})),
    "KeypointQA": ("keypoint", frozenset({"point"})),
    "CountQA": ("count", frozenset({"count"})),
    "AttributeQA": ("attribute", frozenset({"attribute", "value"})),
    "SpatialQA": ("spatial", frozenset({"relation"})),
}
# What holds where the question does not say it.
DEFAULT_MAX_SUBTASKS = 8
DEFAULT_MIN_SUBTASK_S = 1.5
DEFAULT_REPHRASINGS = 10
DEFAULT_AXES = {
    "synonym": 3,
    "omit_arm": 3,
    "omit_orientation": 2,
    "omit_grasp": 2,
    "combined": 2,
}


def reply_text(request: ChatRequest, media: Media) -> str:
    """The reply: JSON where a schema is asked for, else a plain sentence."""
    asked = question.parse(request.question)
    if request.schema is None:
        return _plain(asked, media)
    value = _reply(request, asked, media)
    return json.dumps(schema.conform(value, request.schema), ensure_ascii=False, allow_nan=False)


def kind_of(name: str, document: dict) -> str | None:
    """Which reply is asked for: by the schema's name, else by its keys; None where neither fits."""
    if name in KINDS or name in VQA_KINDS:
        return name
    properties = schema.resolve(document, document).get("properties", {})
    keys = frozenset(properties) if isinstance(properties, dict) else frozenset()
    if {"question", "answer"} <= keys:
        inner = schema.resolve(properties["answer"], document).get("properties", {})
        for kind, (_, wanted) in VQA_KINDS.items():
            if wanted <= frozenset(inner):
                return kind
    for kind, wanted in KINDS.items():
        if wanted <= keys:
            return kind
    return None


def _reply(request: ChatRequest, asked: Question, media: Media) -> Any:
    document = request.schema or {}
    kind = kind_of(request.schema_name, document)
    if kind is None:
        return schema.blank(document)
    if kind in VQA_KINDS:
        pictures = [*media.pictures, *(clip.frames[0] for clip in media.clips)]
        if not pictures:
            raise ApiError(400, f"{kind} needs a picture, and none was sent", param="messages")
        return visual_questions.answer(VQA_KINDS[kind][0], asked, pictures[0])
    if kind in ("Description", "Segmentation", "TaskFromVideo"):
        return _from_frames(kind, asked, media)
    return _from_words(kind, asked)


def _from_frames(kind: str, asked: Question, media: Media) -> dict:
    seen = moments(asked, media)
    if not len(seen):
        raise ApiError(400, f"{kind} needs pictures, and none was sent", param="messages")
    motion = measure(seen)
    if kind == "TaskFromVideo":
        return {"task": scene.task_from_video(seen, motion)}
    window = _window(asked, seen)
    if kind == "Description":
        return scene.describe(seen, motion, window)
    return {"subtasks": _subtasks(asked, motion, window)}


def _subtasks(asked: Question, motion: Motion, window: tuple[float, float]) -> list[dict]:
    parts = segment(
        motion,
        *window,
        max_segments=max(1, asked.max_subtasks or DEFAULT_MAX_SUBTASKS),
        min_s=DEFAULT_MIN_SUBTASK_S if asked.min_subtask_s is None else asked.min_subtask_s,
    )
    names = labels(words.parse(asked.task), [part.role for part in parts])
    return [
        {"start_s": round(part.start_s, 3), "end_s": round(part.end_s, 3), "label": name}
        for part, name in zip(parts, names, strict=True)
    ]


def _window(asked: Question, seen: Moments) -> tuple[float, float]:
    """The window asked about; without one, from the first frame to one step past the last."""
    if asked.window_s or asked.clip_s:
        return asked.window_s or asked.clip_s
    times = seen.times_s
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    return float(times[0]), float(times[-1]) + step


def _from_words(kind: str, asked: Question) -> dict:
    if kind == "Relabel":
        label = words.lower_first(asked.first_label.strip().rstrip(".!?"))
        return {"label": label or words.parse(asked.task).order or "move the arm"}
    if kind == "Verdict":
        return {"same": phrasing.share_a_word(asked.predicted_label, asked.reference_label)}
    if kind == "Memory":
        return {"memory": phrasing.memory(asked.memory, asked.finished)}
    if kind == "Rephrasings":
        wanted = DEFAULT_REPHRASINGS if asked.rephrasings is None else asked.rephrasings
        return {"rephrasings": phrasing.rephrasings(asked.task, wanted)}
    if kind == "AxisRephrasings":
        return {
            **{axis: [] for axis in DEFAULT_AXES},
            **phrasing.axis_rephrasings(asked.task, asked.axes or DEFAULT_AXES),
        }
    if kind == "Interjection":
        said, speech = phrasing.interjection(asked.coming or asked.task, asked.last)
        return {"interjection": said, "speech": speech}
    return {"speech": phrasing.task_reply(asked.task)}


def _plain(asked: Question, media: Media) -> str:
    seen = moments(asked, media)
    if not len(seen):
        return (
            "I am classical vision behind a chat API, not a language model: send pictures, or name "
            "a JSON schema in response_format."
        )
    return scene.describe(seen, measure(seen), _window(asked, seen))["scene"]
