"""From a request to the text of its reply.

The keys of the requested schema say what is wanted. Each kind of reply gets a generous set of
values, and `schema.conform` keeps those that the schema has, in its order and within its bounds.
"""

import json
from collections import defaultdict
from functools import cached_property
from typing import Any

import numpy as np

from demo_vlm import phrases, schema, vision
from demo_vlm.frames import TimedFrames, timed_frames
from demo_vlm.media import Media
from demo_vlm.question import Question
from demo_vlm.request import ApiError

# What holds if the question does not say it.
DEFAULT_MOST, DEFAULT_MIN_S, DEFAULT_REPHRASINGS = 64, 0.5, 10
AXES = ("synonym", "omit_arm", "omit_orientation", "omit_grasp", "combined")
SLOWER = "The motion slows down."


class Facts:
    """What the demo model knows of a request; measured when it is first needed."""

    def __init__(self, text: str, media: Media) -> None:
        self.asked = Question(text)
        self.task = self.asked.task
        self.media = media

    @cached_property
    def image(self) -> np.ndarray:
        images = [*self.media.images, *(clip.frames[0] for clip in self.media.clips)]
        if not images:
            raise ApiError(400, "this reply needs images, and none was sent", param="messages")
        return images[0]

    @cached_property
    def seen(self) -> TimedFrames:
        assert self.image is not None
        return timed_frames(self.asked, self.media)

    @cached_property
    def regions(self) -> list[vision.Region]:
        return vision.find_regions(self.image, self.task)

    @cached_property
    def window_s(self) -> tuple[float, float]:
        """The window of the question; else from the first frame to one step past the last."""
        for name in ("Window", "Clip", "Span"):
            if found := self.asked.span_s(name):
                return found
        times = self.seen.times_s
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        return float(times[0]), float(times[-1]) + step

    @cached_property
    def is_moving(self) -> bool:
        return bool(vision.peaks(self.seen, 1))

    def boundaries(self, min_s: float = DEFAULT_MIN_S, most: int = DEFAULT_MOST) -> list[float]:
        """Return the times (s) of at most `most` lulls in the motion inside the window."""
        start, end = self.window_s
        found = vision.boundaries(self.seen, min_s)[:most]
        return sorted(time for time in found if start < time < end)

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
        wanted = self.asked.extent() or (width, height)
        scales = (wanted[0] / width, wanted[1] / height)
        return [round(value * scales[i % 2], 1) for i, value in enumerate(values)]


def reply_text(text: str, wanted: dict | None, media: Media) -> str:
    """Return the reply to a question: JSON if a schema is `wanted`, else a plain sentence."""
    facts = Facts(text, media)
    if wanted is not None:
        value = schema.conform(_values(wanted, facts), wanted, wanted)
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    if media.images or media.clips:
        return _scene(facts)
    return (
        "I am classical vision behind a chat API, not a language model: send images, or name a "
        "JSON schema in response_format."
    )


def _values(wanted: dict, facts: Facts) -> dict[str, Any]:
    """Return values for an object of the schema, by the keys it has."""
    properties = wanted.get("properties", {})
    if {"question", "answer"} <= properties.keys():
        return _visual(properties, wanted, facts, facts.asked)
    for keys, values in _KINDS:
        if keys <= properties.keys():
            return values(facts)
    fields = {name: schema.resolve(part, wanted) for name, part in properties.items()}
    if all("question" in field.get("properties", {}) for field in fields.values()):
        return {
            name: _visual(field["properties"], wanted, facts, facts.asked.field(name))
            for name, field in fields.items()
        }
    names = ", ".join(properties)
    raise ApiError(400, f"the demo model has no reply with {names}", param="response_format")


