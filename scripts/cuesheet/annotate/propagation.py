"""Propagates the subtasks of corrected episodes to another episode of the same task.

Every corrected episode of the task is aligned with the episode; the nearest one gives its
boundaries and labels. Episodes without a recorded state are aligned by images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cuesheet.annotate.evidence import Propagated
from cuesheet.artifacts.episode import Episode, read_episode
from cuesheet.artifacts.signals_file import SignalsFile
from cuesheet.artifacts.subtasks import subtasks_from_starts
from cuesheet.signals.alignment import (
    Trajectory,
    align,
    confidence,
    shuffled,
    stretched_cost,
    warp_times,
)

# Side of the gray image that a keyframe is reduced to.
_SIDE = 12


@dataclass(frozen=True)
class Reference:
    """A corrected episode. `spans`: start_s and label of each subtask; empty for another task."""

    episode_index: int
    trajectory: Trajectory
    spans: Sequence[Mapping[str, Any]]


def trajectory_of_signals(signals: SignalsFile) -> Trajectory:
    events = [
        (f"{gripper.name} {stroke.kind} {edge}", at_s)
        for gripper in signals.grippers
        for stroke in gripper.strokes
        for edge, at_s in (("begins", stroke.start_s), ("ends", stroke.end_s))
    ]
    values = np.array(signals.trajectory, dtype=np.float64)
    return Trajectory(np.array(signals.times_s), values, events)


def trajectory_of_images(episode: Episode, camera: str) -> Trajectory:
    """Return the trajectory of small gray images of the grid of keyframes."""
    frames = episode.frames_at(camera, episode.grid)
    rows = []
    for frame in frames:
        with Image.open(frame.path) as image:
            small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        rows.append(np.asarray(small, dtype=np.float64).reshape(-1) / 64)
    times = np.array([frame.timestamp_s for frame in frames])
    return Trajectory(times - times[0], np.array(rows))


def read_trajectory(path: str, camera: str | None) -> Trajectory:
    """Read the trajectory of an episode from its signals file or its keyframes folder."""
    if Path(path).suffix == ".json":
        return trajectory_of_signals(SignalsFile.read(path))
    return trajectory_of_images(read_episode(path), camera or "")


def propagate(
    episode: Episode, target: Trajectory, references: Sequence[Reference]
) -> Propagated | None:
    """Return subtasks from the nearest reference of the same task; None if there is none."""
    usable = [
        one
        for one in references
        if one.trajectory.is_usable
        and target.is_usable
        and one.trajectory.values.shape[1] == target.values.shape[1]
    ]
    same_task = [one for one in usable if one.spans]
    if not same_task:
        return None
    aligned = [(align(one.trajectory, target), one) for one in same_task]
    alignment, nearest = min(aligned, key=lambda pair: (pair[0].cost, pair[1].episode_index))
    unrelated = [align(one.trajectory, target).cost for one in usable if not one.spans]
    if not unrelated:
        unrelated = [align(nearest.trajectory, shuffled(target)).cost]
    stretched = stretched_cost(nearest.trajectory, target)
    starts = warp_times(
        alignment, nearest.trajectory, target, [span["start_s"] for span in nearest.spans]
    )
    origin_s = episode.timestamps_s[0]
    # Of several on one frame, the last one is used.
    labels = {
        episode.nearest_frame(start_s + origin_s): span["label"]
        for start_s, span in zip(starts, nearest.spans, strict=True)
    }
    return Propagated(
        nearest.episode_index,
        confidence(alignment.cost, stretched, unrelated),
        subtasks_from_starts(labels, episode),
    )
