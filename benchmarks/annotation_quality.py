"""How good are the subtasks of the demo model on a dataset with ground truth?

    python benchmarks/annotation_quality.py [--data FOLDER] [--dataset dev_v3] [--json FILE]

Needs no GPU. Prints F1 of segments at IoU 0.5 and 0.75 and F1 of boundaries within 0.5 s:

- the workflow with `granularity: phases` and `events`, with the dataset's feature names and with
  the names removed (events are scored against folded references);
- the recorded signals alone, and reference phases through the cleaning of spans, which is what a
  perfect model could reach with 2 or 4 keyframes per second;
- `propagate: apply` with one corrected episode per task, scored on the others whatever their
  confidence, also with noise of 5 % of the range on the state;
- CPU seconds of the signals per 30 s of recording.

The reference phases are `ground_truth/{dataset}.json` next to the dataset.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from measuring import REPOSITORY, SCRIPTS

sys.path.insert(0, str(SCRIPTS))

from cuesheet.annotate.evidence import events_of
from cuesheet.annotate.propagation import (
    Reference,
    propagate,
    trajectory_of_signals,
)
from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.index import indexed_episodes, read_indexed_episode
from cuesheet.artifacts.layout import Layout
from cuesheet.artifacts.sampling import grid_indices, nearest_index
from cuesheet.artifacts.signals_file import SignalsFile
from cuesheet.artifacts.stage_files import read_stage_file
from cuesheet.artifacts.subtasks import Subtask, Window, clean_spans, enforce_limits
from cuesheet.config.stages import PlanConfig
from cuesheet.dataset.index import make_index
from cuesheet.dataset.metadata import read_dataset
from cuesheet.evaluation.granularity import Granularity
from cuesheet.evaluation.segments import Segment, episode_sums
from cuesheet.signals.extract import measure
from cuesheet.signals.layout import SAMPLED_EPISODES, Names, make_layout
from cuesheet.signals.record import Record, dimension_names, read_record

STATE, ACTION = ["observation.state"], ["action"]
# A pick with its approach, a place with what leads to it, the withdrawal on its own.
PICK = {"approach": "pick", "grasp": "pick"}
PLACE = dict.fromkeys(("transport", "push", "place", "release"), "place")
FOLDED = {"idle": "previous", "hold": "previous"}

Cover = Sequence[Segment]


@dataclass(frozen=True)
class Case:
    """A dataset with its episodes, records and reference phases."""

    root: Path
    episodes: Mapping[int, Episode]
    records: Mapping[int, Record]
    phases: Mapping[int, Cover]
    names: Names


def read_case(data: Path, name: str) -> Case:
    root = data / name
    dataset = read_dataset(root, name)
    features = json.loads((root / "meta" / "info.json").read_text())["features"]
    names = Names(
        STATE, ACTION, dimension_names(features, STATE), dimension_names(features, ACTION)
    )
    truth = json.loads((data / "ground_truth" / f"{name}.json").read_text())
    phases = {
        one["episode_index"]: [
            Segment(phase["start_s"], phase["end_s"], phase["name"])
            for part in one["segments"]
            for phase in part["phases"]
        ]
        for one in truth["episodes"]
    }
    episodes, records = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        index = Layout(Path(folder)).index
        make_index(index, dataset, [one.episode_index for one in dataset.episodes])
        for number in indexed_episodes(index):
            row = read_indexed_episode(index, number)
            times = row.shortest_timestamps
            episodes[number] = Episode(name, number, row.task, row.fps, times, {})
            records[number] = read_record(root, row, STATE, ACTION)
    return Case(root, episodes, records, phases, names)


def scores(predicted: Mapping[int, Cover], reference: Mapping[int, Cover]) -> list[float]:
    """Pooled F1 at IoU 0.5, at IoU 0.75, and of boundaries within 0.5 s."""
    total: Counter[str] = Counter()
    for number, segmentation in predicted.items():
        total.update(episode_sums(segmentation, reference[number], lambda first, second: True))
    pairs = [
        ("hits@0.5", "predicted", "reference"),
        ("hits@0.75", "predicted", "reference"),
        ("boundary_hits@0.5", "predicted_boundaries", "reference_boundaries"),
    ]
    return [2 * total[hits] / max(total[first] + total[second], 1) for hits, first, second in pairs]


def events_reference(phases: Mapping[int, Cover]) -> dict[int, Cover]:
    """Picks and places; without a grasp the approach belongs to the act that follows."""
    folded = {}
    for number, segmentation in phases.items():
        has_grasp = any(one.text == "grasp" for one in segmentation)
        fold = FOLDED if has_grasp else {**FOLDED, "approach": "next"}
        mapping = {**PICK, **PLACE} if has_grasp else {}
        folded[number] = Granularity(fold, mapping).apply(segmentation)
    return folded


def segments_of(segmentation: Sequence[Subtask], episode: Episode) -> Cover:
    return [Segment(one.start_s(episode), one.end_s(episode), one.label) for one in segmentation]


def run_workflow(root: Path, granularity: str, folder: Path) -> dict[int, Cover]:
    """The subtasks of a run with the demo model."""
    settings = {
        "dataset": str(root),
        "plan": json.dumps(
            {"granularity": granularity, "memory": False, "rephrasings": {"mode": "off"}}
        ),
        "vqa": json.dumps({"enabled": False}),
        "interjections": json.dumps({"enabled": False}),
    }
    if granularity == "phases":
        settings["keyframes"] = json.dumps({"per_second": 4})
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")),
        *("--directory", str(folder), "--cores", "2", "--quiet", "all"),
        "--workflow-profile", "none",
        "--config", *(f"{key}={value}" for key, value in settings.items()),
        "--", "annotations",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    layout = Layout(folder / "results" / root.name)
    found = {}
    for path in sorted(layout.stage_folder("plan").glob("*.json")):
        plan = read_stage_file(path, "plan")
        found[plan.episode_index] = [
            Segment(one.start_s, one.end_s, one.label) for one in plan.subtasks
        ]
    return found


def without_names(root: Path, folder: Path) -> Path:
    """A copy of a dataset whose state and action have no dimension names."""
    copy = folder / root.name
    shutil.copytree(root, copy)
    path = copy / "meta" / "info.json"
    info = json.loads(path.read_text())
    for column in (*STATE, *ACTION):
        info["features"][column]["names"] = None
    path.write_text(json.dumps(info))
    return copy


def perfect(case: Case, per_second: float) -> dict[int, Cover]:
    """Reference phases as a model could tell them from a grid of keyframes, then cleaned."""
    found = {}
    limits = {"min_subtask_s": PlanConfig(granularity="phases").shortest_s, "max_subtasks": None}
    for number, episode in case.episodes.items():
        grid = [episode.timestamps_s[i] for i in grid_indices(episode.timestamps_s, per_second)]
        told = [
            (
                grid[nearest_index(grid, one.start_s)],
                grid[nearest_index(grid, one.end_s)],
                one.text,
            )
            for one in case.phases[number]
        ]
        segmentation = clean_spans(told, Window(0, episode.length), episode, **limits)
        found[number] = segments_of(segmentation, episode)
    return found


def measured(case: Case, names: Names, noise: float = 0.0) -> dict[int, SignalsFile]:
    """The signals of every episode; `noise`: share of the range that is added to the state."""
    records = dict(case.records)
    if noise:
        random = np.random.default_rng(0)
        span = np.ptp(np.concatenate([one.state for one in records.values()]), axis=0)
        records = {
            number: replace(one, state=one.state + random.normal(0, noise, one.state.shape) * span)
            for number, one in records.items()
        }
    sampled = sorted(records)[:SAMPLED_EPISODES]
    layout = make_layout(case.root.name, sampled, [records[n] for n in sampled], names, "auto")
    return {n: measure(layout, one, case.root.name, n) for n, one in records.items()}


def strokes_alone(case: Case, signals: Mapping[int, SignalsFile]) -> dict[int, Cover]:
    """Phases whose boundaries are all strokes and stops."""
    found = {}
    for number, episode in case.episodes.items():
        frames = [e.frame for e in events_of(signals[number]) if e.is_stroke]
        edges = [0, *sorted(set(frames)), episode.length]
        segmentation = [Subtask(a, b, "") for a, b in pairwise(edges)]
        segmentation = enforce_limits(segmentation, episode, min_subtask_s=0.25, max_subtasks=None)
        found[number] = segments_of(segmentation, episode)
    return found


def applied(case: Case, signals: Mapping[int, SignalsFile]) -> dict[int, Cover]:
    """The lowest episode of each task is corrected and carried over to the others."""
    first: dict[str, int] = {}
    for number, episode in case.episodes.items():
        first.setdefault(episode.task, number)
    found = {}
    for number, episode in case.episodes.items():
        if number in first.values():
            continue
        references = [
            Reference(
                known,
                trajectory_of_signals(signals[known]),
                [{"start_s": s.start_s, "label": s.text} for s in case.phases[known]]
                if task == episode.task
                else [],
            )
            for task, known in first.items()
        ]
        carried = propagate(episode, trajectory_of_signals(signals[number]), references)
        found[number] = segments_of(carried.subtasks, episode)
    return found


def cpu_per_30_s(case: Case) -> float:
    """CPU seconds that the signals of 30 s take, without start and reading."""
    names = case.names
    sampled = sorted(case.records)[:SAMPLED_EPISODES]
    layout = make_layout("cpu", sampled, [case.records[n] for n in sampled], names, "auto")
    begun = time.process_time()
    for number, record in case.records.items():
        measure(layout, record, "cpu", number)
    seconds = sum(float(record.timestamps_s[-1]) for record in case.records.values())
    return (time.process_time() - begun) * 30 / seconds


def table(case: Case, *, workflow: bool = True) -> dict[str, list[float]]:
    """All rows: scores by name."""
    unnamed = Names(
        STATE,
        ACTION,
        [f"{STATE[0]}[{n}]" for n in range(len(case.names.state))],
        [f"{ACTION[0]}[{n}]" for n in range(len(case.names.action))],
    )
    rows: dict[str, list[float]] = {}
    events = events_reference(case.phases)
    if workflow:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            roots = {"with names": case.root, "without": without_names(case.root, folder)}
            for words, root in roots.items():
                for granularity, reference in (("phases", case.phases), ("events", events)):
                    run = folder / f"{granularity} {words}"
                    run.mkdir()
                    found = run_workflow(root, granularity, run)
                    rows[f"{granularity}, {words}"] = scores(found, reference)
    for words, names in (("with names", case.names), ("without", unnamed)):
        signals = measured(case, names)
        rows[f"signals alone, {words}"] = scores(strokes_alone(case, signals), case.phases)
        rows[f"apply, {words}"] = scores(applied(case, signals), case.phases)
        noisy = measured(case, names, noise=0.05)
        rows[f"apply, {words}, 5 % noise"] = scores(applied(case, noisy), case.phases)
    for per_second in (4, 2):
        rows[f"perfect model, {per_second} keyframes/s"] = scores(
            perfect(case, per_second), case.phases
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--dataset", default="dev_v3")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-workflow", action="store_true", help="skip runs of the workflow")
    options = parser.parse_args()
    case = read_case(options.data, options.dataset)
    rows = table(case, workflow=not options.no_workflow)
    width = max(map(len, rows))
    print(f"{options.dataset:<{width}}  F1@0.5  F1@0.75  boundary")
    for name, values in rows.items():
        print(f"{name:<{width}}  {values[0]:6.3f}  {values[1]:7.3f}  {values[2]:8.3f}")
    cpu_s = cpu_per_30_s(case)
    print(f"signals: {cpu_s:.4f} CPU s per 30 s of recording")
    if options.json:
        options.json.write_text(json.dumps({"scores": rows, "cpu_s_per_30_s": cpu_s}, indent=2))


if __name__ == "__main__":
    main()
