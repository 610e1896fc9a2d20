"""The labels of a task, from the steps that the model sees in a few of its episodes.

A draft lists the steps of one episode. It depends on nothing else that a model wrote, so the plans
of all episodes can depend on the labels. One more request makes the labels of the task from its
drafts. If it has no usable reply, or no draft has any step, the task has no labels and its plans
are labeled freely.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from cuesheet.annotate.frame_selection import sample_evenly
from cuesheet.annotate.stage import Model, Stage
from cuesheet.artifacts.vocabulary import DraftFile
from cuesheet.config.stages import PlanConfig
from cuesheet.errors import SurroundingsError
from cuesheet.text import is_placeholder
from cuesheet.vlm.errors import VlmError
from cuesheet.vlm.prompts import Prompts
from cuesheet.vlm.replies import shorten_label
from cuesheet.vlm.vocabulary import OTHER, DraftedSteps, MergedSteps


async def draft(stage: Stage, settings: PlanConfig, camera: str | None) -> dict[str, Any]:
    """Return the part `steps` of the draft of an episode.

    There are none, and a warning says so, if the episode has no camera, the server rejects the
    request or the reply is unusable. The task's other drafts are used then.
    """
    name = stage.episode.name
    if camera is None:
        stage.warn(f"episode {name} has no camera: no steps are drafted")
        return {"steps": []}
    task = stage.episode.task
    grid = stage.episode.frames_at(camera, stage.episode.grid)
    shown = sample_evenly(grid, settings.frames.max_frames_per_call)
    media, words = stage.sheets(shown, settings.frames)
    values = {
        "frames": words,
        "task": "" if is_placeholder(task) else task,
        "end_s": stage.episode.end_s,
        "granularity": settings.granularity,
    }
    warning = f"the model gave no usable list of steps of episode {name}"
    try:
        reply = await stage.ask_or_warn(
            "draft", "vocabulary_draft", DraftedSteps, media, values, warning=warning
        )
    except VlmError as error:
        if isinstance(error, SurroundingsError) or stage.serve == "replay":
            raise
        stage.warn(f"{warning}: {error}")
        reply = None
    steps = [] if reply is None else sorted(reply.steps, key=lambda step: step.at_s)
    return {"steps": [step.model_dump() for step in steps]}


async def build(
    model: Model, prompts: Prompts, task: str, drafts: Mapping[str, DraftFile]
) -> tuple[list[str], list[str]]:
    """Return the labels of a task, and warnings, from the drafts by name of their episode.

    The model is not asked if no draft has any step.
    """
    with_steps = {name: one for name, one in drafts.items() if one.steps}
    if not with_steps:
        return [], [f"no draft of the task {task!r} has steps; its plans may have any labels"]
    draft_labels = [one.labels for one in with_steps.values()]
    answer = await model.ask(
        name="build",
        prompt="vocabulary_build",
        reply=MergedSteps,
        system=prompts.render("system"),
        media=[],
        text=prompts.render("vocabulary_build", task=task, drafts=numbered(draft_labels)),
        needs_media=False,
    )
    if answer.value is None:
        return [], [f"no usable labels of the task {task!r}; its plans may have any labels"]
    labels, warnings = clean_labels([step.label for step in answer.value.steps])
    missing = len(drafts) - len(with_steps)
    if missing:
        warnings.append(
            f"{missing} of the {len(drafts)} drafts of the task {task!r} have no steps; the labels "
            "are made of the others"
        )
    return labels, warnings


def numbered(drafts: Sequence[Sequence[str]]) -> list[list[dict[str, Any]]]:
    """Return the labels of all drafts with consecutive numbers, from 1."""
    numbers = itertools.count(1)
    return [[{"number": next(numbers), "label": label} for label in labels] for labels in drafts]


def clean_labels(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the distinct labels with at most eight words, and a warning for each that was cut."""
    found: dict[str, str] = {}
    warnings = []
    for label in (" ".join(one.split()) for one in labels):
        short = shorten_label(label)
        if short != label:
            warnings.append(f"the label {label!r} is too long; it was shortened to {short!r}")
        if short.casefold() != OTHER:
            found.setdefault(short.casefold(), short)
    return list(found.values()), warnings
