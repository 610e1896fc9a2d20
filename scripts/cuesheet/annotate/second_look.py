"""A second, closer look into each coarse segment: 4 frames per second, every completed event."""

import asyncio
from collections.abc import Sequence

from cuesheet.annotate.frame_selection import sample_evenly
from cuesheet.annotate.stage import Stage
from cuesheet.artifacts.episode import Keyframe
from cuesheet.artifacts.subtasks import Subtask, enforce_limits
from cuesheet.config.stages import PlanConfig
from cuesheet.vlm.replies import CompletedEvents

# Shorter segments hold one event at most.
LONGER_THAN_S = 2.0


async def look_again(
    stage: Stage,
    settings: PlanConfig,
    frames: Sequence[Keyframe],
    subtasks: Sequence[Subtask],
    task: str,
) -> list[Subtask]:
    """Return the subtasks with each long one divided at the events that are complete within it.

    `frames` are the keyframes of the second look, in order.
    """

    async def one(segment: Subtask) -> list[Subtask]:
        start_s, end_s = segment.start_s(stage.episode), segment.end_s(stage.episode)
        shown = [f for f in frames if segment.start_frame <= f.frame_index < segment.end_frame]
        if end_s - start_s <= LONGER_THAN_S or len(shown) < 3:
            return [segment]
        async with stage.slots:
            chosen = sample_evenly(shown, settings.frames.max_frames_per_call)
            media, words = stage.sheets(chosen, settings.frames)
            reply = await stage.ask_or_warn(
                f"second look {start_s:.2f}",
                "plan_second_look",
                CompletedEvents,
                media,
                {
                    "frames": words,
                    "task": task,
                    "start_s": start_s,
                    "end_s": end_s,
                    "label": segment.label,
                },
                warning=f"no usable second look at {start_s:.2f} to {end_s:.2f} s; the segment "
                "stays as it is",
            )
        return [segment] if reply is None else divide(stage, segment, reply, settings.shortest_s)

    found = await asyncio.gather(*(one(segment) for segment in subtasks))
    return [segment for pieces in found for segment in pieces]


def divide(
    stage: Stage, segment: Subtask, reply: CompletedEvents, min_subtask_s: float
) -> list[Subtask]:
    """Return the parts of a segment: each ends when an event of the reply is complete.

    Events outside the segment are ignored. The last part lasts until the segment ends, and a
    segment with a single event keeps its label.
    """
    episode = stage.episode
    start_s, end_s = segment.start_s(episode), segment.end_s(episode)
    inside = {
        episode.nearest_frame(event.at_s): event.label
        for event in sorted(reply.events, key=lambda event: event.at_s)
        if start_s < event.at_s <= end_s + 1e-3
    }
    if len(inside) < 2:
        return [segment]
    ends = [*list(inside)[:-1], segment.end_frame]
    starts = [segment.start_frame, *ends[:-1]]
    pieces = [
        Subtask(start, end, " ".join(label.split()))
        for start, end, label in zip(starts, ends, inside.values(), strict=True)
        if start < end
    ]
    return enforce_limits(pieces, episode, min_subtask_s=min_subtask_s, max_subtasks=None)
