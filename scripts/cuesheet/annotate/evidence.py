"""Recorded signals as evidence for subtasks: events for the prompt, and boundaries.

Boundaries that come from recorded events have frame precision. Whether an episode's boundaries are
moved to events is decided from that episode alone: if too few of its boundaries have an event
nearby, its events say nothing about its subtasks and are not used.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.signals_file import SignalsFile, Stroke
from cuesheet.artifacts.subtasks import Subtask, enforce_limits
from cuesheet.config.signals import SignalsConfig
from cuesheet.config.stages import PlanConfig

# Rows of the table of events in a prompt; a longer one keeps the strokes and drops the rests.
MAX_TABLE_ROWS = 60
# In phases: strokes that are closer than this to a boundary add none (s).
MIN_APART_S = 0.5
# In phases: an added stroke replaces a boundary of the model that is at most this far away (s).
# Chosen on dev_v3; from 2 s on, the scores hardly change.
REPLACED_WITHIN_S = 2.5
# A stroke that begins this soon after the first movement prepares the gripper (s).
PREPARING_WITHIN_S = 0.25
_TOLERANCE_S = 5e-4  # timestamps are float32


@dataclass(frozen=True)
class Event:
    """An event at a frame: a gripper stroke begins or ends, an arm stops or starts."""

    frame: int
    kind: str  # stroke_begins, stroke_ends, arm_stops, arm_starts
    text: str

    @property
    def is_stroke(self) -> bool:
        return self.kind.startswith("stroke")


@dataclass(frozen=True)
class Refined:
    """The subtasks after the recorded events were used. `changed`: positions of new segments."""

    subtasks: list[Subtask]
    changed: list[int]
    share: float | None  # of the model's boundaries that have an event nearby; None without any
    is_used: bool

    def as_json(self) -> dict[str, Any]:
        share = None if self.share is None else round(self.share, 3)
        return {"boundaries_near_events": share, "snapped": self.is_used}


@dataclass(frozen=True)
class Propagated:
    """Subtasks that were propagated from `source_episode`, with a confidence of 0 to 1."""

    source_episode: int
    confidence: float
    subtasks: list[Subtask]

    def applies(self, settings: PlanConfig) -> bool:
        """Tell whether they replace the model's subtasks."""
        return settings.propagate == "apply" and self._is_confident(settings)

    def _is_confident(self, settings: PlanConfig) -> bool:
        return self.confidence >= settings.propagate_above

    def as_json(self, settings: PlanConfig, source: str) -> dict[str, Any]:
        """Return what the plan file records. `source`: the origin of its subtasks."""
        return {
            "source_episode": self.source_episode,
            "confidence": round(self.confidence, 3),
            "is_confident": self._is_confident(settings),
            "applied": source == "propagation",
        }


@dataclass(frozen=True)
class Evidence:
    """What is known of an episode besides its images."""

    recording: SignalsFile | None = None
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    propagated: Propagated | None = None


def strokes_of(signals: SignalsFile) -> list[tuple[str, Stroke]]:
    """Return all strokes in order of time, each with the name of its gripper."""
    found = [(one.name, stroke) for one in signals.grippers for stroke in one.strokes]
    return sorted(found, key=lambda pair: (pair[1].start_frame, pair[0]))


def preparing_strokes(signals: SignalsFile) -> list[Stroke]:
    """Return the strokes that begin with the first movement of the arms, or before it.

    They open or close the gripper for what follows: no object can have been reached yet.
    """
    if not signals.arms:
        return []
    rests = [arm.still[0] if arm.still else None for arm in signals.arms]
    first_s = min(one.end_s if one is not None and one.start_frame == 0 else 0.0 for one in rests)
    return [
        stroke
        for _, stroke in strokes_of(signals)
        if stroke.start_s <= first_s + PREPARING_WITHIN_S + _TOLERANCE_S
    ]


def events_of(signals: SignalsFile) -> list[Event]:
    """Return the events inside the episode in order of time."""
    found = []
    for name, stroke in strokes_of(signals):
        verb = "close" if stroke.kind == "close" else "open"
        found.append(Event(stroke.start_frame, "stroke_begins", f"{name} begins to {verb}"))
        past = "closed" if stroke.kind == "close" else "open"
        found.append(Event(stroke.end_frame, "stroke_ends", f"{name} is {past}"))
    for arm in signals.arms:
        for still in arm.still:
            found.append(Event(still.start_frame, "arm_stops", f"{arm.name} stops"))
            found.append(Event(still.end_frame, "arm_starts", f"{arm.name} starts to move"))
    inside = [event for event in found if 0 < event.frame < signals.length]
    return sorted(inside, key=lambda event: (event.frame, event.text))


def table(signals: SignalsFile | None, episode: Episode, start_frame: int, end_frame: int) -> str:
    """Return the events of a window as lines for a prompt; an empty text if there are none."""
    if signals is None:
        return ""
    events = [one for one in events_of(signals) if start_frame <= one.frame < end_frame]
    if len(events) > MAX_TABLE_ROWS:
        events = [one for one in events if one.is_stroke][:MAX_TABLE_ROWS]
    return "\n".join(f"- {episode.timestamps_s[one.frame]:.2f} s: {one.text}" for one in events)