def _visual(properties: dict, document: dict, facts: Facts, asked: Question) -> dict[str, Any]:
    """Return an answer about a region of the image, and the question that it answers.

    `asked`: the lines about the object; their words choose the region.
    """
    keys = schema.resolve(properties["answer"], document)["properties"].keys()
    target, names = asked.line("Ask about"), asked.line("Already asked about")
    named = [region for region in facts.regions if region.color in target.lower().split()]
    first = (named or facts.regions)[0]
    name = target if named and " and " not in target else first.label
    # A question that fits this image only cannot repeat another one.
    is_first = not (names or "Do not ask again:" in asked.text or (target and not named))
    when = "" if is_first else f" at {facts.asked.image_times_s().get(1, 0.0):.2f} s"
    place = facts.place(first)
    same = [region for region in facts.regions if region.color == first.color]
    answer: dict[str, Any]
    if "detections" in keys:
        box = facts.scaled(*first.box)
        answer = {"detections": [{"label": name, "bbox_format": "xyxy", "bbox": box}]}
        question = f"Where is the {name}{when}?"
    elif "point" in keys:
        answer = {"label": name, "point_format": "xy", "point": facts.scaled(*first.point)}
        question = f"Which point is on the {name}{when}?"
    elif "count" in keys:
        count = len(same) if first.salience else 0
        answer = {"label": f"{first.color} region", "count": count}
        question = f"How many {first.color} regions are in view{when}?"
    elif "relation" in keys:
        answer = {"subject": name, **_relation(facts, first)}
        question = f"Where is the {name} compared with the {answer['object']}{when}?"
    else:
        answer = {"label": f"object {place}", "attribute": "color", "value": first.color}
        question = f"What color is the object {place}{when}?"
    locations = ", ".join(facts.place(region) for region in same)
    return {"locations": locations, "answer": answer, "question": question}


def _relation(facts: Facts, first: vision.Region) -> dict[str, str]:
    """Compare a region with the most salient one of another color, or else with the image."""
    width = facts.image.shape[1]
    other, x = "center of the image", width / 2
    for region in facts.regions:
        if region.color != first.color:
            other, x = region.label, region.center[0]
            break
    # Heights cannot be seen in one image, so no region is above another one.
    relation = "left_of" if first.center[0] < x else "right_of"
    if abs(first.center[0] - x) < width / 50:
        relation = "near"
    return {"object": other, "relation": relation}


def _scene(facts: Facts) -> str:
    first = facts.regions[0]
    return f"A {first.label} stands out {facts.place(first)}."


def _description(facts: Facts) -> dict[str, Any]:
    times = vision.peaks(facts.seen, 4)
    events = [{"at_s": round(time, 3), "what": "The image changes quickly."} for time in times]
    return {"scene": _scene(facts), "events": events}


def _segmentation(facts: Facts) -> dict[str, Any]:
    most = int(facts.asked.number("Limits", "at most") or DEFAULT_MOST) - 1
    cuts = facts.boundaries(facts.asked.number("Limits", "at least") or DEFAULT_MIN_S, most)
    start, end = facts.window_s
    names = phrases.labels(facts.task, len(cuts) + 1)
    parts = zip([start, *cuts], [*cuts, end], names, strict=True)
    subtasks = [
        {"start_s": round(a, 3), "end_s": round(b, 3), **_step(name)} for a, b, name in parts
    ]
    return {"subtasks": subtasks}


def _step(label: str, what_changed: str = SLOWER) -> dict[str, Any]:
    return {"what_changed": what_changed, "own_words": label, "label": label}


def _timed_steps(times: list[float], names: list[str]) -> list[dict[str, Any]]:
    return [
        {"at_s": round(time, 3), **_step(name)} for time, name in zip(times, names, strict=True)
    ]


def _events(facts: Facts) -> dict[str, Any]:
    times = [*facts.boundaries(), facts.window_s[1]]
    whole = _label(facts)["label"]
    toward = f"move toward {phrases.verb_and_object(whole)[1]}"
    return {"events": _timed_steps(times, [toward] * (len(times) - 1) + [whole])}


