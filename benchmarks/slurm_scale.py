"""Measures planning and submission of large runs in shards, with the real Snakefile and profile.

    python benchmarks/slurm_scale.py --episodes 1000 10000 100000            # planning
    python benchmarks/slurm_scale.py --episodes 100000 --submit              # and submitting
    python benchmarks/slurm_scale.py --episodes 100000 --run 60              # and running, asleep

It needs the plugin for SLURM, which .venv-cluster has. It creates a dataset that consists of
metadata (30 s episodes, two cameras, empty video files) and plans its annotation with
profiles/slurm: seconds, CPU seconds and peak memory of the outer process. With `--submit`, the
shards are also submitted to a real SLURM (tests/slurm_cluster.py, as root) with many simulated
nodes and GPUs. The partition is held, so that jobs queue and none starts: jobs per minute, CPU
seconds and memory of the outer process and the controller. With `--run S`, they run to their end,
200 at once, as jobs that sleep S seconds and write the marker of the shard (a replacement for
`sbatch` in the path does this). It prints one JSON object per size.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measuring
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests")]

import slurm_cluster  # noqa: E402

from cuesheet.dataset.index_state import STATE_KEY, source_state  # noqa: E402
from cuesheet.dataset.metadata import read_dataset  # noqa: E402

FPS = 30
LENGTH = 900
CAMERAS = ("observation.images.front", "observation.images.wrist")
EPISODES_A_DATA_FILE = 500
EPISODES_A_VIDEO = 40
EPISODES_A_SHARD = 300
NODES, GPUS_A_NODE = 50, 4
# Submits a job that sleeps and writes the marker and its benchmark, instead of the real job.
SLEEPING_SBATCH = """\
#!/bin/bash
shard=$(grep -oE 'shard=[0-9]+' <<< "$*" | head -1 | cut -d= -f2)
arguments=()
for argument; do
  case "$argument" in
    --wrap=*) argument="--wrap=sleep {1}; touch {2}/$shard.tsv; echo '{{}}' > {3}/$shard.json" ;;
  esac
  arguments+=("$argument")
