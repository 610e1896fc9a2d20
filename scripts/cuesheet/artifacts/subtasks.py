"""From the spans a model answers to a gap-free cover of frames by subtasks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cuesheet.artifacts.episode import Episode


@dataclass(frozen=True)
class Subtask:
    """Frames [start_frame, end_frame) of an episode and the label of what happens in them."""

    start_frame: int
    end_frame: int
    label: str
    agreement: float | None = None  # of the samples it is made of, 0 to 1 (see `consensus`)

    @property
    def length(self) -> int:
        return self.end_frame - self.start_frame

    def start_s(self, episode: Episode) -> float:
        return episode.timestamps_s[self.start_frame]

    def end_s(self, episode: Episode) -> float:
        if self.end_frame == episode.length:
            return episode.end_s
        return episode.timestamps_s[self.end_frame]

    def as_json(self, episode: Episode) -> dict:
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
    """Frames [start_frame, end_frame) that one call is asked about."""

    start_frame: int
    end_frame: int


def clean_spans(
    spans: Sequence[tuple[float, float, str]],
    window: Window,
    episode: Episode,
    *,
    min_subtask_s: float,
    max_subtasks: int,
) -> list[Subtask]:
    """Make a cover of `window` out of `(start_s, end_s, label)` spans in any state.

    Spans that are not finite, end before they start or lie outside the window are dropped; the rest
    are clamped to it, put in order and snapped to distinct frames. Each then lasts until the next
    begins, the first from the window's first frame. Too short and too many are merged, see
    `enforce_limits`. An empty list comes back only where no span was usable.
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
        # Of several that begin on one frame the longest one stays.
        if start not in by_start or duration > by_start[start][0]:
            by_start[start] = (duration, " ".join(label.split()))
    starts = sorted(by_start)
    if not starts:
        return []
    edges = [window.start_frame, *starts[1:], window.end_frame]
    cover = [
        Subtask(edges[position], edges[position + 1], by_start[start][1])
        for position, start in enumerate(starts)
    ]
    return enforce_limits(cover, episode, min_subtask_s=min_subtask_s, max_subtasks=max_subtasks)


def enforce_limits(
    cover: Sequence[Subtask], episode: Episode, *, min_subtask_s: float, max_subtasks: int | None
) -> list[Subtask]:
    """Merge the shortest subtask into a neighbor until none is too short and they are few enough.

    The neighbor is one with the same label if there is one, else the shorter of the two; the label
    of the longer part stays.
    """
    merged = list(cover)
    while len(merged) > 1:
        seconds = [part.end_s(episode) - part.start_s(episode) for part in merged]
        shortest = min(range(len(merged)), key=seconds.__getitem__)
        too_many = max_subtasks is not None and len(merged) > max_subtasks
        # Timestamps are float32: half a millisecond keeps a span of exactly the minimum.
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
    covers: Sequence[Sequence[Subtask]], episode: Episode, *, min_subtask_s: float
) -> list[Subtask]:
    """One cover of the episode from those of consecutive windows.

    A step that a window's edge cut in two (the same label on both sides) becomes one again, and
    what is too short after that is merged.
    """
    joined: list[Subtask] = []
    for cover in covers:
        for position, part in enumerate(cover):
            seam = position == 0 and joined and joined[-1].end_frame == part.start_frame
            if seam and joined[-1].label.casefold() == part.label.casefold():
                joined[-1] = replace(joined[-1], end_frame=part.end_frame)
            else:
                joined.append(part)
    return enforce_limits(joined, episode, min_subtask_s=min_subtask_s, max_subtasks=None)


def remaining_plan(labels: Sequence[str]) -> str:
    """The numbered list of what is left to do, one line a subtask."""
    return "\n".join(f"{number}. {label}" for number, label in enumerate(labels, 1))
