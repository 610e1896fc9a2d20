"""How does planning grow with the number of episodes?

    python benchmarks/graph.py [--json FILE] [--sizes 1000 10000 100000] [--shard 1000]

For each size: Snakemake's dry run over a dataset of so many episodes, wall and CPU seconds and peak
memory; then the same over finished results, which finds nothing to be done. Sizes above `--shard`
are planned by shards: all metadata is read while the Snakefile is parsed, and one shard of
`--shard` episodes is planned, as each shard's job does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measuring
from datasets import many_episodes
from measuring import REPOSITORY, Target


def planned(work: Path, *options: str) -> dict[str, Any]:
    """One call of Snakemake in `work`: seconds, MB, and its last words."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(work), "--cores", "2", "--quiet", "rules", *options]
    begun = time.monotonic()
    output = work / "out.log"
    with output.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    text = output.read_text()
    if process.returncode:
        sys.exit(f"snakemake {' '.join(options)} failed:\n{text[-3000:]}")
    return {
        "wall_s": round(time.monotonic() - begun, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss / 1024),
        "nothing_to_do": "Nothing to be done" in text,
    }


def work_folder(path: Path, dataset: Path, episodes: list[str]) -> Path:
    (path / "config").mkdir(parents=True)
    settings = {"dataset": {"many": {"path": str(dataset), "episodes": episodes}}}
    (path / "config" / "config.yaml").write_text(json.dumps(settings))
    return path


def measure(folder: Path, size: int, shard: int) -> dict[str, Any]:
    dataset = many_episodes(folder / f"data-{size}", size, with_rows=False)
    part = min(size, shard)
    work = work_folder(folder / f"work-{size}", dataset, [f"0-{part - 1}"])
    found: dict[str, Any] = {"episodes": size, "planned_at_once": part}
    found["plan"] = planned(work, "--dry-run")
    make_files(work, part)
    found["resume"] = planned(work, "--dry-run", "annotations", "media")
    if not found["resume"]["nothing_to_do"]:
        sys.exit(f"{size} episodes: something is still to be done")
    return found


def make_files(work: Path, episodes: int) -> None:
    """Every file of clips, keyframes and annotations, empty."""
    results = work / "results" / "many"
    (results / "logs").mkdir(parents=True)
    cameras = ("observation.images.front", "observation.images.wrist")
    for stage in ("keyframes", "plan", "interjections", "vqa", "validation"):
        (results / stage).mkdir()
    for camera in cameras:
        (results / "clips" / camera).mkdir(parents=True)
    (results / "episodes.parquet").touch()
    for number in range(episodes):
        for camera in cameras:
            (results / "clips" / camera / f"episode_{number:06d}.mp4").touch()
        (results / "keyframes" / f"{number:06d}").mkdir()
        for stage in ("plan", "interjections", "vqa"):
            (results / stage / f"{number:06d}.json").touch()
        (results / "validation" / f"{number:06d}.json").touch()
        (results / "validation" / f"{number:06d}.txt").touch()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--shard", type=int, default=1000, help="episodes of a shard")
    options = parser.parse_args()
    figures, targets = [], []
    with tempfile.TemporaryDirectory(prefix="graph.") as name:
        for size in options.sizes:
            found = measure(Path(name), size, options.shard)
            figures.append(found)
            for step in ("plan", "resume"):
                print(f"{size:>8} episodes, {step:<7} {found[step]}", flush=True)
    last = figures[-1]
    for step in ("plan", "resume"):
        label = f"{last['episodes']} episodes, {step}"
        targets.append(Target(f"{label}: wall s", last[step]["wall_s"], 60, at_most=True))
        targets.append(Target(f"{label}: peak MB", last[step]["peak_mb"], 1000, at_most=True))
    measuring.publish("graph", targets, {"runs": figures}, options.json)


if __name__ == "__main__":
    main()
