"""The requests of one episode, from its metadata alone: no frame is decoded, no model is asked."""

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from cuesheet.annotate import inspection, interjections, plan, vqa
from cuesheet.annotate.evidence import Evidence, Propagated
from cuesheet.annotate.rehearsal import Rehearsal, Request, make_rehearsal, unread_clip
from cuesheet.artifacts.apply_corrections import ExternalSubtasks
from cuesheet.artifacts.episode import Episode, Keyframe
from cuesheet.artifacts.sampling import KeyframeSelection, select_keyframes
from cuesheet.artifacts.signals_file import Arm, Gripper, SignalsFile, Still, Stroke
from cuesheet.artifacts.stage_files import StageFile, StageName
from cuesheet.artifacts.subtasks import subtasks_from_starts
from cuesheet.config.signals import SignalsConfig
from cuesheet.errors import CuesheetError
from cuesheet.vlm.coordinates import convention_of
from cuesheet.vlm.prompts import Prompts
from cuesheet.workflow.propagation import recording_of, references_of
from cuesheet.workflow.run import Run
from cuesheet.workflow.run_dataset import RunDataset
from cuesheet.workflow.vocabulary import vocabulary_of

# Size of the images (px) if the metadata does not tell it.
ASSUMED_SIZE = (640, 480)
# Labels of a task that is not drafted yet.
_ASSUMED_LABELS = tuple(f"pick up block {number}" for number in range(4))
# Duration of an assumed stroke and of an assumed stop (s).
_STROKE_S = 0.3


def rehearse_episode(
    run: Run,
    dataset: RunDataset,
    index: int,
    prompts: Prompts,
    subtask_s: float,
    stages: Collection[StageName],
) -> list[Request]:
    """Return the requests of some stages for one episode.

    Args:
        run: the run.
        dataset: the dataset of the episode.
        index: the episode.
        prompts: the prompts of the stages.
        subtask_s: assumed length of a subtask (s).
        stages: the stages; those of the later ones depend on the plan if it is one of them.
    """
    episode = undecoded_episode(run, dataset, index)
    made: dict[str, Rehearsal] = {
        name: make_rehearsal(name, episode, prompts, run.config.vlm, subtask_s) for name in stages
    }
    asyncio.run(_rehearse(run, dataset, index, made))
    return [request for stage in made.values() for request in stage.vlm.requests]


async def _rehearse(run: Run, dataset: RunDataset, index: int, made: dict[str, Rehearsal]) -> None:
    config, camera = run.config, dataset.default_camera_of(index)
    done: dict[str, Any] = {"task": {"text": dataset.episode(index).task}}
    done |= {"subtasks": [], "persistent": []}
    if "plan" in made:
        done |= await _rehearse_plan(run, dataset, index, made["plan"])
        done["persistent"] = made["plan"].persistent
    if "interjections" in made:
        await interjections.annotate(
            made["interjections"],
            config.interjections,
            plan=done,
            camera=camera,
            layout=run.plan.frames,
            seed=config.seed,
            corrections=dataset.corrected_interjections(index),
        )
    if "vqa" in made:
        labels = [part["label"] for part in done["subtasks"]]
        await vqa.annotate(
            made["vqa"],
            config.vqa,
            cameras=dataset.vqa_cameras_of(index),
            convention=convention_of(run.model, config.vlm.coordinates),
            seed=config.seed,
            plan=vqa.PlanFacts(done["task"]["text"], labels),
        )
    if "inspection" in made and "plan" in made:
        await inspection.request_verdicts(
            made["inspection"],
            plan=StageFile(**made["plan"].result(**done)),
            camera=camera,
            layout=config.plan.frames,
        )


async def _rehearse_plan(
    run: Run, dataset: RunDataset, index: int, stage: Rehearsal
) -> dict[str, Any]:
    """Return the parts of the plan file."""
    stage.vocabulary = tuple(run.labels_for(dataset, index))
    if vocabulary_of(dataset, run.config, index):
        stage.vocabulary, stage.own_words = _ASSUMED_LABELS, True
    recording, signals = _recording(run, dataset, stage)
    return await plan.annotate(
        stage,
        run.plan,
        camera=dataset.default_camera_of(index),
        cut_clip=unread_clip,
        given=_given(dataset, stage.episode),
        evidence=Evidence(recording, signals, _propagated(run, dataset, stage.episode)),
        rephrasings=dataset.corrected_rephrasings(index),
    )


