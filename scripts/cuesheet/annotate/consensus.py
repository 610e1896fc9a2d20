"""Merges segmentation samples into one and measures their agreement (docs/evaluation.md)."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.subtasks import Subtask
from cuesheet.text import token_f1

# Boundaries of two samples count as the same one if they are at most this far apart (s).
TOLERANCE_S = 1.0

Segmentation = Sequence[Subtask]


def consensus(samples: Sequence[Segmentation], episode: Episode) -> list[Subtask]:
    """Merge samples of the same frames, none of them empty, by majority vote."""
    starts = [samples[0][0].start_frame, *_boundaries(samples, episode)]
    ends = [*starts[1:], samples[0][-1].end_frame]
    return [
        Subtask(start, end, _label(samples, Subtask(start, end, "")))
        for start, end in zip(starts, ends, strict=True)
    ]


def with_agreement(segmentation: Segmentation, samples: Sequence[Segmentation]) -> list[Subtask]:
    """Return the subtasks of `segmentation`, each with its agreement from 0 to 1.

    A sample without a usable reply has no segments and agrees with no subtask.
    """
    return [
        replace(segment, agreement=round(_support(samples, segment), 3)) for segment in segmentation
    ]


def episode_agreement(segmentation: Segmentation) -> float:
    """Return the mean agreement of the subtasks, weighted by their length in frames."""
    total = sum(segment.length for segment in segmentation)
    return round(
        sum(segment.length * (segment.agreement or 0.0) for segment in segmentation) / total, 3
    )


def _boundaries(samples: Sequence[Segmentation], episode: Episode) -> list[int]:
    """Return the first frames of all subtasks but the first, in order.

    Each round looks for the time that is near a boundary of the most samples. If several times
    qualify, the one that is nearest to the boundaries wins, then the earliest. The median of these
    boundaries becomes a boundary of the result, and they are removed. The rounds end when at most
    half of the samples have a boundary near any time.
    """
    left = [[segment.start_s(episode) for segment in segmentation[1:]] for segmentation in samples]
    found: set[int] = set()
    while True:
        ballots = [_votes(left, time_s) for time_s in sorted({t for times in left for t in times})]
        best = max(ballots, key=lambda ballot: (len(ballot[0]), -ballot[1]), default=({}, 0.0))[0]
        if 2 * len(best) <= len(samples):
            return sorted(found)
        found.add(episode.nearest_frame(median(best.values())))
        for voter, time_s in best.items():
            left[voter].remove(time_s)


def _votes(left: Sequence[Sequence[float]], time_s: float) -> tuple[dict[int, float], float]:
    """Return each sample's boundary near `time_s`, if any, and their summed distance (s)."""
    votes = {}
    for voter, times in enumerate(left):
        nearest = min(times, key=lambda time: abs(time - time_s), default=None)
        # Timestamps are float32: half a millisecond includes a boundary at exactly the tolerance.
        if nearest is not None and abs(nearest - time_s) <= TOLERANCE_S + 5e-4:
            votes[voter] = nearest
    return votes, round(sum(abs(time - time_s) for time in votes.values()), 6)


def _label(samples: Sequence[Segmentation], segment: Subtask) -> str:
    """Return the sample label with the highest mean similarity to all of them; first in a tie."""
    labels = [_best(segmentation, segment)[1] for segmentation in samples]
    return max(labels, key=lambda label: round(_support(samples, replace(segment, label=label)), 9))


def _support(samples: Sequence[Segmentation], segment: Subtask) -> float:
    """Return the mean support of the samples for a subtask: IoU of frames times F1 of words."""
    matches = [_best(segmentation, segment) for segmentation in samples]
    return sum(iou * token_f1(segment.label, label) for iou, label in matches) / len(matches)


def _best(segmentation: Segmentation, segment: Subtask) -> tuple[float, str]:
    """Return IoU and label of the subtask that overlaps `segment` most; (0, "") if none does."""
    return max(
        ((one.iou(segment), one.label) for one in segmentation),
        key=lambda m: m[0],
        default=(0, ""),
    )
