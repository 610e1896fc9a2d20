"""Subtasks of an episode without gaps, made from the spans of a reply."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cuesheet.artifacts.episode import Episode

# Boundaries of two overlapping windows are the same one if they are at most this far apart (s).
SAME_BOUNDARY_S = 0.75


@dataclass(frozen=True)
class Subtask:
    """Frames [start_frame, end_frame) of an episode, and a label for what happens in them."""

    start_frame: int
    end_frame: int
    label: str
    agreement: float | None = None  # of the segmentation samples, 0 to 1 (see `consensus`)

    @property
    def length(self) -> int:
        return self.end_frame - self.start_frame

    def overlap(self, start_frame: int, end_frame: int) -> int:
        """Return how many of these frames it has."""
        return max(0, min(self.end_frame, end_frame) - max(self.start_frame, start_frame))

    def iou(self, other: "Subtask") -> float:
        """Return the intersection over union of the frames of two subtasks."""
        shared = self.overlap(other.start_frame, other.end_frame)
        return shared / (self.length + other.length - shared)

    def start_s(self, episode: Episode) -> float:
        return episode.timestamps_s[self.start_frame]

    def end_s(self, episode: Episode) -> float:
        if self.end_frame == episode.length:
            return episode.end_s
        return episode.timestamps_s[self.end_frame]

    def as_json(self, episode: Episode) -> dict[str, Any]:
        return {
            "start_frame": self.start_frame,
            "end_frame": self.end_frame,
            "start_s": self.start_s(episode),
            "end_s": self.end_s(episode),
            "label": self.label,
            **({} if self.agreement is None else {"agreement": self.agreement}),
        }


@dataclass(frozen=True)
class Window:
    """Frames [start_frame, end_frame) that one request is about."""

    start_frame: int
    end_frame: int


def clean_spans(
    spans: Sequence[tuple[float, float, str]],
    window: Window,
    episode: Episode,
    *,
    min_subtask_s: float,
    max_subtasks: int | None,
) -> list[Subtask]:
    """Return subtasks that fill `window`, made from unchecked `(start_s, end_s, label)` spans.

    Spans that are not finite, end before they start or are outside the window are dropped. The
    others are clamped to the window, sorted and snapped to distinct frames. The first subtask
    starts with the window, and each lasts until the next one begins. If they are too short or too
    many, they are merged (see `enforce_limits`). The list is empty only if no span is usable.
    """
    first_s = episode.timestamps_s[window.start_frame]
    last_s = episode.timestamps_s[window.end_frame - 1]
    by_start: dict[int, tuple[float, str]] = {}
    for start_s, end_s, label in spans:
        usable = math.isfinite(start_s) and math.isfinite(end_s) and label.strip()
        if not usable or end_s < start_s or end_s < first_s or start_s > last_s:
            continue
        start = episode.nearest_frame(min(max(start_s, first_s), last_s))
        duration = end_s - start_s
        # If several spans begin on one frame, the longest one is used.
        if start not in by_start or duration > by_start[start][0]:
            by_start[start] = (duration, " ".join(label.split()))
    starts = sorted(by_start)
    if not starts:
        return []
    edges = [window.start_frame, *starts[1:], window.end_frame]
    subtasks = [
        Subtask(edges[position], edges[position + 1], by_start[start][1])
        for position, start in enumerate(starts)
    ]
    return enforce_limits(subtasks, episode, min_subtask_s=min_subtask_s, max_subtasks=max_subtasks)


def subtasks_from_starts(labels: Mapping[int, str], episode: Episode) -> list[Subtask]:
    """Return the subtasks of an episode from their labels by first frame; the first starts at 0."""
    starts = sorted(labels)
    return [
        Subtask(start if number else 0, end, labels[start])
        for number, (start, end) in enumerate(
            zip(starts, [*starts[1:], episode.length], strict=True)
        )
    ]


def enforce_limits(
    subtasks: Sequence[Subtask], episode: Episode, *, min_subtask_s: float, max_subtasks: int | None
) -> list[Subtask]:
    """Merge the shortest subtask with a neighbor until none is too short and none too many.

    A neighbor with the same label is preferred, then the shorter neighbor. The merged subtask has
    the label of the longer one.
    """
    merged = list(subtasks)
    while len(merged) > 1:
        seconds = [subtask.end_s(episode) - subtask.start_s(episode) for subtask in merged]
        shortest = min(range(len(merged)), key=seconds.__getitem__)
        too_many = max_subtasks is not None and len(merged) > max_subtasks
        # Timestamps are float32: half a millisecond accepts a span of exactly the minimum.
        if seconds[shortest] >= min_subtask_s - 5e-4 and not too_many:
            break
        neighbors = [index for index in (shortest - 1, shortest + 1) if 0 <= index < len(merged)]
        label = merged[shortest].label.casefold()
        neighbor = min(
            neighbors,
            key=lambda index: (merged[index].label.casefold() != label, seconds[index]),
        )
        left, right = sorted((shortest, neighbor))
        longer = merged[left] if seconds[left] >= seconds[right] else merged[right]
        merged[left : right + 1] = [
            Subtask(merged[left].start_frame, merged[right].end_frame, longer.label)
        ]
    return merged


def join_windows(
    windows: Sequence[Sequence[Subtask]], episode: Episode, *, min_subtask_s: float
) -> list[Subtask]:
    """Join the subtasks of consecutive windows, which may overlap, into those of the episode.

    In an overlap, the windows are joined at a boundary on which both agree. If there is none, they
    are joined in its middle: the segments of both become one with the label of the longer one. So
    the edge of a window is never a boundary by itself. Windows without an overlap are joined at
    their common edge: if the label is the same on both sides, the subtasks become one. Subtasks
    that are too short are then merged.
    """
    joined: list[Subtask] = []
    for window in windows:
        if joined and window:
            joined = _join(joined, list(window), episode)
        else:
            joined = joined or list(window)
    return enforce_limits(joined, episode, min_subtask_s=min_subtask_s, max_subtasks=None)


def _join(left: list[Subtask], right: list[Subtask], episode: Episode) -> list[Subtask]:
    begin, end = right[0].start_frame, left[-1].end_frame
    if end <= begin:
        if left[-1].label.casefold() != right[0].label.casefold():
            return [*left, *right]
        return [*left[:-1], replace(left[-1], end_frame=right[0].end_frame), *right[1:]]
    times = episode.timestamps_s
    pairs = [
        (abs(times[one.start_frame] - times[other.start_frame]), one.start_frame, other.start_frame)
        for one in left
        for other in right[1:]
        if begin < one.start_frame and other.start_frame < end
    ]
    best = min(pairs, default=None)
    if best is not None and best[0] <= SAME_BOUNDARY_S:
        cut = best[1]
        earlier = [subtask for subtask in left if subtask.start_frame < cut]
        later = [subtask for subtask in right if subtask.start_frame >= best[2]]
        return [*earlier, replace(later[0], start_frame=cut), *later[1:]]
    middle = (begin + end) // 2
    earlier = [subtask for subtask in left if subtask.start_frame <= middle]
    later = [subtask for subtask in right if subtask.end_frame > middle]
    longer = max(earlier[-1], later[0], key=lambda subtask: subtask.length)
    bridge = Subtask(earlier[-1].start_frame, later[0].end_frame, longer.label)
    return [*earlier[:-1], bridge, *later[1:]]


def remaining_plan(labels: Sequence[str]) -> str:
    """Return the remaining subtasks as a numbered list, one per line."""
    return "\n".join(f"{number}. {label}" for number, label in enumerate(labels, 1))
