"""Stage plan: what is visible, the subtasks, and the rows that follow from them."""

import asyncio
import itertools
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cuesheet.config import FramesConfig, PlanConfig
from cuesheet.episode import Keyframe
from cuesheet.errors import CuesheetError
from cuesheet.grid import grid_indices
from cuesheet.replies import (
    AxisRephrasings,
    Description,
    Memory,
    Relabel,
    Rephrasings,
    Segmentation,
    TaskFromVideo,
)
from cuesheet.stage import Stage
from cuesheet.subtasks import Subtask, Window, clean_spans, join_windows, remaining_plan
from cuesheet.vlm import Media

_PLACEHOLDERS = {"debug", "test", "tbd", "todo", "n/a", "na", "untitled", "default"}

# Gives the H.264 clip of the frames [start_frame, end_frame) of the episode.
CutClip = Callable[[int, int], bytes]


@dataclass(frozen=True)
class View:
    """Frames of a window as a model gets them: the media and the words that explain them."""

    window: Window
    media: list[Media]
    words: str


def is_short(task: str) -> bool:
    """True for a task that says too little: missing, a placeholder, or fewer than 3 words."""
    words = re.findall(r"[^\s]+", task)
    return len(words) < 3 or task.strip().strip(".").casefold() in _PLACEHOLDERS


