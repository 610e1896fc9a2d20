"""Stage inspection: whether each subtask is complete and the task was achieved."""

import asyncio
from typing import Any

from cuesheet.annotate.acts import missing_acts
from cuesheet.annotate.camera_defects import find_defects
from cuesheet.annotate.frame_selection import sample_evenly, sample_frames_in_subtask
from cuesheet.annotate.stage import Stage
from cuesheet.artifacts.stage_files import StageFile
from cuesheet.artifacts.subtasks import Subtask
from cuesheet.config.stages import FramesConfig
from cuesheet.vlm.replies import EpisodeVerdict, SubtaskVerdict


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
    task = plan.task.text

    async def inspect_episode() -> dict[str, Any] | None:
        media, words = stage.sheets(sample_evenly(grid, layout.per_sheet), layout)
        labels = [subtask.label for subtask in plan.subtasks]
        reply = await stage.ask_or_warn(
            "episode",
            "inspect_episode",
            EpisodeVerdict,
            media,
            {"frames": words, "task": task, "labels": labels},
            warning="the model gave no usable reply about the episode",
        )
        return reply.model_dump() if reply else None

    async def inspect_subtask(span: Subtask) -> dict[str, Any] | None:
        about = {
            "label": span.label,
            "start_s": span.start_s(stage.episode),
            "end_s": span.end_s(stage.episode),
        }
        async with stage.slots:
            media, words = stage.sheets(sample_frames_in_subtask(grid, span, 2), layout)
            reply = await stage.ask_or_warn(
                f"subtask {about['start_s']:.2f}",
                "inspect_subtask",
                SubtaskVerdict,
                media,
                {"frames": words, "task": task, **about},
                warning=f"the model gave no usable reply about the subtask at "
                f"{about['start_s']:.2f} s",
            )
        return {**about, **reply.model_dump()} if reply else None

    spans = [Subtask(one.start_frame, one.end_frame, one.label) for one in plan.subtasks]
    verdict, *subtasks = await asyncio.gather(inspect_episode(), *map(inspect_subtask, spans))
    return {"episode": verdict, "subtasks": [subtask for subtask in subtasks if subtask]}
