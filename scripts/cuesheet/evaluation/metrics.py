"""Scores as ratios of sums over episodes, with confidence intervals.

Every score is a ratio of two weighted sums of the columns that `segments.episode_sums` returns. The
table `METRICS` is the only place that defines a score: its formula, its name in JSON, and its title
in tables. Intervals come from a paired bootstrap over episodes: all systems are scored on the same
resampled episodes, so that the interval of a difference does not contain what is common to both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cuesheet.evaluation.segments import (
    BOUNDARY_TOLERANCES_S,
    IOU_THRESHOLDS,
    LABELS_AT_IOU,
    WGO_IOU,
)

RESAMPLES = 2000
CONFIDENCE = 0.95
_SEED = 20240607


@dataclass(frozen=True)
class Metric:
    """A score: weighted sum of `numerator` columns / weighted sum of `denominator` columns.

    Attributes:
        path: keys of the score in JSON, from the outermost to the innermost.
        title: row title in tables; None if the score is only in JSON.
        needs_labels: whether the score is undefined for a system without labels.
        decimals: digits after the point in tables.
    """

    path: tuple[str, ...]
    title: str | None
    numerator: Mapping[str, float]
    denominator: Mapping[str, float]
    needs_labels: bool = False
    decimals: int = 3

    @property
    def key(self) -> str:
        return ".".join(self.path)

    def of(self, system: Mapping[str, Any]) -> float | None:
        """Return the score of a system, which `scores.evaluate` returned."""
        value: Any = system
        for key in self.path:
            value = value[key]
        return value


def _f1(
    path: tuple[str, ...],
    hits: str,
    unit: str = "",
    titles: Sequence[str | None] = (None, None, None),
    needs_labels: bool = False,
) -> list[Metric]:
    """Return precision, recall and F1 of `hits` among predicted and reference items."""
    predicted, reference = f"predicted{unit}", f"reference{unit}"
    formulas: list[tuple[str, Mapping[str, float], Mapping[str, float]]] = [
        ("precision", {hits: 1}, {predicted: 1}),
        ("recall", {hits: 1}, {reference: 1}),
        ("f1", {hits: 2}, {predicted: 1, reference: 1}),
    ]
    return [
        Metric((*path, name), title, upper, lower, needs_labels)
        for (name, upper, lower), title in zip(formulas, titles, strict=True)
    ]


def _share(path: str, title: str, part: str, whole: str, **options: Any) -> Metric:
    return Metric(tuple(path.split("/")), title, {part: 1}, {whole: 1}, **options)


def _define() -> list[Metric]:
    metrics: list[Metric] = []
    for iou in IOU_THRESHOLDS:
        name = f"{iou:g}"
        titles = (None, None, f"segment F1 at IoU {name}")
        metrics += _f1(("segment", name), f"hits@{name}", titles=titles)
    titles = (None, None, f"segment F1 at IoU {WGO_IOU:g}, ends pinned (as WGO-Bench)")
    metrics += _f1(("segment_ends_pinned", f"{WGO_IOU:g}"), "pinned_hits", titles=titles)
    for tolerance in BOUNDARY_TOLERANCES_S:
        name = f"{tolerance:g}"
        parts = ("precision", "recall", "F1")
        named = [f"boundary {part} within {tolerance:.1f} s" for part in parts]
        metrics += _f1(("boundary", name), f"boundary_hits@{name}", "_boundaries", named)
    metrics += [
        _share("boundary_error_s/predicted_to_reference",
               "boundary error, predicted to reference (s)",
               "predicted_error_s", "predicted_errors", decimals=2),
        _share("boundary_error_s/reference_to_predicted",
               "boundary error, reference to predicted (s)",
               "reference_error_s", "reference_errors", decimals=2),
        _share("over_segmentation", "over-segmentation", "splits", "predicted"),
        _share("under_segmentation", "under-segmentation", "merges", "reference"),
        _share("frame_accuracy", "frame accuracy (without labels)", "matched_s", "reference_s"),
    ]  # fmt: skip
    at = f"pairs at IoU {LABELS_AT_IOU:g}"
    for path, title, part, whole in (
        ("edit", "edit score", "edit", "episodes"),
        ("labels/exact", f"label exact ({at})", "label_exact", "label_pairs"),
        ("labels/token_f1", "label token F1", "label_token_f1", "label_pairs"),
        ("labels/verb", "label verb agrees", "label_verb", "label_pairs"),
        ("labels/object", "label object agrees", "label_object", "object_pairs"),
        ("labels/both", "label verb and object agree", "label_both", "label_pairs"),
        ("labels/same", "label means the same", "label_same", "label_pairs"),
        ("labels/frame_accuracy", "frame accuracy with labels", "right_s", "reference_s"),
    ):
        metrics.append(_share(path, title, part, whole, needs_labels=True))
    for iou in IOU_THRESHOLDS:
        name = f"{iou:g}"
        titles = (None, None, f"end-to-end F1 at IoU {name}")
        metrics += _f1(("end_to_end", name), f"right@{name}", "", titles, needs_labels=True)
    return metrics


METRICS = tuple(_define())
# All columns that an episode's sums must have; without a matched pair there are no sums of labels.
COLUMNS = tuple(
    dict.fromkeys(["found", *(c for m in METRICS for c in (*m.numerator, *m.denominator))])
)


def scores_of(sums: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of each row of sums: one column per metric, NaN if undefined."""
    keys = [metric.key for metric in METRICS]
    upper = pd.DataFrame({m.key: m.numerator for m in METRICS}, columns=keys).fillna(0.0)
    lower = pd.DataFrame({m.key: m.denominator for m in METRICS}, columns=keys).fillna(0.0)
    numerators = sums[list(upper.index)].astype(float) @ upper
    denominators = sums[list(lower.index)].astype(float) @ lower
    return numerators / denominators.where(denominators > 0)