def _given(dataset: RunDataset, episode: Episode) -> ExternalSubtasks | None:
    """Return corrected subtasks. Those of a column of the dataset are not read here."""
    spans = (dataset.given_subtasks(episode.episode_index) or {}).get("spans")
    return ExternalSubtasks.of_spans(spans, episode) if spans else None


def _propagated(run: Run, dataset: RunDataset, episode: Episode) -> Propagated | None:
    """Return the subtasks of a corrected episode of the task, stretched to this episode."""
    references = references_of(dataset, run.config, episode.episode_index)
    if not references:
        return None
    source, spans = references[0]["episode"], references[0]["spans"]
    factor = episode.length / dataset.episode(source).length
    labels = {episode.nearest_frame(span["start_s"] * factor): span["label"] for span in spans}
    return Propagated(source, 1.0, subtasks_from_starts(labels, episode))


def _recording(
    run: Run, dataset: RunDataset, stage: Rehearsal
) -> tuple[SignalsFile | None, SignalsConfig]:
    """Return what the robot recorded, and the settings that apply to it.

    An episode that was not measured yet has assumed events, which do not change its subtasks.
    """
    settings = run.config.signals
    for file in recording_of(dataset, run.config, stage.episode.episode_index):
        try:
            return SignalsFile.read(file), settings
        except CuesheetError:  # it does not exist yet
            # More than all boundaries would have to be near an event: none is moved.
            unmoved = settings.model_copy(update={"min_snapped": 2.0})
            return assume_recording(stage.episode, stage.vlm.subtask_s), unmoved
    return None, settings


def assume_recording(episode: Episode, subtask_s: float) -> SignalsFile:
    """Return a stroke of the gripper in each assumed subtask, and a stop of the arm after two.

    Recorded episodes of the demo and of dev_v3 have 4.8 and 5.0 events on average, these have 4.0
    and 4.7. Both have 0.6 events per second.
    """
    count = max(1, round(episode.end_s / subtask_s))
    times_s = [(number + 0.5) * episode.end_s / count for number in range(count)]

    def span(time_s: float) -> dict[str, Any]:
        end_s = min(time_s + _STROKE_S, episode.end_s)
        return {
            "start_frame": episode.nearest_frame(time_s),
            "end_frame": episode.nearest_frame(end_s),
            "start_s": time_s,
            "end_s": end_s,
        }

    strokes = [
        Stroke(kind="open" if number % 2 else "close", **span(time_s))
        for number, time_s in enumerate(times_s)
    ]
    stops_s = [number * episode.end_s / count for number in range(0, count, 2)]
    still = [Still(**span(time_s)) for time_s in stops_s]
    return SignalsFile(
        dataset=episode.dataset,
        episode_index=episode.episode_index,
        length=episode.length,
        times_s=[],
        grippers=[Gripper(name="gripper", strokes=strokes, opening=[])],
        arms=[Arm(name="arm", still=still, speed=[])],
        trajectory=[],
        motion=[],
        notices=[],
    )


def undecoded_episode(run: Run, dataset: RunDataset, index: int) -> Episode:
    """Return an episode as its keyframes file will describe it; no frame has a file yet."""
    about, fps = dataset.episode(index), dataset.source.fps
    times_s = _times_s(about.length, fps)
    selection = select_frames(run, about.length, fps)
    keyframes = {
        camera: [
            Keyframe(camera, number, times_s[number], Path(), *image_size(dataset, camera))
            for number in selection.frame_indices
        ]
        for camera in dataset.cameras_of(index)
    }
    return Episode(
        dataset.name,
        index,
        about.task,
        fps,
        times_s,
        keyframes,
        grid=selection.grid,
        vqa=selection.vqa,
        fine=selection.fine,
    )


def select_frames(run: Run, length: int, fps: float) -> KeyframeSelection:
    """Return the keyframes that a run decodes of an episode of `length` frames."""
    config = run.config
    return select_keyframes(
        _times_s(length, fps),
        config.keyframes.per_second,
        config.vqa.hz if config.vqa.enabled else None,
        config.vqa.frames,
        run.fine_per_second,
    )


def image_size(dataset: RunDataset, camera: str) -> tuple[int, int]:
    """Return width and height of a camera's images (px)."""
    about = dataset.source.camera(camera)
    return (about.width, about.height) if about.width and about.height else ASSUMED_SIZE


def _times_s(length: int, fps: float) -> Sequence[float]:
    return [number / fps for number in range(length)]
