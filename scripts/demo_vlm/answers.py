"""From a request to the text of its reply.

The keys of the requested schema say what is wanted. Each kind of object gets a generous set of
values, and `schema.conform` keeps those that the schema has, in its order and within its bounds.
"""

import json
from functools import cached_property
from typing import Any

import numpy as np

from demo_vlm import phrases, question, schema, vision
from demo_vlm.frames import TimedFrames, timed_frames
from demo_vlm.media import Media
from demo_vlm.request import ApiError, ChatRequest
from demo_vlm.visual import VisualQuestion

# What holds if the question does not say it.
DEFAULT_MOST, DEFAULT_MIN_S, DEFAULT_REPHRASINGS = 64, 0.5, 10
AXES = ("synonym", "omit_arm", "omit_orientation", "omit_grasp", "combined")


class Facts:
    """What the demo model knows of a request; measured when it is first needed."""

    def __init__(self, text: str, media: Media) -> None:
        self.text = text
        self.asked = question.parse(text)
        self.media = media

    @cached_property
    def image(self) -> np.ndarray:
        images = [*self.media.images, *(clip.frames[0] for clip in self.media.clips)]
        if not images:
            raise ApiError(400, "this reply needs an image, and none was sent", param="messages")
        return images[0]

    @cached_property
    def seen(self) -> TimedFrames:
        seen = timed_frames(self.asked, self.media)
        if not len(seen):
            raise ApiError(400, "this reply needs images, and none was sent", param="messages")
        return seen

    @cached_property
    def regions(self) -> list[vision.Region]:
        """Regions of the image; the whole image if none stands out."""
        found = vision.find_regions(self.image, self.asked.task)
        if found:
            return found
        height, width = self.image.shape[:2]
        color = vision.colors.name_of(np.median(self.image, axis=(0, 1)))
        whole = (0.0, 0.0, float(width), float(height))
        return [vision.Region(color, whole, (width / 2, height / 2), 1.0, 0.0)]

    @cached_property
    def window_s(self) -> tuple[float, float]:
        """The window of the question; else from the first frame to one step past the last."""
        if self.asked.window_s or self.asked.clip_s or self.asked.span_s:
            return self.asked.window_s or self.asked.clip_s or self.asked.span_s
        times = self.seen.times_s
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        return float(times[0]), float(times[-1]) + step

    def boundaries(self, min_s: float = DEFAULT_MIN_S, most: int = DEFAULT_MOST) -> list[float]:
        """Return the times (s) of at most `most` lulls in the motion inside the window."""
        start, end = self.window_s
        return [time for time in vision.boundaries(self.seen, min_s, most) if start < time < end]

    def place(self, region: vision.Region) -> str:
        """Describe the place of a region in the image."""
        height, width = self.image.shape[:2]
        x, y = region.center
        column = "left" if x < width / 3 else "right" if x > 2 * width / 3 else ""
        row = "upper" if y < height / 3 else "lower" if y > 2 * height / 3 else ""
        if row and column:
            return f"at the {row} {column}"
        return f"on the {column}" if column else f"at the {row} edge" if row else "in the middle"

    def scaled(self, *values: float) -> list[float]:
        """Pixels (x, y, x, y, …) of the image in the coordinates that the question wants."""
        height, width = self.image.shape[:2]
        wanted = self.asked.coordinates or (width, height)
        scales = (wanted[0] / width, wanted[1] / height)
        return [round(value * scales[i % 2], 1) for i, value in enumerate(values)]


def reply_text(request: ChatRequest, media: Media) -> str:
    """Return the reply: JSON if a schema is requested, else a plain sentence."""
    facts = Facts(request.question, media)
    if request.schema is None:
        if not (media.images or media.clips):
            return (
                "I am classical vision behind a chat API, not a language model: send images, or "
                "name a JSON schema in response_format."
            )
        return _scene(facts)
    value = _object(request.schema, request.schema, facts)
    return json.dumps(schema.conform(value, request.schema), ensure_ascii=False, allow_nan=False)


def _object(part: dict, document: dict, facts: Facts) -> dict[str, Any]:
    """Return values for an object of the schema, by the keys it has."""
    properties = schema.resolve(part, document).get("properties", {})
    keys = set(properties)
    if {"question", "answer"} <= keys:
        return _visual(properties, document, facts, facts.text)
    visual = _several_visual(properties, document, facts)
    if visual:
        return visual
    for kind, values in _KINDS:
        if kind <= keys:
            return values(facts)
    return {}


def _visual(properties: dict, document: dict, facts: Facts, text: str) -> dict[str, Any]:
    inner = schema.resolve(properties["answer"], document).get("properties", {})
    return VisualQuestion(facts, question.topic(text)).answer(set(inner))


def _several_visual(properties: dict, document: dict, facts: Facts) -> dict[str, Any]:
    """Return one question and answer per field, if that is what all fields are."""
    found = {}
    for name, part in properties.items():
        inner = schema.resolve(part, document).get("properties", {})
        if not {"question", "answer"} <= set(inner):
            return {}
        found[name] = _visual(inner, document, facts, question.section(facts.text, name))
    return found


def _scene(facts: Facts) -> str:
    first = facts.regions[0]
    return f"A {first.label} stands out {facts.place(first)}."


def _description(facts: Facts) -> dict[str, Any]:
    events = [
        {"at_s": round(time, 3), "what": "The image changes quickly."}
        for time in vision.peaks(facts.seen, 4)
    ]
    return {"scene": _scene(facts), "events": events}


