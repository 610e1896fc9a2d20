"""Stage plan: subtasks, and the rows that follow from them."""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cuesheet.annotate.consensus import episode_agreement, with_agreement
from cuesheet.annotate.evidence import Evidence, Refined, refine
from cuesheet.annotate.frame_selection import sample_frames_in_subtask
from cuesheet.annotate.relabel import relabel
from cuesheet.annotate.second_look import look_again
from cuesheet.annotate.segmentation import (
    Segmented,
    WindowSource,
    sample_settings,
    segment_windows,
    split_windows,
)
from cuesheet.annotate.stage import CutClip, Stage
from cuesheet.annotate.task_text import choose_task, write_task_rows
from cuesheet.artifacts.apply_corrections import ExternalSubtasks
from cuesheet.artifacts.episode import Keyframe
from cuesheet.artifacts.subtasks import Subtask, join_windows, remaining_plan
from cuesheet.config.stages import FramesConfig, PlanConfig
from cuesheet.vlm.replies import MAX_MEMORY_SENTENCES, Memory, first_sentences


@dataclass(frozen=True)
class _Found:
    """Subtasks, the record of their samples, and how recorded events changed them."""

    subtasks: list[Subtask]
    samples: dict[str, Any] = field(default_factory=dict)
    refined: Refined | None = None