def _steps(facts: Facts) -> dict[str, Any]:
    """Return the steps of a recording, or those that several recordings have."""
    drafted = facts.asked.numbered("Step")
    if drafted:
        first_words = {other: one for one, other in phrases.SAME.items()}
        numbers = defaultdict(list)
        for number, label in drafted.items():
            numbers[phrases.replace_start(label.strip(), first_words)].append(int(number))
        return {"steps": [{"numbers": found, "label": label} for label, found in numbers.items()]}
    times = [*facts.boundaries(), facts.window_s[1]]
    names = phrases.labels(facts.task, len(times))
    if int(10 * times[-1]) % 4 == 3:  # as a second person would word the steps of some recordings
        names = [phrases.replace_start(name, phrases.SAME) for name in names]
    return {"steps": _timed_steps(times, names)}


def _label(facts: Facts) -> dict[str, Any]:
    label = phrases.imperative(facts.asked.line("First label"))
    span = facts.asked.span_s("Span")
    if span and span[0] > 0:
        # The robot reaches for an object once, at the start.
        label = phrases.replace_start(label, {"reach for": "move"})
    return _step(label or phrases.labels(facts.task, 1)[0], "The image changes.")


def _labels(facts: Facts) -> dict[str, Any]:
    first = _label(facts)
    others = (one for one in phrases.labels(facts.task, 3) if one.lower() != first["label"].lower())
    return {**first, "labels": [first["label"], next(others)]}


def _rephrasings(facts: Facts) -> dict[str, Any]:
    wanted = int(facts.asked.number("Rephrasings wanted") or DEFAULT_REPHRASINGS)
    return {"rephrasings": phrases.rephrasings(facts.task, wanted)}


def _axes(facts: Facts) -> dict[str, Any]:
    """Deal the rephrasings out to the axes."""
    wanted = facts.asked.numbered("Axis")
    sentences = phrases.rephrasings(facts.task, DEFAULT_REPHRASINGS)
    counts = [int(wanted.get(axis, 2)) for axis in AXES]
    ends = np.cumsum(counts)
    return {
        axis: sentences[end - count : end]
        for axis, count, end in zip(AXES, counts, ends, strict=True)
    }


def _interjection(facts: Facts) -> dict[str, Any]:
    step = facts.asked.line("Coming subtask") or facts.task
    return {
        "interjection": phrases.interjection(step, facts.asked.line("Kind")),
        "speech": phrases.speech(step, facts.asked.line("Manner")),
    }


def _memory(facts: Facts) -> dict[str, Any]:
    before, finished = facts.asked.line("Memory so far"), facts.asked.line("Just finished")
    return {"memory": phrases.memory(before, finished)}


def _task(facts: Facts) -> dict[str, Any]:
    return {"what_changed": _scene(facts), "task": f"Move the {facts.regions[0].label}."}


def _verdict(facts: Facts) -> dict[str, Any]:
    labels = facts.asked.line("Predicted label"), facts.asked.line("Reference label")
    same = phrases.share_a_word(*labels)
    return {"why": "They share a word." if same else "They share no word.", "same": same}


def _moved(facts: Facts) -> dict[str, Any]:
    """Judge a subtask or an episode by whether anything moved."""
    verdict = "yes" if facts.is_moving else "no"
    why = "The image changed." if facts.is_moving else "The image did not change."
    return {"why": why, "complete": verdict, "achieved": verdict, "retried": False}


_KINDS = (
    ({"subtasks"}, _segmentation),
    ({"scene", "events"}, _description),
    ({"events"}, _events),
    ({"steps"}, _steps),
    ({"labels"}, _labels),
    ({"number"}, lambda facts: {"why": "It is the first one.", "number": 1}),
    ({"memory"}, _memory),
    ({"rephrasings"}, _rephrasings),
    ({"synonym", "combined"}, _axes),
    ({"interjection", "speech"}, _interjection),
    ({"speech"}, _interjection),
    ({"same"}, _verdict),
    ({"complete"}, _moved),
    ({"achieved"}, _moved),
    ({"color"}, lambda facts: {"color": facts.regions[0].color}),
    ({"task"}, _task),
    ({"label"}, _label),
)
