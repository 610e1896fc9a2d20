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
    has_neighbors = settings.relabel == "neighbors"
    show = _with_neighbors if has_neighbors else _alone

    async def one(position: int) -> Subtask:
        subtask = subtasks[position]
        if position not in positions:
            return subtask
        before, after = subtasks[:position][-1:], subtasks[position + 1 :][:1]
        async with stage.slots:
            media, frames = show(stage, settings, grid, subtasks, position)
            values = {
                "frames": frames,
                "task": task,
                "start_s": subtask.start_s(stage.episode),
                "end_s": subtask.end_s(stage.episode),
                "label": subtask.label,
                "previous_label": before[0].label if has_neighbors and before else "",
                "next_label": after[0].label if has_neighbors and after else "",
            }
            return replace(subtask, label=await _label(stage, settings, position, media, values))

    return list(await asyncio.gather(*(one(position) for position in range(len(subtasks)))))


def _alone(
    stage: Stage,
    settings: PlanConfig,
    grid: Sequence[Keyframe],
    subtasks: Sequence[Subtask],
    position: int,
) -> tuple[list[Media], str]:
    """Return frames of a segment at their full size, and the lines that explain them."""
    return stage.frames(sample_frames_in_subtask(grid, subtasks[position], settings.relabel_frames))


def _with_neighbors(
    stage: Stage,
    settings: PlanConfig,
    grid: Sequence[Keyframe],
    subtasks: Sequence[Subtask],
    position: int,
) -> tuple[list[Media], str]:
    """Return a sheet each of a segment and its neighbors, and the lines that explain them."""
    count = settings.relabel_frames
    layout = settings.frames.model_copy(update={"per_sheet": count, "columns": count})
    media: list[Media] = []
    lines = []
    for name, number in zip(_NAMES, range(position - 1, position + 2), strict=True):
        if not 0 <= number < len(subtasks):
            continue
        shown = sample_frames_in_subtask(grid, subtasks[number], count)
        media += stage.sheets(shown, layout)[0]
        times = " ".join(f"{frame.timestamp_s:.2f}" for frame in shown)
        lines.append(f"Image {len(media)}, {name}: frames at {times} s, from left to right")
    return media, "\n".join(lines)


async def _label(
    stage: Stage,
    settings: PlanConfig,
    position: int,
    media: Sequence[Media],
    values: dict[str, Any],
) -> str:
    first = values["label"]
    warning = f"relabel of {first!r} gave no usable reply; the first label stays"
    # A vocabulary of one label leaves nothing to choose from.
    is_only_one = len(stage.vocabulary) == 1 and not stage.own_words
    count = 1 if is_only_one else settings.label_candidates
    name, prompt, request = f"relabel {position}", "plan_relabel", {**values, "count": count}
    if count == 1:
        reply = await stage.ask_or_warn(name, prompt, Relabel, media, request, warning=warning)
        return first if reply is None else " ".join(reply.label.split())
    found = await stage.ask_or_warn(name, prompt, LabelCandidates, media, request, warning=warning)
    if found is None:
        return first
    labels = list(dict.fromkeys(shorten_label(" ".join(one.split())) for one in found.labels))
    if len(labels) == 1:
        return labels[0]
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
