"""Scores of segments against reference segments. Definitions with formulas: docs/evaluation.md.

All times are seconds. Sums are kept per episode, so that scores of many episodes are made of pooled
counts (`score`), not of averaged ratios.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from cuesheet.text import is_exact, normalized, token_f1

IOU_THRESHOLDS = (0.1, 0.25, 0.5, 0.75)
BOUNDARY_TOLERANCES_S = (0.5, 1.0)
LABELS_AT_IOU = 0.5
_SAME_TIME_S = 1e-3  # times closer than this are one boundary

SameLabel = Callable[[str, str], bool]


@dataclass(frozen=True)
class Segment:
    """What happens in [start_s, end_s)."""

    start_s: float
    end_s: float
    text: str = ""


def overlap_s(first: Segment, second: Segment) -> float:
    """Seconds that two segments share."""
    return max(0.0, min(first.end_s, second.end_s) - max(first.start_s, second.start_s))


def interval_iou(first: Segment, second: Segment) -> float:
    """Intersection over union of two segments, 0 to 1."""
    shared = overlap_s(first, second)
    whole = (first.end_s - first.start_s) + (second.end_s - second.start_s) - shared
    return shared / whole if whole > 0 else 0.0


def align(
    rows: int, columns: int, gain: Callable[[int, int], tuple[float, ...] | None]
) -> list[tuple[int, int]]:
    """The one-to-one matching of `rows` and `columns` that keeps their order and gains most.

    `gain(row, column)` is None if the two may not be matched; gains are added element by element
    and compared like tuples. Takes rows x columns steps.
    """
    zero: tuple[float, ...] = ()
    best = [[zero] * (columns + 1) for _ in range(rows + 1)]
    matched = [[False] * (columns + 1) for _ in range(rows + 1)]
    for row in range(rows - 1, -1, -1):
        for column in range(columns - 1, -1, -1):
            best[row][column] = max(best[row + 1][column], best[row][column + 1])
            value = gain(row, column)
            if value is None:
                continue
            after = best[row + 1][column + 1] or (0.0,) * len(value)
            total = tuple(a + b for a, b in zip(value, after, strict=True))
            if total > best[row][column]:
                best[row][column], matched[row][column] = total, True
    found, row, column = [], 0, 0
    while row < rows and column < columns:
        if matched[row][column]:
            found.append((row, column))
            row, column = row + 1, column + 1
        elif best[row + 1][column] == best[row][column]:
            row += 1
        else:
            column += 1
    return found


def match_segments(
    predicted: Sequence[Segment], reference: Sequence[Segment], threshold: float
) -> list[tuple[int, int]]:
    """As many pairs with an IoU of `threshold` or more as there can be; of those the best ones."""

    def gain(row: int, column: int) -> tuple[float, ...] | None:
        value = interval_iou(predicted[row], reference[column])
        return (1.0, value) if value >= threshold else None

    return align(len(predicted), len(reference), gain)


def boundaries(segments: Sequence[Segment]) -> list[float]:
    """Starts and ends inside the episode: all but the first start and the last end."""
    times = sorted({time for part in segments for time in (part.start_s, part.end_s)})
    distinct = times[:1] + [
        time for before, time in pairwise(times) if time - before > _SAME_TIME_S
    ]
    return distinct[1:-1]


def edit_score(predicted: Sequence[str], reference: Sequence[str], same: SameLabel) -> float:
    """1 - Levenshtein distance of two sequences of labels / the longer one's length."""
    longest = max(len(predicted), len(reference))
    if not longest:
        return 1.0
    before = list(range(len(reference) + 1))
    for row, label in enumerate(predicted, 1):
        now = [row]
        for column, other in enumerate(reference, 1):
            change = before[column - 1] + (not same(label, other))
            now.append(min(change, before[column] + 1, now[-1] + 1))
        before = now
    return 1 - before[-1] / longest


def superfluous(parts: Sequence[Segment], wholes: Sequence[Segment]) -> int:
    """How many of `parts` share their whole with another: each belongs to the one it overlaps most.

    Of predicted segments in reference ones it counts the needless splits, the other way round the
    boundaries that were missed.
    """
    owners: Counter[int] = Counter()
    for part in parts:
        shares = [overlap_s(part, whole) for whole in wholes]
        if shares and max(shares) > 0:
            owners[shares.index(max(shares))] += 1
    return sum(count - 1 for count in owners.values())


