"""Measures how the job graph grows with the number of episodes.

    python benchmarks/graph.py [--json FILE] [--sizes 1000 10000 100000] [--noop 1000]

Planning is a dry run of the whole workflow for each size, and of `annotations` over finished
results, which finds nothing to do. Wall and CPU seconds and peak memory of the process are measured
with shards of `--shard` episodes, and for the smallest size also without shards. One shard is also
planned like its own job plans it.

The no-op run has no clips and no requests: only index, keyframes and validation of `--noop`
episodes remain, so it measures the start and the bookkeeping of jobs.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import measuring
import workflow_cost
from datasets import many_episodes
from measuring import REPOSITORY, Target

CAMERAS = ("observation.images.front", "observation.images.wrist")
STAGES = ("plan", "interjections", "vqa")


def planned(work: Path, settings: dict[str, Any], *options: str) -> dict[str, Any]:
    """Return seconds and MB of a dry run in `work`, and whether there is anything to do."""
    (work / "config").mkdir(parents=True, exist_ok=True)
    (work / "config" / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(work), "--cores", "2", "--quiet", "rules", "--dry-run"]
    output = work / "out.log"
    used = measuring.whole_process([*command, *options], output)
    return {**used, "nothing_to_do": "Nothing to be done" in output.read_text()}


def measure(folder: Path, size: int, shard: int | None) -> dict[str, Any]:
    """Plan `size` episodes, in shards of `shard` or without, before and after a run."""
    dataset = many_episodes(folder / "data", size, with_rows=False)
    settings: dict[str, Any] = {"dataset": {"many": str(dataset)}}
    settings["cluster"] = {"shards": "never"}
    if shard:
        settings["cluster"] = {"shards": "always", "episodes_per_shard": shard}
    work = folder / "work"
    found: dict[str, Any] = {"episodes": size, "episodes_a_shard": shard}
    found["plan"] = planned(work, settings)
    make_files(work, size, shard)
    found["resume"] = planned(work, settings, "annotations", *(() if shard else ("media",)))
    if not found["resume"]["nothing_to_do"]:
        sys.exit(f"{size} episodes: something is still to be done")
    if shard:
        inside = {
            "dataset": {"many": {"path": str(dataset), "episodes": [f"0-{min(size, shard) - 1}"]}}
        }
        inside["cluster"] = {"shards": "never"}
        found["inside_a_shard"] = planned(folder / "inside", inside)
    return found


def make_files(work: Path, episodes: int, shard: int | None) -> None:
    """Create empty files instead of the clips, keyframes, annotations and shards of a run."""
    results = work / "results" / "many"
    folders = [results / name for name in ("logs", "shards", *STAGES, "validation")]
    folders += [results / "clips" / camera for camera in CAMERAS]
    for path in folders:
        path.mkdir(parents=True, exist_ok=True)
    (results / "episodes.parquet").touch()
    for number in range(episodes):
        names = [f"{folder}/{number:06d}.json" for folder in (*STAGES, "validation")]
        if not shard:
            names += [f"clips/{camera}/episode_{number:06d}.mp4" for camera in CAMERAS]
            names.append(f"validation/{number:06d}.txt")
            (results / "keyframes" / f"{number:06d}").mkdir(parents=True)
        for name in names:
            (results / name).touch()
    for number in range(-(-episodes // shard) if shard else 0):
        (results / "shards" / f"{number:05d}.json").touch()


def noop_run(folder: Path, episodes: int) -> dict[str, Any]:
    """Measure a fresh run without any stage: the cost of the workflow itself."""
    dataset = many_episodes(folder / "data", episodes)
    settings: dict[str, Any] = {stage: {"enabled": False} for stage in STAGES}
    settings["dataset"] = {"many": str(dataset)}
    settings["cluster"] = {"shards": "never"}
    cost = workflow_cost.run(folder / "work", settings, 2, "annotations")
    made = len(list((folder / "work/results/many/validation").glob("*.json")))
    if made != episodes:
        sys.exit(f"{made} of {episodes} episodes were validated")
    return {"episodes": episodes, **cost}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--shard", type=int, default=300, help="episodes of a shard")
    parser.add_argument("--noop", type=int, default=1000, help="episodes of the no-op run; 0: none")
    options = parser.parse_args()
    plans, runs = [], []
    sizes = sorted(options.sizes)
    for size, shard in [(sizes[0], None), *((size, options.shard) for size in sizes)]:
        with tempfile.TemporaryDirectory(prefix="graph.") as name:
            plans.append(found := measure(Path(name), size, shard))
        for step in ("plan", "resume", "inside_a_shard"):
            if step in found:
                by = f"by {shard}" if shard else "no shards"
                print(f"{size:>8} episodes, {by:<9} {step:<15} {found[step]}", flush=True)
    if options.noop:
        with tempfile.TemporaryDirectory(prefix="graph.") as name:
            runs.append(cost := noop_run(Path(name), options.noop))
        besides_ms = 1000 * (cost["cpu_s"] - cost["jobs_cpu_s"]) / options.noop
        print(
            f"{options.noop:>8} episodes, no-op run: {cost['wall_s']} s, {cost['peak_mb']} MB, "
            f"{besides_ms:.0f} CPU ms per episode without the jobs",
            flush=True,
        )
    last, targets = plans[-1], []
    for step in ("plan", "resume"):
        label = f"{last['episodes']} episodes, {step}"
        targets.append(Target(f"{label}: wall s", last[step]["wall_s"], 60, at_most=True))
        targets.append(Target(f"{label}: peak MB", last[step]["peak_mb"], 1000, at_most=True))
    measuring.publish("graph", targets, {"plans": plans, "noop": runs}, options.json)


if __name__ == "__main__":
    main()
