"""Measures the cost of a run in shards without the model, on a test SLURM with two GPUs.

    python benchmarks/slurm_shards.py --dataset /path/to/dev_v3 --shards 4

It needs the plugin for SLURM (.venv-cluster), runs as root and starts the SLURM of
tests/slurm_cluster.py. It annotates the dataset with the demo model and profiles/slurm, and prints
one JSON object: wall and CPU seconds of the outer process, and for every shard its wall seconds,
the CPU seconds of all its processes (decoding, steps and the demo model), and the seconds to the
first request of a step from the start of its SLURM job, and from the time when its model server was
ready.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import measuring

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests")]

import slurm_cluster  # noqa: E402

from cuesheet.dataset.metadata import read_dataset  # noqa: E402


def run(work: Path, dataset: Path, episodes_per_shard: int) -> dict[str, float]:
    """Return wall and CPU seconds of the outer process, without `sbatch` and similar commands."""
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")),
        *("--directory", str(work), "--workflow-profile", str(REPOSITORY / "profiles" / "slurm")),
        *("--slurm-status-command", "squeue", "--slurm-no-account"),
        *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "2"),
        *("--set-threads", "annotate_shard=1"),
        *("--set-resources", "annotate_shard:gpu=1", "annotate_shard:mem_mb=3000"),
        *(
            "--config",
            f"dataset={dataset}",
            f"cluster={{episodes_per_shard: {episodes_per_shard}}}",
        ),
    ]
    used = measuring.whole_process(command, work / "head.log")
    return {f"head_{name}": value for name, value in used.items()}


def of_shards(work: Path, name: str) -> dict[str, dict[str, float | str]]:
    """Return the seconds of every shard, from the files of the run and from SLURM."""
    results = work / "results" / name
    usage_of_job, ready_of_job = {}, {}
    for path in work.glob(".cuesheet/runs/*/usage.json"):
        usage = json.loads(path.read_bytes())
        usage_of_job[usage["job_id"]] = usage
        ready_of_job[usage["job_id"]] = ready_at(path.with_name("supervisor.log"))
    found = {}
    for path in sorted((results / "shards").glob("*.state.json")):
        state = json.loads(path.read_bytes())
        begun = slurm_start(state["job_id"])
        usage, ready = usage_of_job[state["job_id"]], ready_of_job[state["job_id"]]
        found[state["shard"]] = {
            "gpu": state["gpus"],
            "wall_s": round(state["updated_at"] - begun, 1),
            "cpu_s": state["cpu_s"],
            "to_first_call_s": round(usage["first_call_at"] - begun, 1),
            "ready_to_first_call_s": round(usage["first_call_at"] - ready, 1),
            "calls": sum(usage["calls"].values()),
        }
    return found


def ready_at(log: Path) -> float:
    """Return the time when the model server of a run was ready, from the log of its supervisor."""
    found = re.search(r"^(\S+ \S+) .*: ready at ", log.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{log}: the model server was never ready")
    return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()


def slurm_start(job: str) -> float:
    said = subprocess.check_output(["scontrol", "--oneliner", "show", "job", job], text=True)
    fields = dict(word.partition("=")[::2] for word in said.split())
    return datetime.fromisoformat(fields["StartTime"]).timestamp()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--dataset", type=Path, default=REPOSITORY / "data" / "demo_v3")
    parser.add_argument("--shards", type=int, default=4)
    options = parser.parse_args()
    dataset = options.dataset.resolve()
    episodes = len(read_dataset(dataset, dataset.name).episodes)
    slurm_cluster.start(nodes=1, gpus=2)
    try:
        with tempfile.TemporaryDirectory(prefix="cuesheet-shards-") as folder:
            work = Path(folder)
            figures = run(work, dataset, -(-episodes // options.shards))
            figures |= {"episodes": episodes, "shards": of_shards(work, dataset.name)}
            print(json.dumps(figures, indent=2))
    finally:
        slurm_cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
