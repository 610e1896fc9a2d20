"""Requests the plan of one episode.

In: the keyframes folder, the prompt files, the clip if clips are sent. Out: plan/{episode}.json
with the subtasks and the rows of styles subtask, plan, memory and task_aug. Times in seconds.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuesheet import files, job_log
from cuesheet.annotate import plan
from cuesheet.annotate.evidence import Propagated
from cuesheet.annotate.segmentation import CutClip
from cuesheet.annotate.stage import Stage, open_stage
from cuesheet.artifacts.apply_corrections import ExternalSubtasks, subtasks_from_spans
from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.signals_file import SignalsFile, read_signals
from cuesheet.artifacts.vocabulary import read_vocabulary
from cuesheet.config.signals import SignalsConfig
from cuesheet.config.stages import PlanConfig
from cuesheet.text import counted


async def annotate(
    keyframes: str,
    prompts: list[str],
    model_settings: Mapping[str, Any],
    settings: PlanConfig,
    camera: str | None,
    clip: str | None,
    given: Mapping[str, Any] | None = None,
    root: str = "",
    recording: str | None = None,
    signals: SignalsConfig | None = None,
    references: Sequence[tuple[str, Mapping[str, Any]]] = (),
    vocabulary: Sequence[str] = (),
    drafted_vocabulary: str | None = None,
    rephrasings: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the content of the plan file.

    No requests are sent for `given` subtasks and for `rephrasings` that a person wrote. Labels
    are taken from `vocabulary`, or from the file `drafted_vocabulary`, if there are any.
    """
    async with open_stage(
        "plan", keyframes=keyframes, prompts=prompts, model_settings=model_settings
    ) as stage:
        used = _vocabulary(stage, vocabulary, drafted_vocabulary)
        cut = _cutter(clip, stage.episode) if clip else None
        recorded = read_signals(recording) if recording else None
        parts = await plan.annotate(
            stage,
            settings,
            camera=camera,
            cut_clip=cut,
            given=_given(given, root, stage) if given else None,
            recording=recorded,
            signals=signals,
            propagated=_propagated(stage.episode, recorded, camera, references),
            rephrasings=rephrasings,
        )
        return stage.result(**parts, **used)


def _vocabulary(stage: Stage, given: Sequence[str], drafted: str | None) -> dict[str, Any]:
    """Limit the labels of the stage. Return what the plan file records of it."""
    task, labels = stage.episode.task, list(given)
    if drafted is not None:
        labels = read_vocabulary(drafted).labels
        if not labels:
            stage.warn(
                f"the task {task!r} has no drafted labels (vocabulary/{Path(drafted).name} says "
                "why); its labels are not limited"
            )
        stage.own_words = True
    stage.vocabulary = tuple(labels)
    if not labels and drafted is None:
        return {}
    record = {"task": task, "labels": labels, "is_drafted": drafted is not None}
    return {"vocabulary": record}


def _propagated(
    episode: Episode,
    recorded: SignalsFile | None,
    camera: str | None,
    references: Sequence[tuple[str, Mapping[str, Any]]],
) -> Propagated | None:
    """Return subtasks propagated from corrected episodes. `references`: file and spans of each."""
    if not references:
        return None
    from cuesheet.annotate import propagation  # imports numpy

    target = (
        propagation.trajectory_of_signals(recorded)
        if recorded is not None
        else propagation.trajectory_of_images(episode, camera or "")
    )
    known = [
        propagation.Reference(
            one["episode"], propagation.read_trajectory(file, camera), one["spans"]
        )
        for file, one in references
    ]
    return propagation.propagate(episode, target, known)


def _given(given: Mapping[str, Any], root: str, stage: Stage) -> ExternalSubtasks | None:
    """Return the subtasks of a correction (`spans`), or those of a column of the dataset."""
    episode = stage.episode
    if "spans" in given:
        spans = given["spans"]
        memories = {
            position: span["memory"]
            for position, span in enumerate(spans)
            if position > 0 and span.get("memory") is not None
        }
        return ExternalSubtasks("correction", subtasks_from_spans(spans, episode), memories)
    from cuesheet.dataset.subtask_labels import read_subtasks  # imports pyarrow

    place = (Path(root), given["data_file"], episode.episode_index)
    subtasks, unlabeled = read_subtasks(*place, episode.length, given["column"])
    if unlabeled:
        stage.warn(
            f"{given['column']}: {unlabeled} of {episode.length} frames have no subtask; "
            + ("they go to a neighbor" if subtasks else "the model is asked instead")
        )
    return ExternalSubtasks("dataset", subtasks) if subtasks else None


def _cutter(clip: str, episode: Episode) -> CutClip:
    from cuesheet.media.clips import (
        ClipCutter,  # imports a video library, which most runs do not need
    )

    return ClipCutter(clip, length=episode.length, end_s=episode.end_s, fps=episode.fps).cut


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]):
        result = asyncio.run(
            annotate(
                snakemake.input.keyframes,
                list(snakemake.input.prompts),
                snakemake.params.model_settings,
                PlanConfig(**snakemake.params.plan),
                snakemake.params.camera,
                snakemake.input.clip or None,
                snakemake.params.given,
                snakemake.params.root,
                next(iter(snakemake.input.get("recording", [])), None),
                SignalsConfig(**snakemake.params.signals),
                list(
                    zip(
                        snakemake.input.get("references", []),
                        snakemake.params.references,
                        strict=True,
                    )
                ),
                snakemake.params.vocabulary,
                next(iter(snakemake.input.get("vocabulary", [])), None),
                snakemake.params.rephrasings,
            )
        )
        files.write_json(snakemake.output.json, result)
        calls = result["provenance"]["calls"]
        print(f"{counted(len(result['subtasks']), 'subtask')}, {counted(len(calls), 'call')}")


if "snakemake" in globals():
    main(snakemake)
