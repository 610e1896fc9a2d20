"""Requests the plan of one episode.

In: the keyframes folder, the prompt files, the clip if clips are sent. Out: plan/{episode}.json
with the subtasks and the rows of styles subtask, plan, memory and task_aug. Times in seconds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuesheet.annotate import plan
from cuesheet.annotate.evidence import Evidence, Propagated
from cuesheet.annotate.stage import CutClip, Stage, run_stage, warm_up_stage
from cuesheet.artifacts.apply_corrections import ExternalSubtasks
from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.signals_file import SignalsFile
from cuesheet.artifacts.vocabulary import VocabularyFile
from cuesheet.config import prompt_files
from cuesheet.config.signals import SignalsConfig
from cuesheet.config.stages import PlanConfig


def warm_up() -> None:
    warm_up_stage(prompt_files.PLAN)


def main(snakemake) -> None:
    given, params = snakemake.input, snakemake.params

    async def annotate(stage: Stage) -> dict[str, Any]:
        drafted = next(iter(given.get("vocabulary", [])), None)
        used = _vocabulary(stage, params.vocabulary, drafted)
        recording = next(iter(given.get("recording", [])), None)
        recorded = SignalsFile.read(recording) if recording else None
        references = list(zip(given.get("references", []), params.references, strict=True))
        target = recording or given.keyframes
        propagated = _propagated(stage.episode, target, params.camera, references)
        parts = await plan.annotate(
            stage,
            PlanConfig(**params.plan),
            camera=params.camera,
            cut_clip=_cutter(given.clip, stage.episode) if given.clip else None,
            given=_given(params.given, params.root, stage) if params.given else None,
            evidence=Evidence(recorded, SignalsConfig(**params.signals), propagated),
            rephrasings=params.rephrasings,
        )
        return {**parts, **used}

    run_stage("plan", snakemake, annotate, counts="subtasks")


def _vocabulary(stage: Stage, given: Sequence[str], drafted: str | None) -> dict[str, Any]:
    """Limit the labels of the stage. Return what the plan file records of it."""
    task, labels = stage.episode.task, list(given)
    if drafted is not None:
        labels = VocabularyFile.read(drafted).labels
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
    target: str,
    camera: str | None,
    references: Sequence[tuple[str, Mapping[str, Any]]],
) -> Propagated | None:
    """Return subtasks propagated from corrected episodes. `references`: file and spans of each.

    `target`: the file with the signals of the episode, or the folder of its keyframes.
    """
    if not references:
        return None
    from cuesheet.annotate import propagation  # imports numpy

    known = [
        propagation.Reference(
            one["episode"], propagation.read_trajectory(file, camera), one["spans"]
        )
        for file, one in references
    ]
    return propagation.propagate(episode, propagation.read_trajectory(target, camera), known)


def _given(given: Mapping[str, Any], root: str, stage: Stage) -> ExternalSubtasks | None:
    """Return the subtasks of a correction (`spans`), or those of a column of the dataset."""
    episode = stage.episode
    if "spans" in given:
        return ExternalSubtasks.of_spans(given["spans"], episode)
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
    from cuesheet.media.clips import ClipCutter  # imports a video library

    return ClipCutter(clip, length=episode.length, end_s=episode.end_s, fps=episode.fps).cut


if "snakemake" in globals():
    main(snakemake)
