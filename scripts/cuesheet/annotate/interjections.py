"""Stage interjections: what a person says at a subtask's start, and what the robot replies."""

import asyncio
import random
from collections.abc import Sequence

from cuesheet.annotate.frame_selection import frames_around
from cuesheet.annotate.stage import Stage, row
from cuesheet.artifacts.episode import Keyframe
from cuesheet.artifacts.subtasks import remaining_plan
from cuesheet.config.models import FramesConfig, InterjectionsConfig
from cuesheet.vlm.replies import Acknowledgement, Interjection


def choose_moments(
    starts_s: Sequence[float], *, seed: int, episode_index: int, not_before_s: float, count: int
) -> list[int]:
    """Positions of at most `count` subtasks that start later than `not_before_s`, in order.

    The choice depends on `seed` and `episode_index` alone.
    """
    candidates = [position for position, start in enumerate(starts_s) if start > not_before_s]
    generator = random.Random(f"interjections {seed} {episode_index}")
    return sorted(generator.sample(candidates, min(count, len(candidates))))


async def annotate(
    stage: Stage,
    settings: InterjectionsConfig,
    *,
    plan: dict,
    camera: str | None,
    layout: FramesConfig,
    seed: int,
) -> None:
    """Fill `stage` with the events (and plans, where the plan stage wrote none).

    `plan` is the JSON of the plan stage. Without a camera only the task is acknowledged.
    """
    episode = stage.episode
    task, subtasks = plan["task"]["text"], plan["subtasks"]
    moments = choose_moments(
        [part["start_s"] for part in subtasks],
        seed=seed,
        episode_index=episode.episode_index,
        not_before_s=settings.not_before_s,
        count=settings.max_per_episode,
    )
    calls = [_acknowledge(stage, task)]
    if camera is None:
        stage.warn(f"episode {episode.name} has no camera: no interjections written")
    else:
        grid = episode.frames_at(camera, episode.grid)
        calls += [
            _interject(stage, settings, grid, layout, task, subtasks, position)
            for position in moments
        ]
    await asyncio.gather(*calls)
    _complete_plans(stage, plan)
    stage.events.sort(key=lambda event: event["timestamp"])


async def _acknowledge(stage: Stage, task: str) -> None:
    """The robot's first words, at the first frame."""
    if not task:
        stage.warn(f"episode {stage.episode.name} has no task: nothing to acknowledge")
        return
    reply = await stage.ask_or_warn(
        "acknowledge",
        "interjections_acknowledge",
        Acknowledgement,
        None,
        {"task": task},
        otherwise="no usable acknowledgement of the task came back; none is written",
    )
    if reply is not None:
        stage.add_speech(reply.speech, stage.episode.timestamps_s[0])


async def _interject(
    stage: Stage,
    settings: InterjectionsConfig,
    grid: Sequence[Keyframe],
    layout: FramesConfig,
    task: str,
    subtasks: Sequence[dict],
    position: int,
) -> None:
    coming = subtasks[position]
    start_s = coming["start_s"]
    frames = frames_around(grid, coming["start_frame"], settings.frames)
    media, words = stage.sheets(frames, layout)
    reply = await stage.ask_or_warn(
        f"interject {start_s:.2f}",
        "interjections_interject",
        Interjection,
        media,
        {
            "frames": words,
            "task": task,
            "last": subtasks[position - 1]["label"] if position else "none",
            "coming": coming["label"],
            "time_s": start_s,
        },
        otherwise=f"no usable interjection at {start_s:.2f} s; none is written there",
    )
    if reply is not None:
        stage.events.append(row("interjection", "user", reply.interjection, start_s))
        stage.add_speech(reply.speech, start_s)


def _complete_plans(stage: Stage, plan: dict) -> None:
    """Every interjection has a plan at its time: write it where the plan stage did not."""
    planned = {entry["timestamp"] for entry in plan["persistent"] if entry["style"] == "plan"}
    for event in stage.events:
        if event["style"] == "interjection" and event["timestamp"] not in planned:
            left = [
                part["label"] for part in plan["subtasks"] if part["start_s"] >= event["timestamp"]
            ]
            stage.add_persistent("plan", "assistant", remaining_plan(left), event["timestamp"])
