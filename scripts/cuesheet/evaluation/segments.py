"""Compares the predicted segments of one episode with its reference segments.

All times are seconds. `episode_sums` returns counts and sums that `metrics` adds up over episodes,
so that ratios are made of pooled counts. Definitions with formulas: docs/evaluation.md.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from cuesheet.evaluation.labels import has_object, same_objects, same_verbs
from cuesheet.text import is_exact, token_f1

IOU_THRESHOLDS = (0.1, 0.25, 0.5, 0.75)
BOUNDARY_TOLERANCES_S = (0.5, 1.0)
LABELS_AT_IOU = 0.5
WGO_IOU = 0.75
_SAME_TIME_S = 1e-3  # times that are closer than this are one boundary

SameLabel = Callable[[str, str], bool]


@dataclass(frozen=True)
class Segment:
    """A labeled time span [start_s, end_s)."""

    start_s: float
    end_s: float
    text: str = ""


def overlap_s(first: Segment, second: Segment) -> float:
    """Return the length (s) of the intersection of two segments."""
    return max(0.0, min(first.end_s, second.end_s) - max(first.start_s, second.start_s))


def interval_iou(first: Segment, second: Segment) -> float:
    """Return the intersection over union of two segments, 0 to 1."""
    shared = overlap_s(first, second)
    whole = (first.end_s - first.start_s) + (second.end_s - second.start_s) - shared
    return shared / whole if whole > 0 else 0.0


def align(
    rows: int, columns: int, gain: Callable[[int, int], tuple[float, ...] | None]
) -> list[tuple[int, int]]:
    """Return the order-preserving one-to-one matching of rows and columns with the largest gain.

    `gain(row, column)` is None if the two must not be matched. Gains are added element by element
    and compared as tuples. The run time is proportional to rows x columns.
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
    predicted: Sequence[Segment],
    reference: Sequence[Segment],
    threshold: float,
    same: SameLabel | None = None,
) -> list[tuple[int, int]]:
    """Return the largest matching with an IoU of at least `threshold`; in a tie, the best IoU.

    With `same`, only segments whose labels mean the same are matched.
    """

    def gain(row: int, column: int) -> tuple[float, ...] | None:
        first, second = predicted[row], reference[column]
        value = interval_iou(first, second)
        if value < threshold or (same and not same(first.text, second.text)):
            return None
        return (1.0, value)

    return align(len(predicted), len(reference), gain)


def boundaries(segments: Sequence[Segment]) -> list[float]:
    """Return the starts and ends inside the episode: all but the first start and the last end."""
    times = sorted({time for segment in segments for time in (segment.start_s, segment.end_s)})
    distinct = times[:1] + [
        time for before, time in pairwise(times) if time - before > _SAME_TIME_S
    ]
    return distinct[1:-1]


def edit_score(predicted: Sequence[str], reference: Sequence[str], same: SameLabel) -> float:
    """Return 1 - Levenshtein distance of two label sequences / length of the longer one."""
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


def count_superfluous(segments: Sequence[Segment], wholes: Sequence[Segment]) -> int:
    """Return how many of `segments` are not the first one in their segment of `wholes`.

    Each segment belongs to the whole that it overlaps most. With predicted segments and reference
    wholes, this counts the splits that the reference does not have; vice versa, the merges.
    """
    owners: Counter[int] = Counter()
    for segment in segments:
        shares = [overlap_s(segment, whole) for whole in wholes]
        if shares and max(shares) > 0:
            owners[shares.index(max(shares))] += 1
    return sum(count - 1 for count in owners.values())


def pin_ends(predicted: Sequence[Segment], reference: Sequence[Segment]) -> list[Segment]:
    """Return `predicted` with the first start and the last end of the reference.

    Both are in order of time. WGO-Bench scores segments in this way, because episodes differ in how
    much idle time they have at their ends.
    """
    pinned = list(predicted)
    if pinned and reference:
        start_s = reference[0].start_s
        pinned[0] = replace(pinned[0], start_s=start_s, end_s=max(start_s, pinned[0].end_s))
        end_s = reference[-1].end_s
        pinned[-1] = replace(pinned[-1], start_s=min(end_s, pinned[-1].start_s), end_s=end_s)
    return pinned


def episode_sums(
    predicted: Sequence[Segment], reference: Sequence[Segment], same: SameLabel
) -> dict[str, float]:
    """Return all counts and sums that are added up over episodes."""
    predicted = sorted(predicted, key=lambda segment: (segment.start_s, segment.end_s))
    reference = sorted(reference, key=lambda segment: (segment.start_s, segment.end_s))
    sums: dict[str, float] = {
        **{"episodes": 1, "predicted": len(predicted), "reference": len(reference)},
        "found": int(bool(predicted)),
    }
    for threshold in IOU_THRESHOLDS:
        sums[f"hits@{threshold:g}"] = len(match_segments(predicted, reference, threshold))
        sums[f"right@{threshold:g}"] = len(match_segments(predicted, reference, threshold, same))
    pinned = pin_ends(predicted, reference)
    sums["pinned_hits"] = len(match_segments(pinned, reference, WGO_IOU))
    for row, column in match_segments(predicted, reference, LABELS_AT_IOU):
        pair = _label_sums(predicted[row].text, reference[column].text, same)
        sums |= {name: sums.get(name, 0) + value for name, value in pair.items()}
    sums |= _boundary_sums(boundaries(predicted), boundaries(reference))
    texts = [[segment.text for segment in segments] for segments in (predicted, reference)]
    sums["edit"] = edit_score(texts[0], texts[1], same)
    sums["splits"] = count_superfluous(predicted, reference)
    sums["merges"] = count_superfluous(reference, predicted)
    sums |= _time_sums(predicted, reference, same)
    return sums


def _label_sums(label: str, true_label: str, same: SameLabel) -> dict[str, float]:
    """Return the agreement of the labels of one matched pair."""
    verbs = same_verbs(label, true_label)
    comparable = has_object(true_label)
    objects = comparable and same_objects(label, true_label)
    return {
        "label_pairs": 1,
        "label_exact": is_exact(label, true_label),
        "label_token_f1": token_f1(label, true_label),
        "label_same": same(label, true_label),
        "label_verb": verbs,
        "object_pairs": comparable,
        "label_object": objects,
        "label_both": verbs and (objects or not comparable),
    }


def _boundary_sums(predicted: Sequence[float], reference: Sequence[float]) -> dict[str, float]:
    sums: dict[str, float] = {
        "predicted_boundaries": len(predicted),
        "reference_boundaries": len(reference),
    }
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
) -> dict[str, float]:
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
    return {
        "reference_s": sum(segment.end_s - segment.start_s for segment in reference),
        "matched_s": sum(shared[row][column] for row, column in pairs),
        "right_s": right,
    }
