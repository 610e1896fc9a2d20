"""The number of images that the requests of a run have, and the settings that limit it."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from cuesheet.artifacts.sampling import grid_indices
from cuesheet.config.models import Config
from cuesheet.workflow.run import Run, resolve_plan


class ImageCount(NamedTuple):
    """Images per request. `units_per_image`: value of `setting` per image; 0: it can be off."""

    images: int
    setting: str
    units_per_image: float


def image_counts(config: Config, grid_frames: float = math.inf) -> list[ImageCount]:
    """Return the largest image count of each kind of request, the largest first.

    `grid_frames`: number of keyframes for contact sheets that the longest episode has.
    """
    return sorted(_counts(config, grid_frames), key=lambda count: -count.images)


def longest_grid(run: Run) -> int:
    """Return the number of keyframes for contact sheets that the longest episode has."""
    per_second = run.fine_per_second or run.config.keyframes.per_second
    longest = 0
    for dataset in run.datasets.values():
        frames = max((dataset.episode(index).length for index in dataset.worked_on), default=0)
        if frames:
            times = [frame / dataset.source.fps for frame in range(frames)]
            longest = max(longest, len(grid_indices(times, per_second)))
    return longest


def _counts(config: Config, grid_frames: float) -> Iterator[ImageCount]:
    plan, frames = resolve_plan(config), config.plan.frames

    def sheets(count: float) -> int:
        return math.ceil(min(count, grid_frames) / frames.per_sheet)

    yield ImageCount(1, "vqa.frames", 1)  # also the sheet from which a task is derived
    if plan.drafts_vocabulary:
        images = sheets(frames.max_frames_per_call)
        yield ImageCount(images, "plan.frames.max_frames_per_call", frames.per_sheet)
    asks_for_segments = plan.enabled and plan.subtasks_from == "model"
    if asks_for_segments and frames.mode == "single_frames":
        images = int(min(frames.max_frames_per_call, grid_frames))
        yield ImageCount(images, "plan.frames.max_frames_per_call", 1)
    elif asks_for_segments and (frames.mode == "contact_sheets" or plan.second_look):
        images = sheets(frames.max_frames_per_call)
        yield ImageCount(images, "plan.frames.max_frames_per_call", frames.per_sheet)
    # Segments that were changed by what the robot recorded are labeled again in any case.
    changes_segments = config.signals.enabled and plan.granularity != "phases"
    if asks_for_segments and (
        plan.relabel == "span" or (plan.relabel == "off" and changes_segments)
    ):
        yield ImageCount(plan.relabel_frames, "plan.relabel_frames", 1)
    if asks_for_segments and plan.relabel == "neighbors":
        yield ImageCount(3, "plan.relabel", 0)
    if config.interjections.enabled:
        images = sheets(config.interjections.frames)
        yield ImageCount(images, "interjections.frames", frames.per_sheet)