def nested_scores(sums: pd.Series) -> dict[str, Any]:
    """Return the scores of one row of sums as nested dictionaries, with None if undefined."""
    values = scores_of(sums.to_frame().T).iloc[0]
    result: dict[str, Any] = {
        "episodes": int(sums["episodes"]),
        "episodes_without_prediction": int(sums["episodes"] - sums["found"]),
        "segments": {"predicted": int(sums["predicted"]), "reference": int(sums["reference"])},
    }
    for metric in METRICS:
        place = result
        for key in metric.path[:-1]:
            place = place.setdefault(key, {})
        place[metric.path[-1]] = None if pd.isna(values[metric.key]) else float(values[metric.key])
    result["labels"]["pairs"] = int(sums["label_pairs"])
    result["labels"]["pairs_with_object"] = int(sums["object_pairs"])
    return result


def resample_counts(episodes: int) -> np.ndarray:
    """Return how often each episode is drawn, shape (RESAMPLES, episodes).

    The draws depend only on the number of episodes, so that systems which are scored on the same
    episodes are compared on the same draws.
    """
    shares = np.full(episodes, 1 / max(episodes, 1))
    return np.random.default_rng(_SEED).multinomial(episodes, shares, size=RESAMPLES)


def resample(sums: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of `RESAMPLES` draws of episodes with replacement, one row per draw."""
    drawn = resample_counts(len(sums)) @ sums.to_numpy(float)
    return scores_of(pd.DataFrame(drawn, columns=sums.columns))


def intervals(draws: pd.DataFrame, episodes: int) -> dict[str, list[float] | None]:
    """Return the confidence interval [low, high] per metric; None with fewer than two episodes."""
    tail = (1 - CONFIDENCE) / 2
    bounds = draws.quantile([tail, 1 - tail])
    return {
        key: None
        if episodes < 2 or bounds[key].isna().any()
        else [float(bounds[key].iloc[0]), float(bounds[key].iloc[1])]
        for key in draws.columns
    }


def differences(
    first: tuple[pd.Series, pd.DataFrame], second: tuple[pd.Series, pd.DataFrame], episodes: int
) -> dict[str, dict[str, Any]]:
    """Return second - first per metric, with its interval.

    Args:
        first: scores and draws of the system to compare with.
        second: those of the other system.
        episodes: number of episodes that were scored.

    Returns:
        For each metric: `difference`, `interval`, and `within_noise`, which is true if the interval
        contains 0 or cannot be computed.
    """
    bounds = intervals(second[1] - first[1], episodes)
    found: dict[str, dict[str, Any]] = {}
    for key, difference in (second[0] - first[0]).items():
        if pd.isna(difference):
            continue
        interval = bounds[key]
        noise = interval is None or interval[0] <= 0 <= interval[1]
        found[str(key)] = {
            "difference": float(difference),
            "interval": interval,
            "within_noise": bool(noise),
        }
    return found
