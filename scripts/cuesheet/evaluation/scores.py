"""Scores runs against a reference, next to baselines. Definitions: docs/evaluation.md."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cuesheet.artifacts.episode import read_episode
from cuesheet.artifacts.layout import Layout
from cuesheet.artifacts.stage_files import read_stage_file
from cuesheet.errors import CuesheetError
from cuesheet.evaluation import metrics
from cuesheet.evaluation.baselines import clip_motion, motion_split, uniform_split
from cuesheet.evaluation.granularity import Granularity
from cuesheet.evaluation.grounding import score_grounding
from cuesheet.evaluation.labels import has_object, same_objects, same_verbs
from cuesheet.evaluation.references import Reference, read_results
from cuesheet.evaluation.segments import SameLabel, Segment, episode_sums
from cuesheet.text import is_exact, token_f1

SAME_LABEL_TOKEN_F1 = 0.5

Verdicts = Mapping[tuple[str, str], bool]  # by (label, reference label)


@dataclass(frozen=True)
class System:
    """A run or a baseline that is scored."""

    name: str
    segments: Mapping[int, Sequence[Segment]]
    labeled: bool = True


def same_label(threshold: float, verdicts: Verdicts | None = None) -> SameLabel:
    """Return a function that tells whether a label and a reference label mean the same.

    A judge's verdict decides if there is one. Otherwise the labels must be exactly equal, or have a
    token F1 of at least `threshold`, the same verbs, and objects that do not contradict.
    """

    def same(label: str, reference: str) -> bool:
        judged = (verdicts or {}).get((label, reference))
        if judged is not None:
            return judged
        if is_exact(label, reference):
            return True
        similar = token_f1(label, reference) >= max(threshold, 1e-9)
        objects = same_objects(label, reference) or not has_object(reference)
        return similar and same_verbs(label, reference) and objects

    return same


def baseline(name: str, run: System, results: Path) -> System:
    """Return the baseline `name` (uniform or motion) with as many segments per episode as `run`."""
    segments = {}
    for episode, predicted in run.segments.items():
        if not predicted:
            continue
        if name == "uniform":
            segments[episode] = uniform_split(predicted)
        else:
            clip = _default_clip(results, episode)
            segments[episode] = motion_split(predicted, *clip_motion(clip))
    return System(f"{name} split", segments, labeled=False)


def _default_clip(results: Path, episode: int) -> Path:
    layout = Layout(results)
    cameras = list(read_episode(layout.keyframes(episode), needs_images=False).cameras)
    if not cameras:
        raise CuesheetError(
            f"{results}: the motion split needs a camera, and episode {episode} has none. Remove "
            "`motion` from the baselines."
        )
    return layout.clip(cameras[0], episode)


def system_sums(
    system: System, reference: Reference, episodes: Collection[int], same: SameLabel
) -> pd.DataFrame:
    """Return the sums of one system, one row per episode."""
    rows = {
        index: episode_sums(system.segments.get(index, ()), reference.segments[index], same)
        for index in sorted(episodes)
    }
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(metrics.COLUMNS))
    return table.fillna(0.0)


def score_system(
    system: System, reference: Reference, episodes: Collection[int], same: SameLabel
) -> dict[str, Any]:
    """Return the scores of one system with their intervals, and the scores of each episode."""
    return _scores(system, system_sums(system, reference, episodes, same))


def _scores(system: System, sums: pd.DataFrame) -> dict[str, Any]:
    return {
        "name": system.name,
        "labeled": system.labeled,
        **metrics.nested_scores(sums.sum()),
        "intervals": metrics.intervals(metrics.resample(sums), len(sums)),
        "by_episode": {str(index): metrics.nested_scores(row) for index, row in sums.iterrows()},
    }


def evaluate(
    runs: Sequence[Path],
    reference: Reference,
    *,
    baselines: Sequence[str] = (),
    token_f1_threshold: float = SAME_LABEL_TOKEN_F1,
    verdicts: Verdicts | None = None,
    only_annotated: bool = False,
    ignored_boxes: Collection[str] = (),
    granularity: Granularity | None = None,
) -> dict[str, Any]:
    """Return the scores of the result folders `runs` and of baselines for the first of them.

    Args:
        runs: result folders; several are compared on the same episodes.
        reference: the correct segments and boxes.
        baselines: any of `uniform`, `motion`.
        token_f1_threshold: minimum token F1 of labels that mean the same.
        verdicts: a judge's verdicts by (label, reference label); they take precedence.
        only_annotated: leave out reference episodes that some run has not annotated. Otherwise
            these count as episodes without any predicted segment.
        ignored_boxes: names of reference boxes that do not count.
        granularity: changes to the reference's segments, in addition to its own.

    Raises:
        CuesheetError: a file is missing or broken, or no episode is in both.
    """
    reference = reference.changed(granularity)
    systems = [
        System(name, read_results(run).segments)
        for name, run in zip(run_names(runs), runs, strict=True)
    ]
    episodes = _scored_episodes(runs, systems, reference, only_annotated)
    same = same_label(token_f1_threshold, verdicts)
    systems += [baseline(name, systems[0], runs[0]) for name in baselines]
    sums = [system_sums(system, reference, episodes, same) for system in systems]
    report: dict[str, Any] = {
        "format": 2,
        "episodes": sorted(episodes),
        "without_reference": sorted(set(systems[0].segments) - set(reference.segments)),
        "same_label_token_f1": token_f1_threshold,
        "judged_labels": len(verdicts or ()),
        "fold": dict(reference.granularity.fold),
        "mapping": dict(reference.granularity.mapping),
        "bootstrap": {"resamples": metrics.RESAMPLES, "confidence": metrics.CONFIDENCE},
        "systems": [_scores(system, part) for system, part in zip(systems, sums, strict=True)],
        "differences": _differences(systems, sums),
    }
    if reference.boxes:
        report["grounding"] = [
            {"name": name, **_grounding(run, reference, ignored_boxes)}
            for name, run in zip(run_names(runs), runs, strict=True)
        ]
    return report


def _scored_episodes(
    runs: Sequence[Path], systems: Sequence[System], reference: Reference, only_annotated: bool
) -> set[int]:
    """Return the episodes with reference segments. Raises CuesheetError if there are none."""
    common = [set(system.segments) & set(reference.segments) for system in systems]
    if not all(common):
        raise CuesheetError(
            f"{runs[common.index(set())]} and the reference have no episode number in common."
        )
    episodes = {index for index, parts in reference.segments.items() if parts}
    if only_annotated:
        episodes = episodes.intersection(*common)
    if not episodes:
        raise CuesheetError("No episode is annotated in all runs and has reference segments.")
    return episodes


def _differences(systems: Sequence[System], sums: Sequence[pd.DataFrame]) -> list[dict[str, Any]]:
    """Return the differences between the first system and each other one."""
    scored = [
        (metrics.scores_of(part.sum().to_frame().T).iloc[0], metrics.resample(part))
        for part in sums
    ]
    unlabeled = [metric.key for metric in metrics.METRICS if metric.needs_labels]
    found = []
    for system, other in zip(systems[1:], scored[1:], strict=True):
        values = metrics.differences(scored[0], other, len(sums[0]))
        if not system.labeled:
            values = {key: value for key, value in values.items() if key not in unlabeled}
        found.append({"name": system.name, "compared_with": systems[0].name, "scores": values})
    return found


def run_names(runs: Sequence[Path]) -> list[str]:
    """Return a name per run: its folder's name, or its path if two folders have the same name."""
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _grounding(run: Path, reference: Reference, ignored: Collection[str]) -> dict[str, Any]:
    layout = Layout(run)
    pairs, sizes = {}, {}
    for index in sorted(reference.boxes):
        path = layout.vqa(index)
        if not path.is_file():
            continue
        pairs[index] = read_stage_file(path, "vqa").pairs
        cameras = read_episode(layout.keyframes(index), needs_images=False).cameras
        for camera, size in cameras.items():
            sizes[camera] = (size.width, size.height)
    return score_grounding(pairs, reference.boxes, sizes, ignored)