done
exec {0} "${{arguments[@]}}"
"""


def make_dataset(root: Path, episodes: int) -> None:
    """Create the metadata of a dataset, and empty files in place of its data."""
    numbers = range(episodes)
    columns = {
        "episode_index": numbers,
        "tasks": [["put the cup on the shelf"]] * episodes,
        "length": [LENGTH] * episodes,
        "data/chunk_index": [0] * episodes,
        "data/file_index": [n // EPISODES_A_DATA_FILE for n in numbers],
        "dataset_from_index": [n * LENGTH for n in numbers],
        "dataset_to_index": [(n + 1) * LENGTH for n in numbers],
    }
    features = {}
    for camera in CAMERAS:
        begins = [n % EPISODES_A_VIDEO * LENGTH / FPS for n in numbers]
        columns |= {
            f"videos/{camera}/chunk_index": [0] * episodes,
            f"videos/{camera}/file_index": [n // EPISODES_A_VIDEO for n in numbers],
            f"videos/{camera}/from_timestamp": begins,
            f"videos/{camera}/to_timestamp": [begin + LENGTH / FPS for begin in begins],
        }
        features[camera] = {
            "dtype": "video",
            "shape": [480, 640, 3],
            "names": ["height", "width", "channels"],
        }
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "total_episodes": episodes,
        "total_frames": episodes * LENGTH,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    }
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(pa.table(columns), root / "meta/episodes/chunk-000/file-000.parquet")
    for number in {n // EPISODES_A_DATA_FILE for n in numbers}:
        _touch(root / info["data_path"].format(chunk_index=0, file_index=number))
    for camera in CAMERAS:
        for number in {n // EPISODES_A_VIDEO for n in numbers}:
            path = info["video_path"].format(video_key=camera, chunk_index=0, file_index=number)
            _touch(root / path)


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def pretend_index(root: Path, work: Path) -> None:
    """Write an index that the run considers current, so that it continues with the shards."""
    dataset = read_dataset(root, root.name)
    table = pa.table({"episode_index": [e.episode_index for e in dataset.episodes]})
    path = work / "results" / root.name / "episodes.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({STATE_KEY: source_state(dataset)}), path)


def command(work: Path, dataset: Path, *arguments: str) -> list[str]:
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")),
        *("--directory", str(work), "--workflow-profile", str(REPOSITORY / "profiles" / "slurm")),
        *("--config", f"dataset={dataset}", f"cluster={{episodes_per_shard: {EPISODES_A_SHARD}}}"),
        *arguments,
    ]


def plan(work: Path, dataset: Path) -> dict[str, float]:
    """Return seconds, CPU seconds and peak memory (MB) of a dry run."""
    used = measuring.whole_process(
        command(work, dataset, "--dry-run", "--quiet", "all"), work / "plan.log"
    )
    return {
        "planning_s": used["wall_s"],
        "planning_cpu_s": used["cpu_s"],
        "planning_peak_mb": used["peak_mb"],
    }


def submit(work: Path, dataset: Path, shards: int) -> dict[str, float]:
    """Submit every shard to a held partition. Return rates from the output of the outer process."""
    slurm = ("--slurm-status-command", "squeue", "--slurm-no-account", "--jobs", str(shards + 10))
    settings = ("--set-resources", "annotate_shard:gpu=1", "--max-jobs-per-timespan", "50/1s")
    run = subprocess.Popen(
        command(work, dataset, *slurm, *settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    head = psutil.Process(run.pid)
    first = last = 0.0
    submitted, children_s = 0, 0.0
    tail: list[str] = []
    for line in run.stdout:
        tail = [*tail[-30:], line]
        if re.search(r"submitted with SLURM jobid", line):
            last = time.monotonic()
            first = first or last
            submitted += 1
            if submitted == shards:
                break
    if submitted < shards:
        raise SystemExit("the run ended before all shards were submitted:\n" + "".join(tail))
    # The cost of waiting jobs: some rounds of status checks.
    before = head.cpu_times()
    begun = time.monotonic()
    time.sleep(60)
    after = head.cpu_times()
    waited = time.monotonic() - begun
    children_s = after.children_user + after.children_system
    controller = next(
        p for p in psutil.process_iter(["name"]) if p.info["name"] == "slurmctld"
    ).memory_info()
    figures = {
        "jobs_per_minute": round(60 * (submitted - 1) / max(last - first, 1e-9)),
        "head_cpu_s": round(after.user + after.system, 1),
        "sbatch_cpu_s": round(children_s, 1),
        "head_mb": round(head.memory_info().rss / 1e6),
        "waiting_cpu_share": round((after.user - before.user) / waited, 4),
        "controller_mb": round(controller.rss / 1e6),
        "queued": len(_squeue()),
    }
    run.kill()
    run.wait()
    subprocess.run(["scancel", "--user", "root"], check=True)
    return figures


def run_asleep(work: Path, dataset: Path, shards: int, sleep_s: float) -> dict[str, float]:
    """Run every shard as a job that sleeps, and measure the outer process."""
    programs = work / "bin"
    programs.mkdir()
    sbatch = programs / "sbatch"
    results = work / "results" / dataset.name
    markers, records = results / "shards", results / "benchmarks" / "annotate_shard"
    records.mkdir(parents=True)
    sbatch.write_text(SLEEPING_SBATCH.format(shutil.which("sbatch"), sleep_s, records, markers))
    sbatch.chmod(0o755)
    slurm = ("--slurm-status-command", "squeue", "--slurm-no-account", "--jobs", str(shards + 10))
    settings = ("--set-resources", "annotate_shard:gpu=1", "--max-jobs-per-timespan", "50/1s")
    begun = time.monotonic()
    log = work / "run.log"
    with log.open("w") as output:
        head = subprocess.Popen(
            command(work, dataset, *slurm, "annotations", *settings),
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        )
    running = 0
    while (ended := os.wait4(head.pid, os.WNOHANG))[0] == 0:
        running = max(running, len(_squeue("--states=RUNNING")))
        time.sleep(2)
    head.returncode = os.waitstatus_to_exitcode(ended[1])
    if head.returncode:
        raise SystemExit(f"the run failed:\n{log.read_text()[-3000:]}")
    done = len(list(markers.glob("[0-9]*.json")))
    if done != shards:
        raise SystemExit(f"{done} of {shards} shards are done")
    return {
        "sleep_s": sleep_s,
        "run_s": round(time.monotonic() - begun, 1),
        "run_cpu_s": round(ended[2].ru_utime + ended[2].ru_stime, 1),
        "run_peak_mb": round(ended[2].ru_maxrss / 1024),
        "most_running": running,
    }


def _squeue(*arguments: str) -> list[str]:
    return subprocess.run(
        ["squeue", "--noheader", "--format=%i", *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--episodes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--submit", action="store_true", help="also submit to a test cluster")
    parser.add_argument("--run", type=float, metavar="S", help="also run jobs that sleep S seconds")
    options = parser.parse_args()
    clustered = options.submit or options.run is not None
    if clustered:
        slurm_cluster.start(nodes=NODES, gpus=GPUS_A_NODE, cpus=8 * GPUS_A_NODE, memory_mb=128_000)
    if options.submit:
        for partition in ("gpu", "cpu"):
            held = ["scontrol", "update", f"PartitionName={partition}", "State=DOWN"]
            subprocess.run(held, check=True)
    try:
        for episodes in options.episodes:
            with tempfile.TemporaryDirectory(prefix="cuesheet-scale-") as folder:
                dataset, work = Path(folder) / "set", Path(folder) / "work"
                make_dataset(dataset, episodes)
                work.mkdir()
                pretend_index(dataset, work)
                shards = -(-episodes // EPISODES_A_SHARD)
                figures = {"episodes": episodes, "shards": shards, **plan(work, dataset)}
                if options.submit:
                    figures |= submit(work, dataset, shards)
                elif options.run is not None:
                    figures |= run_asleep(work, dataset, shards, options.run)
                print(json.dumps(figures), flush=True)
    finally:
        if clustered:
            slurm_cluster.stop()
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"the benchmark itself took {own} MB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
