"""Requests the labels of final segments again, with more of the segment in view."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from cuesheet.annotate.frame_selection import sample_frames_in_subtask
from cuesheet.annotate.stage import Stage
from cuesheet.artifacts.episode import Keyframe
from cuesheet.artifacts.subtasks import Subtask
from cuesheet.config.stages import PlanConfig
from cuesheet.vlm.client import Media
from cuesheet.vlm.replies import LabelCandidates, LabelChoice, Relabel, shorten_label

# Requests whose images are held at the same time.
_MAX_IN_FLIGHT = 8
_NAMES = ("before the segment", "the segment", "after the segment")


async def relabel(
    stage: Stage,
    settings: PlanConfig,
    grid: Sequence[Keyframe],
    subtasks: Sequence[Subtask],
    task: str,
    positions: Collection[int],
) -> list[Subtask]:
    """Return the subtasks with new labels at `positions`.

    `plan.relabel` decides what the model sees: `span` shows larger frames of the segment alone,
    `neighbors` one image each of what is before, the segment, and what is after. With
    `plan.label_candidates` above 1, that many labels are requested at once, and one more request
    selects the best.
    """
    slots = asyncio.Semaphore(_MAX_IN_FLIGHT)

    async def one(position: int) -> Subtask:
        if position not in positions:
            return subtasks[position]
        async with slots:
            media, frames = _media(stage, settings, grid, subtasks, position)
            values = _values(stage, settings, subtasks, position, task, frames)
            label = await _label(stage, settings, subtasks[position], position, media, values)
        return replace(subtasks[position], label=label)

    return list(await asyncio.gather(*(one(position) for position in range(len(subtasks)))))


def _media(
    stage: Stage,
    settings: PlanConfig,
    grid: Sequence[Keyframe],
    subtasks: Sequence[Subtask],
    position: int,
) -> tuple[list[Media], str]:
    """Return the images of a request and the lines that explain them."""
    count = settings.relabel_frames
    if settings.relabel != "neighbors":
        shown = sample_frames_in_subtask(grid, subtasks[position], count)
        lines = [f"Image {n}: {frame.timestamp_s:.2f} s" for n, frame in enumerate(shown, 1)]
        return [stage.encode_keyframe(frame) for frame in shown], "\n".join(lines)
    media: list[Media] = []
    lines = []
    layout = settings.frames.model_copy(update={"per_sheet": count, "columns": count})
    for name, number in zip(_NAMES, range(position - 1, position + 2), strict=True):
        if not 0 <= number < len(subtasks):
            continue
        shown = sample_frames_in_subtask(grid, subtasks[number], count)
        sheets, _ = stage.sheets(shown, layout)
        media += sheets
        times = " ".join(f"{frame.timestamp_s:.2f}" for frame in shown)
        lines.append(f"Image {len(media)}, {name}: frames at {times} s, from left to right")
    return media, "\n".join(lines)


def _values(
    stage: Stage,
    settings: PlanConfig,
    subtasks: Sequence[Subtask],
    position: int,
    task: str,
    frames: str,
) -> dict[str, Any]:
    subtask = subtasks[position]
    has_neighbors = settings.relabel == "neighbors"
    before = subtasks[position - 1].label if has_neighbors and position else ""
    is_last = position + 1 == len(subtasks)
    after = subtasks[position + 1].label if has_neighbors and not is_last else ""
    return {
        "frames": frames,
        "task": task,
        "start_s": subtask.start_s(stage.episode),
        "end_s": subtask.end_s(stage.episode),
        "label": subtask.label,
        "previous_label": before,
        "next_label": after,
    }


async def _label(
    stage: Stage,
    settings: PlanConfig,
    subtask: Subtask,
    position: int,
    media: Sequence[Media],
    values: dict[str, Any],
) -> str:
    warning = f"relabel of {subtask.label!r} gave no usable reply; the first label stays"
    # A vocabulary of one label leaves nothing to choose from.
    is_only_one = len(stage.vocabulary) == 1 and not stage.own_words
    count = 1 if is_only_one else settings.label_candidates
    name, prompt = f"relabel {position}", "plan_relabel"
    values = {**values, "count": count}
    if count == 1:
        reply = await stage.ask_or_warn(name, prompt, Relabel, media, values, warning=warning)
        return subtask.label if reply is None else " ".join(reply.label.split())
    found = await stage.ask_or_warn(name, prompt, LabelCandidates, media, values, warning=warning)
    if found is None:
        return subtask.label
    labels = list(dict.fromkeys(shorten_label(" ".join(one.split())) for one in found.labels))
    if len(labels) == 1:
        return labels[0]
    del values["count"]
    choice = await stage.ask_or_warn(
        f"select {position}",
        "plan_select_label",
        LabelChoice,
        media,
        {**values, "labels": labels},
        warning=f"no usable choice among the labels {'; '.join(labels)}; the first one is used",
    )
    chosen = choice.number if choice is not None else 1
    return labels[min(chosen, len(labels)) - 1]