async def annotate(
    stage: Stage,
    settings: PlanConfig,
    *,
    camera: str | None,
    cut_clip: CutClip | None,
    given: ExternalSubtasks | None = None,
    evidence: Evidence | None = None,
    rephrasings: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Fill `stage` with the rows of the plan. Return the other parts of its JSON file.

    If `given` contains subtasks or memories, or a person wrote the `rephrasings` of the task, these
    are not requested from the model. Without a camera, no request with frames is sent: only
    rephrasings of the task and rows that follow from given subtasks are written. Raises
    CuesheetError if the model gives no usable segmentation.
    """
    evidence = evidence or Evidence()
    episode, propagated = stage.episode, evidence.propagated
    if given is None and propagated is not None and propagated.applies(settings):
        given = ExternalSubtasks("propagation", propagated.subtasks)
    motion = _write_motion(stage, evidence)
    if camera is None:
        grid = None
        if given is None or settings.memory:
            what = "subtasks, plans or memory" if given is None else "memory"
            stage.warn(f"episode {episode.name} has no camera: no {what} written")
        task = {"text": episode.task, "source": "dataset"}
    else:
        grid = episode.frames_at(camera, episode.grid)
        task = await choose_task(stage, settings, grid)

    async def find_subtasks() -> _Found:
        if given is not None or grid is None:
            return _Found(given.subtasks if given else [])
        return await _request_subtasks(stage, settings, grid, cut_clip, task["text"], evidence)

    found, _ = await asyncio.gather(
        find_subtasks(), write_task_rows(stage, settings, task["text"], rephrasings)
    )
    _write_subtasks(stage, settings, found.subtasks)
    memories = given.memories if given else {}
    shown = grid if settings.memory else None
    await _write_memory(stage, settings.frames, shown, found.subtasks, task["text"], memories)
    starts_s = [subtask.start_s(episode) for subtask in found.subtasks]
    is_skipped = camera is None and given is None
    source = given.source if given else "model"
    return {
        "task": task,
        "subtasks": [subtask.as_json(episode) for subtask in found.subtasks],
        **({"skipped": "no camera"} if is_skipped else {"subtasks_from": source}),
        "corrected": [  # what a person wrote in addition to subtasks
            *([] if rephrasings is None else [{"style": "task_aug"}]),
            *({"style": "memory", "timestamp": starts_s[place]} for place in memories),
        ],
        **({"propagation": propagated.as_json(settings, source)} if propagated else {}),
        **_record_of_signals(evidence, found.refined),
        **({"motion": motion} if motion else {}),
        **found.samples,
    }


def _record_of_signals(evidence: Evidence, refined: Refined | None) -> dict[str, Any]:
    """Return what the plan file records of the recorded signals."""
    if evidence.recording is None:
        return {}
    strokes = {one.name: len(one.strokes) for one in evidence.recording.grippers}
    return {"signals": {"strokes": strokes, **(refined.as_json() if refined else {})}}


def _write_motion(stage: Stage, evidence: Evidence) -> list[dict[str, Any]]:
    """Write `motion` rows and return the primitives behind them."""
    if evidence.recording is None or not evidence.signals.motion:
        return []
    primitives = sorted(evidence.recording.motion, key=lambda one: (one.start_frame, one.arm))
    for one in primitives:
        start_s = stage.episode.timestamps_s[one.start_frame]
        stage.add_persistent("motion", "assistant", one.text, start_s)
    return [one.model_dump() for one in primitives]


async def _request_subtasks(
    stage: Stage,
    settings: PlanConfig,
    grid: Sequence[Keyframe],
    cut_clip: CutClip | None,
    task: str,
    evidence: Evidence,
) -> _Found:
    """Return the model's subtasks, refined by the recorded events."""
    segmented = await _segment_episode(stage, settings, grid, cut_clip, task, evidence)
    subtasks, samples = segmented.subtasks, {}
    changed: list[int] = []
    refined = None
    if evidence.recording is not None:
        refined = refine(
            subtasks,
            evidence.recording,
            stage.episode,
            settings,
            evidence.signals,
            name_strokes=not stage.vocabulary,
        )
        subtasks, changed = refined.subtasks, refined.changed
    if settings.samples > 1:
        subtasks = with_agreement(subtasks, segmented.samples)
        samples = {
            "agreement": episode_agreement(subtasks),
            "samples": [
                {**sampling, "subtasks": [subtask.as_json(stage.episode) for subtask in sample]}
                for sampling, sample in zip(
                    sample_settings(stage, settings), segmented.samples, strict=True
                )
            ],
        }
    if settings.relabel in ("span", "neighbors"):
        changed = list(range(len(subtasks)))
    elif settings.granularity == "phases" and not stage.vocabulary:
        changed = []  # the strokes name them
    if changed:
        subtasks = await relabel(stage, settings, grid, subtasks, task, changed)
    return _Found(subtasks, samples, refined)


async def _segment_episode(
    stage: Stage,
    settings: PlanConfig,
    grid: Sequence[Keyframe],
    cut_clip: CutClip | None,
    task: str,
    evidence: Evidence,
) -> Segmented:
    """Return the model's subtasks of the episode, and all samples of them."""
    windows = split_windows(
        [frame.frame_index for frame in grid],
        stage.episode.length,
        settings.frames.max_frames_per_call,
        settings.frames.per_sheet,
    )
    source = WindowSource(grid, settings.frames, cut_clip)
    found = await segment_windows(stage, settings, source, windows, task, evidence)
    join = partial(join_windows, episode=stage.episode, min_subtask_s=settings.shortest_s)
    subtasks = join([window.subtasks for window in found])
    if settings.second_look and stage.episode.fine:
        fine = stage.episode.frames_at(grid[0].camera, stage.episode.fine)
        subtasks = await look_again(stage, settings, fine, subtasks, task)
    samples = zip(*(window.samples for window in found), strict=True)
    return Segmented(subtasks, [join(windows) for windows in samples])


def _write_subtasks(stage: Stage, settings: PlanConfig, subtasks: Sequence[Subtask]) -> None:
    labels = [subtask.label for subtask in subtasks]
    for position, subtask in enumerate(subtasks):
        start_s = subtask.start_s(stage.episode)
        stage.add_persistent("subtask", "assistant", subtask.label, start_s)
        if settings.plans:
            stage.add_persistent("plan", "assistant", remaining_plan(labels[position:]), start_s)


async def _write_memory(
    stage: Stage,
    layout: FramesConfig,
    grid: Sequence[Keyframe] | None,
    subtasks: Sequence[Subtask],
    task: str,
    written: Mapping[int, str],
) -> None:
    """Write a chain of memories, each from the one before and frames of the finished subtask.

    Memories that a person has `written` (by position) replace the model's; "" leaves out a row.
    Without a `grid`, no memory is requested.
    """
    memory = ""
    for position, (finished, starting) in enumerate(itertools.pairwise(subtasks), start=1):
        start_s = starting.start_s(stage.episode)
        if position in written:
            if written[position]:
                memory = written[position]
                stage.add_persistent("memory", "assistant", memory, start_s)
            continue
        if grid is None:
            continue
        # At most one row of a sheet: it only has to show the outcome of one step. The requests of
        # the chain wait for each other, so each should be short.
        shown = sample_frames_in_subtask(grid, finished, layout.columns)
        media, words = stage.sheets(shown, layout)
        reply = await stage.ask_or_warn(
            f"memory {start_s:.2f}",
            "plan_memory",
            Memory,
            media,
            {
                "frames": words,
                "task": task,
                "memory": memory,
                "finished": finished.label,
                "starting": starting.label,
                "remaining": [subtask.label for subtask in subtasks[position + 1 :]],
            },
            warning=f"the model gave no usable memory at {start_s:.2f} s; none is written",
        )
        if reply is not None:
            memory = first_sentences(reply.memory, MAX_MEMORY_SENTENCES)
            stage.add_persistent("memory", "assistant", memory, start_s)