def split_windows(frames: Sequence[int], length: int, max_frames: int) -> list[Window]:
    """Cut an episode of `length` frames so that no window shows more than `max_frames` of `frames`.

    The windows are consecutive and hold equally many of the shown frames, give or take one.
    """
    count = math.ceil(len(frames) / max_frames)
    firsts = [frames[position * len(frames) // count] for position in range(count)]
    edges = [0, *firsts[1:], length]
    return [Window(edges[position], edges[position + 1]) for position in range(count)]


async def annotate(
    stage: Stage,
    settings: PlanConfig,
    *,
    camera: str | None,
    per_second: float,
    cut_clip: CutClip | None,
) -> dict[str, Any]:
    """Fill `stage` with the rows of the plan; the other parts of its JSON file are returned.

    Without a camera nothing that needs frames is asked: the task's rephrasings are all there is.
    Raises CuesheetError where the model gives no usable segmentation.
    """
    episode = stage.episode
    if camera is None:
        stage.warn(f"episode {episode.name} has no camera: no subtasks, plans or memory written")
        task = {"text": episode.task, "source": "dataset"}
        await _write_task_rows(stage, settings, episode.task)
        return {"task": task, "subtasks": [], "skipped": "no camera"}

    grid = stage.episode.frames_at(camera, grid_indices(episode.timestamps_s, per_second))
    task = await _choose_task(stage, settings, grid)
    windows = split_windows(
        [frame.frame_index for frame in grid],
        episode.length,
        settings.frames.max_frames_per_call,
    )
    views = [_view(stage, settings.frames, grid, window, cut_clip) for window in windows]
    covers, _ = await asyncio.gather(
        asyncio.gather(*(_segment(stage, settings, view, task["text"]) for view in views)),
        _write_task_rows(stage, settings, task["text"]),
    )
    subtasks = join_windows(covers, episode, min_subtask_s=settings.min_subtask_s)
    if settings.relabel:
        subtasks = await _relabel(stage, settings, grid, subtasks, task["text"])
    labels = [part.label for part in subtasks]
    for position, part in enumerate(subtasks):
        start_s = part.start_s(episode)
        stage.add_persistent("subtask", "assistant", part.label, start_s)
        if settings.plans:
            stage.add_persistent("plan", "assistant", remaining_plan(labels[position:]), start_s)
    if settings.memory:
        await _write_memory(stage, settings.frames, grid, subtasks, task["text"])
    return {"task": task, "subtasks": [part.as_json(episode) for part in subtasks]}


async def _choose_task(stage: Stage, settings: PlanConfig, grid: list[Keyframe]) -> dict[str, str]:
    """The task to work with: the dataset's, or one derived from a sheet of the whole episode."""
    given = stage.episode.task.strip()
    derive = settings.derive_task == "always" or (
        settings.derive_task == "if_short" and is_short(given)
    )
    if derive:
        media, words = stage.sheets(_spread(grid, settings.frames.per_sheet), settings.frames)
        answer = await stage.vlm.ask(
            name="task_from_video",
            prompt="plan_task_from_video",
            reply=TaskFromVideo,
            system=stage.system,
            media=media,
            text=stage.prompts.render("plan_task_from_video", frames=words),
        )
        if answer.value is not None:
            return {"text": answer.value.task, "source": "video"}
        stage.warn("no usable task was derived from the video; the dataset's is used")
    return {"text": given, "source": "dataset"}


async def _write_task_rows(stage: Stage, settings: PlanConfig, task: str) -> None:
    """`task_aug` rows at the first frame: the task itself, then its distinct rephrasings."""
    wanted = settings.rephrasings
    if not task:
        stage.warn(f"episode {stage.episode.name} has no task: no task_aug rows written")
        return
    texts = [task]
    if wanted.mode == "free":
        answer = await stage.vlm.ask(
            name="rephrase",
            prompt="plan_rephrase",
            reply=Rephrasings,
            system=stage.system,
            media=[],
            text=stage.prompts.render("plan_rephrase", task=task, count=wanted.count),
            needs_media=False,
        )
        if answer.value is not None:
            texts += _distinct(texts, answer.value.rephrasings)[: wanted.count]
    elif wanted.mode == "axes":
        axes = {
            axis: getattr(wanted, axis)
            for axis in ("synonym", "omit_arm", "omit_orientation", "omit_grasp", "combined")
        }
        answer = await stage.vlm.ask(
            name="rephrase",
            prompt="plan_rephrase_axes",
            reply=AxisRephrasings,
            system=stage.system,
            media=[],
            text=stage.prompts.render("plan_rephrase_axes", task=task, axes=axes),
            needs_media=False,
        )
        if answer.value is not None:
            for axis, count in axes.items():
                texts += _distinct(texts, getattr(answer.value, axis))[:count]
    if wanted.mode != "off" and len(texts) == 1:
        stage.warn("no usable rephrasing of the task came back")
    for text in texts:
        stage.add_persistent("task_aug", "user", text, stage.episode.timestamps_s[0])


def _distinct(known: Sequence[str], candidates: Sequence[str]) -> list[str]:
    """The candidates that differ from `known` and each other in more than case and spaces."""
    seen = {" ".join(text.casefold().split()).rstrip(".!?") for text in known}
    fresh = []
    for candidate in candidates:
        text = " ".join(candidate.split())
        key = text.casefold().rstrip(".!?")
        if key and key not in seen:
            seen.add(key)
            fresh.append(text)
    return fresh


def _view(
    stage: Stage,
    layout: FramesConfig,
    grid: Sequence[Keyframe],
    window: Window,
    cut_clip: CutClip | None,
) -> View:
    shown = [f for f in grid if window.start_frame <= f.frame_index < window.end_frame]
    if layout.mode == "contact_sheets":
        return View(window, *stage.sheets(shown, layout))
    if layout.mode == "single_frames":
        words = "\n".join(
            f"Image {number}: {frame.timestamp_s:.2f} s" for number, frame in enumerate(shown, 1)
        )
        return View(window, [stage.picture(frame) for frame in shown], words)
    if cut_clip is None:
        raise CuesheetError(
            f"episode {stage.episode.name}: plan.frames.mode is clip but there is no clip"
        )
    start_s, end_s = _times(stage, window)
    clip = stage.clip(cut_clip(window.start_frame, window.end_frame), layout.clip_fps)
    return View(window, [clip], f"Clip: {start_s:.2f} to {end_s:.2f} s")


def _times(stage: Stage, window: Window) -> tuple[float, float]:
    part = Subtask(window.start_frame, window.end_frame, "")
    return part.start_s(stage.episode), part.end_s(stage.episode)


async def _segment(stage: Stage, settings: PlanConfig, view: View, task: str) -> list[Subtask]:
    """Describe, then segment, one window. The two calls share everything before the question."""
    start_s, end_s = _times(stage, view.window)
    shared = {"frames": view.words, "task": task, "start_s": start_s, "end_s": end_s}
    description = ""
    if settings.describe_first:
        described = await stage.vlm.ask(
            name=f"describe {start_s:.2f}",
            prompt="plan_describe",
            reply=Description,
            system=stage.system,
            media=view.media,
            text=stage.prompts.render("plan_describe", **shared),
        )
        if described.value is None:
            stage.warn(f"no usable description of {start_s:.2f} to {end_s:.2f} s came back")
        else:
            description = _description_words(described.value, start_s)
    answer = await stage.vlm.ask(
        name=f"segment {start_s:.2f}",
        prompt="plan_segment",
        reply=Segmentation,
        system=stage.system,
        media=view.media,
        text=stage.prompts.render(
            "plan_segment",
            **shared,
            description=description,
            max_subtasks=settings.max_subtasks,
            min_subtask_s=settings.min_subtask_s,
        ),
    )
    spans = [] if answer.value is None else answer.value.subtasks
    cover = clean_spans(
        [(span.start_s, span.end_s, span.label) for span in spans],
        view.window,
        stage.episode,
        min_subtask_s=settings.min_subtask_s,
        max_subtasks=settings.max_subtasks,
    )
    if not cover:
        found = (
            "two replies in a row were not of the requested form"
            if answer.value is None
            else f"none of its {len(spans)} spans lies within the window"
        )
        key = answer.call["key"]
        kept = f"{key[:2]}/{key}.json"
        raise CuesheetError(
            f"episode {stage.episode.name}: the model gave no usable segmentation of {start_s:.2f} "
            f"to {end_s:.2f} s: {found}. Its reply is kept in the call cache (vlm.cache_dir) as "
            f"{kept}. Look at it, then change the prompt, the sampling or the model; to ask the "
            "same once more, delete that file."
        )
    return cover


def _description_words(description: Description, start_s: float) -> str:
    lines = [description.scene]
    events = sorted(description.events, key=lambda event: event.at_s)
    lines += [f"- {max(event.at_s, start_s):.2f} s: {event.what}" for event in events]
    return "\n".join(lines)


async def _relabel(
    stage: Stage,
    settings: PlanConfig,
    grid: list[Keyframe],
    subtasks: list[Subtask],
    task: str,
) -> list[Subtask]:
    """Ask for every label once more, seeing frames of the span and of its neighbors."""

    async def ask(position: int) -> Subtask:
        part = subtasks[position]
        around = subtasks[max(0, position - 1) : position + 2]
        frames = [
            frame for span in around for frame in _frames_of(grid, span, settings.relabel_frames)
        ]
        media, words = stage.sheets(frames, settings.frames)
        answer = await stage.vlm.ask(
            name=f"relabel {position}",
            prompt="plan_relabel",
            reply=Relabel,
            system=stage.system,
            media=media,
            text=stage.prompts.render(
                "plan_relabel",
                frames=words,
                task=task,
                start_s=part.start_s(stage.episode),
                end_s=part.end_s(stage.episode),
                label=part.label,
                previous_label=subtasks[position - 1].label if position else "",
                next_label=subtasks[position + 1].label if position + 1 < len(subtasks) else "",
            ),
        )
        if answer.value is None:
            stage.warn(f"relabel of {part.label!r} gave no usable reply; the first label stays")
            return part
        return Subtask(part.start_frame, part.end_frame, " ".join(answer.value.label.split()))

    calls: list[Awaitable[Subtask]] = [ask(position) for position in range(len(subtasks))]
    return list(await asyncio.gather(*calls))


async def _write_memory(
    stage: Stage,
    layout: FramesConfig,
    grid: list[Keyframe],
    subtasks: list[Subtask],
    task: str,
) -> None:
    """A chain: each memory is made from the one before and frames of the span that just ended."""
    memory = ""
    for finished, starting in itertools.pairwise(subtasks):
        media, words = stage.sheets(_frames_of(grid, finished, layout.columns), layout)
        start_s = starting.start_s(stage.episode)
        answer = await stage.vlm.ask(
            name=f"memory {start_s:.2f}",
            prompt="plan_memory",
            reply=Memory,
            system=stage.system,
            media=media,
            text=stage.prompts.render(
                "plan_memory",
                frames=words,
                task=task,
                memory=memory,
                finished=finished.label,
                starting=starting.label,
            ),
        )
        if answer.value is None:
            stage.warn(f"no usable memory at {start_s:.2f} s came back; none is written there")
            continue
        memory = answer.value.memory
        stage.add_persistent("memory", "assistant", memory, start_s)


def _frames_of(grid: list[Keyframe], part: Subtask, count: int) -> list[Keyframe]:
    """Up to `count` frames of the grid spread over a subtask; the nearest one where none is in it.

    A subtask shorter than the grid's step may hold no frame of the grid.
    """
    inside = [f for f in grid if part.start_frame <= f.frame_index < part.end_frame]
    if not inside:
        inside = [min(grid, key=lambda frame: abs(frame.frame_index - part.start_frame))]
    return _spread(inside, count)


def _spread(frames: list[Keyframe], count: int) -> list[Keyframe]:
    """At most `count` of `frames`, evenly spread, first and last among them."""
    if len(frames) <= count:
        return frames
    if count == 1:
        return [frames[-1]]
    step = (len(frames) - 1) / (count - 1)
    return [frames[round(position * step)] for position in range(count)]
