"""Stage interjections: what a person says at a subtask's start, and what the robot replies."""

import asyncio
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cuesheet.annotate.frame_selection import frames_around
from cuesheet.annotate.stage import Stage, row
from cuesheet.artifacts.apply_corrections import interjections_by_frame
from cuesheet.artifacts.subtasks import remaining_plan
from cuesheet.config.stages import FramesConfig, InterjectionsConfig
from cuesheet.vlm.replies import Acknowledgement, Interjection

KINDS = ("reminder", "correction", "preference", "permission", "question")
# Wordings of the robot's speech. One is drawn per sentence; without it, small models begin nearly
# every sentence with the same words.
MANNERS = (
    "begin with the object that you handle next",
    "begin with the action, such as Opening or Pouring",
    "begin with a short word of agreement",
    "begin with I",
    "begin with what you see",
    "use at most four words",
)
# Steps that nobody asks for, because they end an act or do nothing.
_ENDS_OF_ACTS = re.compile(
    r"(let go|release|retreat|retract|withdraw|back away|move (away|back)( from| to|$)|wait|stay|"
    r"stop|hold still|idle|open (the )?gripper|return to (the |its )?(home|start|rest|initial))\b",
    re.IGNORECASE,
)


def begins_act(label: str) -> bool:
    """Return whether a person could ask for this step: not letting go, moving away or waiting."""
    return _ENDS_OF_ACTS.match(label.strip()) is None


def choose_subtask_starts(
    subtasks: Sequence[Mapping[str, Any]],
    *,
    seed: int,
    episode_index: int,
    not_before_s: float,
    count: int,
) -> list[int]:
    """Return the positions of at most `count` subtasks, in order.

    They start later than `not_before_s`, and an act begins with them. The choice depends on the
    subtasks, `seed` and `episode_index` alone.
    """
    candidates = [
        position
        for position, subtask in enumerate(subtasks)
        if subtask["start_s"] > not_before_s and begins_act(subtask["label"])
    ]
    generator = random.Random(f"interjections {seed} {episode_index}")
    return sorted(generator.sample(candidates, min(count, len(candidates))))


def draw_in_turn(values: Sequence[str], count: int, key: str) -> list[str]:
    """Return `count` values in random order; none is drawn again before all were drawn."""
    generator = random.Random(key)
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += generator.sample(list(values), len(values))
    return drawn[:count]


async def annotate(
    stage: Stage,
    settings: InterjectionsConfig,
    *,
    plan: dict[str, Any],
    camera: str | None,
    layout: FramesConfig,
    seed: int,
    corrections: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Fill `stage` with the events, and with the plans that they need and the plan stage lacks.

    No requests are sent if a person wrote the interjections (`corrections`; see
    `cuesheet.artifacts.apply_corrections`). Without a camera only the task is acknowledged. `plan`
    is the JSON of the plan stage. Returns the times of the interjections and speech that a person
    wrote, as `corrected`.
    """
    episode, task, subtasks = stage.episode, plan["task"]["text"], plan["subtasks"]
    if corrections is not None:
        corrected = _write_corrections(stage, corrections)
        _complete_plans(stage, plan)
        return {"corrected": corrected}
    first_manner, moments = _draw_moments(settings, subtasks, seed, episode.episode_index)
    grid = episode.frames_at(camera, episode.grid) if camera else []

    async def interject(position: int, kind: str, manner: str) -> None:
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
                "kind": kind,
                "manner": manner,
            },
            warning=f"the model gave no usable interjection at {start_s:.2f} s; none is written",
        )
        if reply is not None:
            stage.events.append(row("interjection", "user", reply.interjection, start_s))
            stage.add_speech(reply.speech, start_s)

    if camera is None:
        stage.warn(f"episode {episode.name} has no camera: no interjections written")
        moments = []
    await asyncio.gather(
        _acknowledge(stage, task, first_manner), *(interject(*moment) for moment in moments)
    )
    _complete_plans(stage, plan)
    stage.events.sort(key=lambda event: event["timestamp"])
    return {"corrected": []}


def _draw_moments(
    settings: InterjectionsConfig,
    subtasks: Sequence[Mapping[str, Any]],
    seed: int,
    episode_index: int,
) -> tuple[str, list[tuple[int, str, str]]]:
    """Return the manner of the acknowledgement; position, kind and manner of each interjection."""
    positions = choose_subtask_starts(
        subtasks,
        seed=seed,
        episode_index=episode_index,
        not_before_s=settings.not_before_s,
        count=settings.max_per_episode,
    )
    kinds = draw_in_turn(KINDS, len(positions), f"kinds {seed} {episode_index}")
    first, *manners = draw_in_turn(MANNERS, len(positions) + 1, f"manners {seed} {episode_index}")
    return first, list(zip(positions, kinds, manners, strict=True))


def _write_corrections(
    stage: Stage, corrections: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for frame_index, entry in interjections_by_frame(corrections, stage.episode).items():
        time_s = stage.episode.timestamps_s[frame_index]
        if entry["interjection"] is not None:
            stage.events.append(row("interjection", "user", entry["interjection"], time_s))
        stage.add_speech(entry["speech"], time_s)
        found.append({"style": "interjection", "timestamp": time_s})
    return found or [{"style": "interjection"}]


async def _acknowledge(stage: Stage, task: str, manner: str) -> None:
    """Add the robot's acknowledgement of the task at the first frame."""
    if not task:
        stage.warn(f"episode {stage.episode.name} has no task: nothing to acknowledge")
        return
    reply = await stage.ask_or_warn(
        "acknowledge",
        "interjections_acknowledge",
        Acknowledgement,
        None,
        {"task": task, "manner": manner},
        warning="the model gave no usable acknowledgement of the task; none is written",
    )
    if reply is not None:
        stage.add_speech(reply.speech, stage.episode.timestamps_s[0])


def _complete_plans(stage: Stage, plan: dict[str, Any]) -> None:
    """Write a plan at the time of every interjection that has none: what is left of the subtasks.

    Without subtasks the plan is the task itself.
    """
    planned = {entry["timestamp"] for entry in plan["persistent"] if entry["style"] == "plan"}
    for event in stage.events:
        time_s = event["timestamp"]
        if event["style"] == "interjection" and time_s not in planned:
            started = sum(subtask["start_s"] <= time_s for subtask in plan["subtasks"])
            left = [subtask["label"] for subtask in plan["subtasks"][max(started - 1, 0) :]]
            left = left or [plan["task"]["text"]]
            stage.add_persistent("plan", "assistant", remaining_plan(left), time_s)
