"""Checks of an episode's timestamps: their unit, their pace, and the length of its videos."""

import math
from collections.abc import Mapping

import numpy as np

from cuesheet.dataset.index_checks import DataRows, Problem
from cuesheet.dataset.metadata import Dataset
from cuesheet.text import describe_range

FPS_TOLERANCE = 0.02
# How much faster timestamps increase that are not in seconds.
_UNITS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}


def contradicted_fps(dataset: Dataset, rows: Mapping[int, DataRows]) -> str | None:
    """Return a sentence if meta/info.json states another fps than the timestamps; else None."""
    times = (data.timestamps for data in rows.values() if len(data.timestamps) > 1)
    steps = [float(np.median(np.diff(one))) for one in times]
    paces = [step * dataset.fps for step in steps if step > 0]
    pace = float(np.median(paces)) if paces else 1.0
    if abs(pace - 1) <= FPS_TOLERANCE or _unit_of(pace):
        return None
    return (
        f"meta/info.json says {dataset.fps:g} frames per second; the timestamps say "
        f"{dataset.fps / pace:.4g}."
    )


def _unit_of(pace: float) -> str:
    """Return the unit of timestamps that increase `pace` times as fast as seconds, or ""."""
    return next((unit for unit, factor in _UNITS.items() if abs(pace / factor - 1) < 0.2), "")


def check_times(dataset: Dataset, rows: Mapping[int, DataRows]) -> list[Problem]:
    """Check the unit of the timestamps, and that they do not reach beyond the episode's videos."""
    problems: list[Problem] = []
    for index, data in rows.items():
        if len(data.timestamps) < 2:
            continue
        episode = dataset.episode(index)
        span_s = float(data.timestamps[-1] - data.timestamps[0])
        pace = span_s * dataset.fps / (len(data.timestamps) - 1)
        unit = _unit_of(pace)
        longest_s = max((v.to_s - v.from_s for v in episode.videos.values()), default=math.inf)
        if unit:
            message = f"its timestamps seem to be in {unit}; expected seconds"
        elif span_s > longest_s * (1 + FPS_TOLERANCE) + 1 / dataset.fps:
            message = (
                f"its timestamps span {span_s:.6g} s, but its range of the video {longest_s:.6g} s"
            )
        else:
            continue
        problems.append(Problem(episode.data_file, index, message))
    return problems


def timing_notices(dataset: Dataset, rows: Mapping[int, DataRows]) -> list[str]:
    """Return notices about timestamps that are off the frame grid or contradict the fps."""
    contradiction = contradicted_fps(dataset, rows)
    notices = [f"{contradiction} The timestamps are used."] if contradiction else []
    shifted = [index for index, data in rows.items() if data.start_s]
    if shifted:
        notices.append(
            f"the timestamps of {describe_range(shifted)} do not start at 0. They are taken "
            "relative to the first frame of the episode; the language rows carry the dataset's own "
            "timestamps. (LeRobot expects timestamps that start at 0 in each episode.)"
        )
    jittered = [i for i, data in rows.items() if _is_jittered(data.timestamps, dataset.fps)]
    if jittered:
        notices.append(
            f"the timestamps of {describe_range(jittered)} are not evenly spaced; the n-th frame "
            "of the video is taken for the n-th row."
        )
    return notices


def _is_jittered(timestamps: np.ndarray, fps: float) -> bool:
    times = timestamps.astype(np.float64)
    steps = np.diff(times)
    if not len(steps) or np.median(steps) <= 0:
        return False
    off = np.abs(times - times[0] - np.arange(len(times)) * float(np.median(steps)))
    return bool(off.max() > 0.1 / fps and not np.allclose(steps, steps[0], rtol=0.2))