def refine(
    subtasks: Sequence[Subtask],
    signals: SignalsFile,
    episode: Episode,
    plan: PlanConfig,
    settings: SignalsConfig,
    *,
    name_strokes: bool = True,
) -> Refined:
    """Move and add boundaries of `subtasks` by the recorded events and `plan.granularity`.

    `name_strokes`: in phases, new segments that are mostly one stroke are named after it.
    """
    preparing = preparing_strokes(signals)
    if plan.granularity == "phases":
        # The gripper is closed or open from their end on, but nothing changes when they begin.
        unused = {stroke.start_frame for stroke in preparing}
    else:
        unused = {frame for one in preparing for frame in (one.start_frame, one.end_frame)}
    events = [
        one
        for one in events_of(signals)
        if one.kind != "arm_starts" and not (one.is_stroke and one.frame in unused)
    ]
    if not events or not subtasks:
        return Refined(list(subtasks), [], None, False)
    own = [subtask.start_frame for subtask in subtasks[1:]]
    near = [_nearest(episode, frame, events, settings.snap_s) is not None for frame in own]
    share = sum(near) / len(near) if near else None
    if (1.0 if share is None else share) < settings.min_snapped:
        return Refined(list(subtasks), [], share, False)
    if plan.granularity == "phases":
        frames = _phase_boundaries(subtasks, events, episode, settings.snap_s)
    else:
        strokes = [stroke for _, stroke in strokes_of(signals) if stroke not in preparing]
        frames = _event_boundaries(own, strokes, episode, settings.snap_s)
    named = strokes_of(signals) if plan.granularity == "phases" and name_strokes else []
    segmentation = _relabeled(subtasks, frames, named, episode)
    segmentation = enforce_limits(
        segmentation, episode, min_subtask_s=plan.shortest_s, max_subtasks=plan.max_subtasks
    )
    changed = [
        n
        for n, subtask in enumerate(segmentation)
        if not any(_same(subtask, one) for one in subtasks)
    ]
    return Refined(segmentation, changed, share, True)


def _same(first: Subtask, second: Subtask) -> bool:
    """Tell whether two segments have the same label and overlap by half or more."""
    return first.label == second.label and first.iou(second) >= 0.5


def _distance_s(episode: Episode, first: int, second: int) -> float:
    return abs(episode.timestamps_s[first] - episode.timestamps_s[second])


def _nearest(episode: Episode, frame: int, events: Sequence[Event], reach_s: float) -> int | None:
    """Return the frame of the nearest event that is at most `reach_s` away."""
    distances = [(_distance_s(episode, one.frame, frame), one.frame) for one in events]
    distance_s, found = min(distances)
    return found if distance_s <= reach_s + _TOLERANCE_S else None


def _phase_boundaries(
    subtasks: Sequence[Subtask], events: Sequence[Event], episode: Episode, snap_s: float
) -> list[int]:
    """Return the model's boundaries moved to their nearest events, and the strokes without one.

    A boundary without an event nearby is dropped if the label is the same on both sides, because no
    phase changes there. A stroke that becomes a boundary replaces the nearest of the others: the
    model saw that phase change at another time.
    """
    moved: set[int] = set()
    others: list[int] = []
    for before, subtask in pairwise(subtasks):
        nearest = _nearest(episode, subtask.start_frame, events, snap_s)
        if nearest is not None:
            moved.add(nearest)
        elif subtask.label.casefold() != before.label.casefold():
            others.append(subtask.start_frame)
    for one in events:
        known = {*moved, *others}
        if not one.is_stroke or any(
            _distance_s(episode, one.frame, frame) < MIN_APART_S - _TOLERANCE_S for frame in known
        ):
            continue
        moved.add(one.frame)
        replaced = min(
            others, key=lambda other: _distance_s(episode, other, one.frame), default=None
        )
        if replaced is not None and _distance_s(episode, replaced, one.frame) <= REPLACED_WITHIN_S:
            others.remove(replaced)
    return sorted({*moved, *others})


def _event_boundaries(
    own: Sequence[int], strokes: Sequence[Stroke], episode: Episode, snap_s: float
) -> list[int]:
    """Return the ends of all strokes, and the model's boundaries that have no stroke nearby."""
    frames = {stroke.end_frame for stroke in strokes if stroke.end_frame < episode.length}
    for frame in own:
        time_s = episode.timestamps_s[frame] - episode.timestamps_s[0]
        if not any(
            stroke.start_s - snap_s <= time_s <= stroke.end_s + snap_s for stroke in strokes
        ):
            frames.add(frame)
    return sorted(frames)


def _relabeled(
    subtasks: Sequence[Subtask],
    frames: Sequence[int],
    strokes: Sequence[tuple[str, Stroke]],
    episode: Episode,
) -> list[Subtask]:
    """Return subtasks with these boundaries. A segment takes the label that it overlaps most.

    In phases, a segment that is mostly one stroke is named after the stroke.
    """
    edges = [0, *(frame for frame in frames if 0 < frame < episode.length), episode.length]
    segmentation = []
    for start, end in pairwise(edges):
        label = max(subtasks, key=lambda one: one.overlap(start, end)).label
        subtask = Subtask(start, end, label)
        known = any(_same(subtask, one) for one in subtasks)
        if not known:
            for name, stroke in strokes:
                inside = min(end, stroke.end_frame) - max(start, stroke.start_frame)
                if inside > 0.6 * (end - start):
                    subtask = replace(subtask, label=stroke_label(stroke, name, label))
        segmentation.append(subtask)
    return segmentation


def stroke_label(stroke: Stroke, gripper: str, label: str) -> str:
    """Name a stroke, with the object of the label around it: "close the gripper on the cup"."""
    name = gripper if gripper[-1].isdigit() else f"the {gripper}"
    if stroke.kind == "open":
        return f"open {name}"
    found = re.search(
        r"\b(?:the|a|an) (.+?)(?= (?:in|into|on|onto|to|from|off|with|at|and|near)\b|$)", label
    )
    is_object = found is not None and "gripper" not in found[1]
    return f"close {name} on the {found[1]}" if found and is_object else f"close {name}"
