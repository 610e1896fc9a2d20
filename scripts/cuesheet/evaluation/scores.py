"""Scores runs against a reference, compared with baselines. Definitions: docs/evaluation.md."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuesheet.artifacts.episode import read_episode
from cuesheet.artifacts.layout import Layout
from cuesheet.artifacts.stage_files import read_stage_file
from cuesheet.errors import CuesheetError
from cuesheet.evaluation.baselines import clip_motion, motion_split, uniform_split
from cuesheet.evaluation.grounding import score_grounding
from cuesheet.evaluation.references import Reference, read_results
from cuesheet.evaluation.segments import SameLabel, Segment, episode_sums, score
from cuesheet.text import is_exact, token_f1

SAME_LABEL_TOKEN_F1 = 0.5

Verdicts = Mapping[tuple[str, str], bool]  # by (label, reference label)


@dataclass(frozen=True)
class System:
    """Something that is scored: a run, or a guess."""

    name: str
    segments: Mapping[int, Sequence[Segment]]
    labeled: bool = True


def same_label(threshold: float, verdicts: Verdicts | None = None) -> SameLabel:
    """Whether two labels mean the same: by a judge's verdict where there is one, else by words."""

    def same(first: str, second: str) -> bool:
        judged = (verdicts or {}).get((first, second))
        if judged is not None:
            return judged
        return is_exact(first, second) or token_f1(first, second) >= max(threshold, 1e-9)

    return same


def baseline(name: str, run: System, results: Path) -> System:
    """The guess `name` (uniform or motion) with as many segments an episode as `run` has."""
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
            f"{results}: episode {episode} has no camera, and the motion split needs one; leave "
            "the baseline out."
        )
    return layout.clip(cameras[0], episode)


def score_system(
    system: System, reference: Reference, episodes: Collection[int], same: SameLabel
) -> dict[str, Any]:
    """Scores of one system over `episodes`, and those of each episode."""
    sums = {
        index: episode_sums(system.segments.get(index, ()), reference.segments[index], same)
        for index in sorted(episodes)
    }
    return {
        "name": system.name,
        "labeled": system.labeled,
        **score(sums.values()),
        "by_episode": {str(index): score([part]) for index, part in sums.items()},
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
) -> dict[str, Any]:
    """Scores of the result folders `runs`, then of guesses made for the first of them.

    Args:
        runs: result folders; several are compared on the same episodes.
        reference: what is right.
        baselines: of `uniform`, `motion`.
        token_f1_threshold: labels mean the same from this token F1 on.
        verdicts: of a judge, by (label, reference label); they count before the words.
        only_annotated: leave out reference episodes that not every run has; else they count as
            episodes in which nothing was found.
        ignored_boxes: names of reference boxes that do not count.

    Raises:
        CuesheetError: a file is missing or broken, or no episode is in both.
    """
    systems = [
        System(name, read_results(run).segments)
        for name, run in zip(run_names(runs), runs, strict=True)
    ]
    common = [set(system.segments) & set(reference.segments) for system in systems]
    if not all(common):
        raise CuesheetError(
            f"{runs[common.index(set())]} and the reference have no episode in common; "
            "episodes are told apart by their number."
        )
    episodes = {index for index, parts in reference.segments.items() if parts}
    if only_annotated:
        episodes = episodes.intersection(*common)
    same = same_label(token_f1_threshold, verdicts)
    systems += [baseline(name, systems[0], runs[0]) for name in baselines]
    report: dict[str, Any] = {
        "format": 1,
        "episodes": sorted(episodes),
        "without_reference": sorted(set(systems[0].segments) - set(reference.segments)),
        "same_label_token_f1": token_f1_threshold,
        "judged_labels": len(verdicts or ()),
        "systems": [score_system(system, reference, episodes, same) for system in systems],
    }
    if reference.boxes:
        report["grounding"] = [
            {"name": name, **_grounding(run, reference, ignored_boxes)}
            for name, run in zip(run_names(runs), runs, strict=True)
        ]
    return report


def run_names(runs: Sequence[Path]) -> list[str]:
    """What runs are called: their folders' names, with the path where that is not enough."""
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