def _segmentation(facts: Facts) -> dict[str, Any]:
    start, end = facts.window_s
    asked = facts.asked
    most = (asked.max_subtasks or DEFAULT_MOST) - 1
    cuts = facts.boundaries(asked.min_subtask_s or DEFAULT_MIN_S, max(0, most))
    edges = [start, *cuts, end]
    names = phrases.labels(asked.task, len(edges) - 1)
    parts = zip(edges[:-1], edges[1:], names, strict=True)
    return {
        "subtasks": [
            {
                "what_changed": "The motion slows down.",
                "start_s": round(a, 3),
                "end_s": round(b, 3),
                "own_words": name,
                "label": name,
            }
            for a, b, name in parts
        ]
    }


def _events(facts: Facts) -> dict[str, Any]:
    times = [*facts.boundaries(), facts.window_s[1]]
    whole = phrases.imperative(facts.asked.first_label) or phrases.labels(facts.asked.task, 1)[0]
    thing = phrases.verb_and_object(whole)[1]
    names = [*([f"move toward {thing}"] * (len(times) - 1)), whole]
    events = zip(times, names, strict=True)
    return {
        "events": [
            {
                "what_changed": "The motion slows down.",
                "at_s": round(time, 3),
                "own_words": name,
                "label": name,
            }
            for time, name in events
        ]
    }


def _drafted_steps(facts: Facts) -> dict[str, Any]:
    times = [*facts.boundaries(), facts.window_s[1]]
    names = phrases.labels(facts.asked.task, len(times))
    if int(10 * times[-1]) % 4 == 3:  # as a second person would word the steps of some recordings
        names = phrases.reworded(names)
    steps = [
        {"what_changed": "The motion slows down.", "at_s": round(time, 3), "label": name}
        for time, name in zip(times, names, strict=True)
    ]
    return {"steps": steps}


def _merged_steps(facts: Facts) -> dict[str, Any]:
    groups = phrases.merged(facts.asked.steps)
    return {"steps": [{"numbers": found, "label": label} for label, found in groups.items()]}


def _steps(facts: Facts) -> dict[str, Any]:
    """Return the steps of a recording, or those that several recordings have."""
    return _merged_steps(facts) if facts.asked.steps else _drafted_steps(facts)


def _labels(facts: Facts) -> dict[str, Any]:
    first = _label(facts)["label"]
    found = (one for one in phrases.labels(facts.asked.task, 3) if one.lower() != first.lower())
    other = next(found, f"{first} again")
    return {"what_changed": "The image changes.", "own_words": first, "labels": [first, other]}


def _label(facts: Facts) -> dict[str, Any]:
    label = phrases.imperative(facts.asked.first_label)
    label = label or phrases.labels(facts.asked.task, 1)[0]
    return {"what_changed": "The image changes.", "own_words": label, "label": label}


def _rephrasings(facts: Facts) -> dict[str, Any]:
    wanted = facts.asked.rephrasings
    wanted = DEFAULT_REPHRASINGS if wanted is None else wanted
    return {"rephrasings": phrases.rephrasings(facts.asked.task, wanted)}


def _axes(facts: Facts) -> dict[str, Any]:
    sentences = iter(phrases.rephrasings(facts.asked.task, len(phrases.REPHRASINGS)))
    return {
        axis: [sentence for _, sentence in zip(range(facts.asked.axes.get(axis, 2)), sentences)]  # noqa: B905
        for axis in AXES
    }


def _interjection(facts: Facts) -> dict[str, Any]:
    step = facts.asked.coming or facts.asked.task
    return {
        "interjection": phrases.interjection(step, facts.asked.kind),
        "speech": phrases.speech(step, facts.asked.manner),
    }


def _task(facts: Facts) -> dict[str, Any]:
    return {"what_changed": _scene(facts), "task": f"Move the {facts.regions[0].label}."}


def _verdict(facts: Facts) -> dict[str, Any]:
    same = phrases.share_a_word(facts.asked.predicted_label, facts.asked.reference_label)
    why = "They share a word." if same else "They share no word."
    return {"why": why, "same": same}


def _is_moving(facts: Facts) -> bool:
    speed = vision.speeds(facts.seen)
    return bool(len(speed)) and float(speed.max()) > vision.STILL


def _subtask_verdict(facts: Facts) -> dict[str, Any]:
    if _is_moving(facts):
        return {"why": "The image changed.", "complete": "yes"}
    return {"why": "The image did not change.", "complete": "no"}


def _episode_verdict(facts: Facts) -> dict[str, Any]:
    if _is_moving(facts):
        return {"why": "Things moved.", "achieved": "yes", "retried": False}
    return {"why": "Nothing moved.", "achieved": "no", "retried": False}


_KINDS = (
    ({"subtasks"}, _segmentation),
    ({"scene", "events"}, _description),
    ({"events"}, _events),
    ({"steps"}, _steps),
    ({"labels"}, _labels),
    ({"number"}, lambda f: {"why": "It is the first one.", "number": 1}),
    ({"memory"}, lambda f: {"memory": phrases.memory(f.asked.memory, f.asked.finished)}),
    ({"rephrasings"}, _rephrasings),
    ({"synonym", "combined"}, _axes),
    ({"interjection", "speech"}, _interjection),
    ({"speech"}, lambda f: {"speech": phrases.speech(f.asked.task, f.asked.manner)}),
    ({"same"}, _verdict),
    ({"complete"}, _subtask_verdict),
    ({"achieved"}, _episode_verdict),
    ({"task"}, _task),
    ({"label"}, _label),
)
