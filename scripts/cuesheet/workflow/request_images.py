"""The largest number of images that one request of a run has, and the setting that limits it."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from cuesheet.artifacts.sampling import grid_indices
from cuesheet.config.models import Config
from cuesheet.workflow.run import Run

_SEGMENTS_PER_RELABEL = 3


class ImageCount(NamedTuple):
    """Images per request. `units_per_image`: value of the setting `setting` per image."""

    images: int
    setting: str
    units_per_image: float


def largest_image_count(config: Config, grid_frames: int | None = None) -> ImageCount:
    """Return the image count of the largest request.

    `grid_frames`: number of keyframes for contact sheets that the longest episode has; None if it
    is not known.
    """
    return max(_counts(config, grid_frames), key=lambda count: count.images)


def longest_grid(run: Run) -> int:
    """Return the number of keyframes for contact sheets that the longest episode has."""
    per_second = run.config.keyframes.per_second
    longest = 0
    for dataset in run.datasets.values():
        frames = max((dataset.episode(index).length for index in dataset.worked_on), default=0)
        if frames:
            times = [frame / dataset.source.fps for frame in range(frames)]
            longest = max(longest, len(grid_indices(times, per_second)))
    return longest


def _counts(config: Config, grid_frames: int | None) -> Iterator[ImageCount]:
    plan, frames = config.plan, config.plan.frames
    available = math.inf if grid_frames is None else grid_frames

    def sheets(count: float) -> int:
        return math.ceil(min(count, available) / frames.per_sheet)

    yield ImageCount(1, "vqa.frames", 1)  # also the sheet of which a task is derived
    if plan.enabled and plan.subtasks_from == "model" and frames.mode != "clip":
        per_image = frames.per_sheet if frames.mode == "contact_sheets" else 1
        shown = int(min(frames.max_frames_per_call, available))
        images = math.ceil(shown / per_image)
        yield ImageCount(images, "plan.frames.max_frames_per_call", per_image)
    if plan.enabled and plan.relabel:
        images = sheets(_SEGMENTS_PER_RELABEL * plan.relabel_frames)
        per_unit = frames.per_sheet / _SEGMENTS_PER_RELABEL
        yield ImageCount(images, "plan.relabel_frames", per_unit)
    if config.interjections.enabled:
        images = sheets(config.interjections.frames)
        yield ImageCount(images, "interjections.frames", frames.per_sheet)
