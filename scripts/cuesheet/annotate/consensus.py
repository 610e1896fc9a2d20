"""One segmentation made of several samples of it, and how far they agree (docs/evaluation.md)."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.subtasks import Subtask
from cuesheet.text import token_f1

# Boundaries of two samples are the same one when they are at most this far apart (s).
TOLERANCE_S = 1.0

Cover = Sequence[Subtask]


def consensus(samples: Sequence[Cover], episode: Episode) -> list[Subtask]:
    """The cover that most of `samples` stand for: covers of the same frames, none of them empty."""
    starts = [samples[0][0].start_frame, *_boundaries(samples, episode)]
    ends = [*starts[1:], samples[0][-1].end_frame]
    return [
        Subtask(start, end, _label(samples, Subtask(start, end, "")))
        for start, end in zip(starts, ends, strict=True)
    ]


def with_agreement(cover: Cover, samples: Sequence[Cover]) -> list[Subtask]:
    """The subtasks of `cover`, each with its agreement of 0 to 1.

    A sample that has nothing in the place of a subtask (it had no usable reply) agrees with none of
    it.
    """
    return [replace(part, agreement=round(_support(samples, part), 3)) for part in cover]


def episode_agreement(cover: Cover) -> float:
    """The mean agreement of the subtasks, weighted by their length in frames."""
    total = sum(part.length for part in cover)
    return round(sum(part.length * (part.agreement or 0.0) for part in cover) / total, 3)


def _boundaries(samples: Sequence[Cover], episode: Episode) -> list[int]:
    """First frames of all subtasks but the first, in order.

    Again and again the time that most samples have a boundary near (of several, the one that they
    are nearest to, then the earliest) gives a boundary at the median of theirs, which are then used
    up; until no more than half of the samples have one left.
    """
    left = [[part.start_s(episode) for part in cover[1:]] for cover in samples]
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
    """By sample its boundary nearest to `time_s`, if one is near; and their summed distance (s)."""
    votes = {}
    for voter, times in enumerate(left):
        nearest = min(times, key=lambda time: abs(time - time_s), default=None)
        # Timestamps are float32: half a millisecond keeps one at exactly the tolerance.
        if nearest is not None and abs(nearest - time_s) <= TOLERANCE_S + 5e-4:
            votes[voter] = nearest
    return votes, round(sum(abs(time - time_s) for time in votes.values()), 6)


def _label(samples: Sequence[Cover], part: Subtask) -> str:
    """The label that the samples say there and that is most like those of all; first in a tie."""
    labels = [_best(cover, part)[1] for cover in samples]
    return max(labels, key=lambda label: round(_support(samples, replace(part, label=label)), 9))


def _support(samples: Sequence[Cover], part: Subtask) -> float:
    """How much of a subtask the samples have, on average: IoU of frames times F1 of words."""
    matches = [_best(cover, part) for cover in samples]
    return sum(iou * token_f1(part.label, label) for iou, label in matches) / len(matches)


def _best(cover: Cover, part: Subtask) -> tuple[float, str]:
    """IoU and label of the subtask that lies best on `part`; 0 and no words where none does."""
    return max(((_iou(one, part), one.label) for one in cover), key=lambda m: m[0], default=(0, ""))


def _iou(first: Subtask, second: Subtask) -> float:
    shared = min(first.end_frame, second.end_frame) - max(first.start_frame, second.start_frame)
    return max(0, shared) / (first.length + second.length - max(0, shared))
