"""Stage inspection: whether each subtask is complete and the task was achieved."""

import asyncio
from collections.abc import Sequence
from typing import Any

from cuesheet.annotate.acts import missing_acts
from cuesheet.annotate.camera_defects import find_defects
from cuesheet.annotate.frame_selection import sample_evenly, sample_frames_in_subtask
from cuesheet.annotate.stage import Stage
from cuesheet.artifacts.episode import Keyframe
from cuesheet.artifacts.stage_files import StageFile
from cuesheet.artifacts.subtasks import Subtask
from cuesheet.config.stages import FramesConfig
from cuesheet.vlm.replies import EpisodeVerdict, SubtaskVerdict

# Requests whose images are held at the same time.
_MAX_IN_FLIGHT = 8


async def inspect(
    stage: Stage, *, plan: StageFile, camera: str | None, layout: FramesConfig
) -> dict[str, Any]:
    """Return the parts of the inspection file: episode, subtasks, cameras, missing_acts.

    Without a camera, no request is sent.
    """
    episode = stage.episode
    labels = [subtask.label for subtask in plan.subtasks]
    shown = {name: episode.frames_at(name, episode.grid) for name in episode.keyframes}
    return {
        "cameras": [defect.model_dump() for defect in find_defects(shown)],
        "missing_acts": missing_acts(plan.task.text, labels) if labels else [],
        **await request_verdicts(stage, plan=plan, camera=camera, layout=layout),
    }


async def request_verdicts(
    stage: Stage, *, plan: StageFile, camera: str | None, layout: FramesConfig
) -> dict[str, Any]:
    """Return the verdicts of the model, on the episode and on its subtasks."""
    if camera is None:
        return {"episode": None, "subtasks": []}
    grid = stage.episode.frames_at(camera, stage.episode.grid)
    labels = [subtask.label for subtask in plan.subtasks]
    slots = asyncio.Semaphore(_MAX_IN_FLIGHT)
    verdict, *subtasks = await asyncio.gather(
        _inspect_episode(stage, layout, grid, plan.task.text, labels),
        *(
            _inspect_subtask(stage, layout, grid, plan, position, slots)
            for position in range(len(labels))
        ),
    )
    return {"episode": verdict, "subtasks": [subtask for subtask in subtasks if subtask]}


async def _inspect_episode(
    stage: Stage,
    layout: FramesConfig,
    grid: Sequence[Keyframe],
    task: str,
    labels: Sequence[str],
) -> dict[str, Any] | None:
    media, words = stage.sheets(sample_evenly(grid, layout.per_sheet), layout)
    reply = await stage.ask_or_warn(
        "episode",
        "inspect_episode",
        EpisodeVerdict,
        media,
        {"frames": words, "task": task, "labels": labels},
        warning="the model gave no usable reply about the episode",
    )
    return reply.model_dump() if reply else None


async def _inspect_subtask(
    stage: Stage,
    layout: FramesConfig,
    grid: Sequence[Keyframe],
    plan: StageFile,
    position: int,
    slots: asyncio.Semaphore,
) -> dict[str, Any] | None:
    subtask = plan.subtasks[position]
    span = Subtask(subtask.start_frame, subtask.end_frame, subtask.label)
    async with slots:
        media, words = stage.sheets(sample_frames_in_subtask(grid, span, 2), layout)
        reply = await stage.ask_or_warn(
            f"subtask {subtask.start_s:.2f}",
            "inspect_subtask",
            SubtaskVerdict,
            media,
            {
                "frames": words,
                "task": plan.task.text,
                "label": subtask.label,
                "start_s": subtask.start_s,
                "end_s": subtask.end_s,
            },
            warning=f"the model gave no usable reply about the subtask at {subtask.start_s:.2f} s",
        )
    if reply is None:
        return None
    return {
        "label": subtask.label,
        "start_s": subtask.start_s,
        "end_s": subtask.end_s,
        **reply.model_dump(),
    }