def episode_sums(
    predicted: Sequence[Segment], reference: Sequence[Segment], same: SameLabel
) -> Counter[str]:
    """Everything that adds up over episodes. Segments are put in order of time first."""
    predicted = sorted(predicted, key=lambda part: (part.start_s, part.end_s))
    reference = sorted(reference, key=lambda part: (part.start_s, part.end_s))
    sums: Counter[str] = Counter(
        episodes=1, predicted=len(predicted), reference=len(reference), found=int(bool(predicted))
    )
    for threshold in IOU_THRESHOLDS:
        sums[f"hits@{threshold:g}"] = len(match_segments(predicted, reference, threshold))
        sums[f"right@{threshold:g}"] = len(_match_with_label(predicted, reference, threshold, same))
    for row, column in match_segments(predicted, reference, LABELS_AT_IOU):
        texts = predicted[row].text, reference[column].text
        sums["label_pairs"] += 1
        sums["label_exact"] += is_exact(*texts)
        sums["label_token_f1"] += token_f1(*texts)
        sums["label_same"] += same(*texts)
    sums += _boundary_sums(boundaries(predicted), boundaries(reference))
    labels = [[normalized(part.text) for part in parts] for parts in (predicted, reference)]
    sums["edit"] = edit_score(labels[0], labels[1], same)
    sums["splits"] = superfluous(predicted, reference)
    sums["merges"] = superfluous(reference, predicted)
    sums += _time_sums(predicted, reference, same)
    return sums


def _match_with_label(
    predicted: Sequence[Segment], reference: Sequence[Segment], threshold: float, same: SameLabel
) -> list[tuple[int, int]]:
    def gain(row: int, column: int) -> tuple[float, ...] | None:
        first, second = predicted[row], reference[column]
        value = interval_iou(first, second)
        return (1.0, value) if value >= threshold and same(first.text, second.text) else None

    return align(len(predicted), len(reference), gain)


def _boundary_sums(predicted: Sequence[float], reference: Sequence[float]) -> Counter[str]:
    sums: Counter[str] = Counter(
        predicted_boundaries=len(predicted), reference_boundaries=len(reference)
    )
    for tolerance in BOUNDARY_TOLERANCES_S:

        def gain(row: int, column: int, limit: float = tolerance) -> tuple[float, ...] | None:
            distance = abs(predicted[row] - reference[column])
            return (1.0, -distance) if distance <= limit + 1e-6 else None

        sums[f"boundary_hits@{tolerance:g}"] = len(align(len(predicted), len(reference), gain))
    if predicted and reference:
        sums["predicted_errors"], sums["reference_errors"] = len(predicted), len(reference)
        sums["predicted_error_s"] = sum(min(abs(p - r) for r in reference) for p in predicted)
        sums["reference_error_s"] = sum(min(abs(p - r) for p in predicted) for r in reference)
    return sums


def _time_sums(
    predicted: Sequence[Segment], reference: Sequence[Segment], same: SameLabel
) -> Counter[str]:
    shared = [[overlap_s(p, r) for r in reference] for p in predicted]
    pairs = align(
        len(predicted),
        len(reference),
        lambda row, column: (shared[row][column],) if shared[row][column] else None,
    )
    right = sum(
        shared[row][column]
        for row, p in enumerate(predicted)
        for column, r in enumerate(reference)
        if shared[row][column] and same(p.text, r.text)
    )
    return Counter(
        reference_s=sum(part.end_s - part.start_s for part in reference),
        matched_s=sum(shared[row][column] for row, column in pairs),
        right_s=right,
    )


def score(sums: Iterable[Counter[str]]) -> dict[str, Any]:
    """The scores of pooled sums. Ratios without a denominator are None."""
    total: Counter[str] = Counter()
    for part in sums:
        total.update(part)
    by_iou = {f"{t:g}": _f1(total, f"hits@{t:g}", "predicted", "reference") for t in IOU_THRESHOLDS}
    return {
        "episodes": int(total["episodes"]),
        "episodes_without_prediction": int(total["episodes"] - total["found"]),
        "segments": {"predicted": int(total["predicted"]), "reference": int(total["reference"])},
        "segment": by_iou,
        "boundary": {
            f"{t:g}": _f1(
                total, f"boundary_hits@{t:g}", "predicted_boundaries", "reference_boundaries"
            )
            for t in BOUNDARY_TOLERANCES_S
        },
        "boundary_error_s": {
            "predicted_to_reference": _share(total["predicted_error_s"], total["predicted_errors"]),
            "reference_to_predicted": _share(total["reference_error_s"], total["reference_errors"]),
        },
        "edit": _share(total["edit"], total["episodes"]),
        "over_segmentation": _share(total["splits"], total["predicted"]),
        "under_segmentation": _share(total["merges"], total["reference"]),
        "frame_accuracy": _share(total["matched_s"], total["reference_s"]),
        "labels": {
            "pairs": int(total["label_pairs"]),
            "exact": _share(total["label_exact"], total["label_pairs"]),
            "token_f1": _share(total["label_token_f1"], total["label_pairs"]),
            "same": _share(total["label_same"], total["label_pairs"]),
            "frame_accuracy": _share(total["right_s"], total["reference_s"]),
        },
        "end_to_end": {
            f"{t:g}": _f1(total, f"right@{t:g}", "predicted", "reference") for t in IOU_THRESHOLDS
        },
    }


def _f1(total: Counter[str], hits: str, predicted: str, reference: str) -> dict[str, Any]:
    return {
        "precision": _share(total[hits], total[predicted]),
        "recall": _share(total[hits], total[reference]),
        "f1": _share(2 * total[hits], total[predicted] + total[reference]),
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
