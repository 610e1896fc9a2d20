"""A long run of many small episodes: memory and open files of its processes, and its logs.

    PYTHONPATH=scripts:tests:benchmarks python tests/attack/soak.py --episodes 500

Every process that lives as long as the run is sampled. From a quarter of the run on, when all is
imported and connected, memory and file descriptors must stay flat; logs are bounded per episode.
"""

import argparse
import collections
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from attack.kills import Struck, count_files, start_run
from datasets import many_episodes
from workflow_runs import Workdir

# Growth from a quarter of the run to its end. Snakemake keeps a record of every job.
MOST_GROWTH_MB = {"Snakemake": 150.0}
ELSE_GROWTH_MB = 40.0
MOST_GROWTH_FDS = 12  # connections and files that happen to be open
MOST_LOG_KB_PER_EPISODE = 20.0
LEAST_LOG_KB = 200.0
EVERY_S = 1.0


@dataclass
class Sample:
    progress: float  # share of the episodes that are validated
    memory_mb: float
    fds: int


@dataclass
class Soak:
    samples: dict[str, list[Sample]] = field(default_factory=lambda: collections.defaultdict(list))
    logs_kb: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def long_lived(struck: Struck) -> dict[str, psutil.Process]:
    """Return the processes that live as long as the run, by what they are."""
    named = {
        "supervisor": struck.named("cuesheet.serving.lifecycle"),
        "job server": struck.named("cuesheet.serving.job_server")[:1],
        "process guard": struck.named("process_guard"),
        "model server": struck.named("-m demo_vlm", without="process_guard"),
    }
    found = {name: processes[0] for name, processes in named.items() if processes}
    return {"Snakemake": psutil.Process(struck.run.pid), **found}


def soak(folder: Path, episodes: int, say: Callable[[str], None]) -> Soak:
    """Run the workflow over `episodes` episodes and judge what was sampled."""
    dataset = many_episodes(folder / "data", episodes)
    work = Workdir(folder / "work")
    work.path.mkdir()
    work.configure(
        dataset={"many": str(dataset)},
        cameras=["observation.images.front"],
        cluster={"shards": "never"},
    )
    result, began = Soak(), time.monotonic()
    run = start_run(work, folder / "terminal.txt", "datasets", "--quiet", "all")
    struck = Struck(work, run)
    processes: dict[str, psutil.Process] = {}
    while run.poll() is None:
        done = sum(1 for _ in (work.path / "results/many/validation").glob("*.json"))
        if len(processes) < 5:
            with contextlib.suppress(psutil.NoSuchProcess):
                processes = long_lived(struck)
        for name, process in processes.items():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                memory_mb = process.memory_info().rss / 2**20
                result.samples[name].append(Sample(done / episodes, memory_mb, process.num_fds()))
        time.sleep(EVERY_S)
    result.seconds = time.monotonic() - began
    if run.returncode:
        result.problems.append((folder / "terminal.txt").read_text()[-1500:])
    for path in [*work.path.glob(".cuesheet/runs/*/*.log"), *work.path.glob(".snakemake/log/*")]:
        result.logs_kb[path.name] = path.stat().st_size / 1000
    say(f"{count_files(work)} files of {episodes} episodes in {result.seconds:.0f} s")
    judge(result, episodes)
    return result


def judge(result: Soak, episodes: int) -> None:
    """Add what grows to the problems."""
    for name, samples in result.samples.items():
        warm = [sample for sample in samples if sample.progress >= 0.25]
        if len(warm) < 2:
            result.problems.append(f"{name}: too few samples; use more episodes")
            continue
        first, last = warm[0], warm[-1]
        if last.memory_mb - first.memory_mb > MOST_GROWTH_MB.get(name, ELSE_GROWTH_MB):
            result.problems.append(f"{name} grew from {first.memory_mb:.0f} MB")
        if last.fds - first.fds > MOST_GROWTH_FDS:
            result.problems.append(f"{name}: file descriptors grew from {first.fds} to {last.fds}")
    for name, size_kb in result.logs_kb.items():
        if size_kb > max(LEAST_LOG_KB, MOST_LOG_KB_PER_EPISODE * episodes):
            result.problems.append(f"{name} has {size_kb:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = soak(Path(folder), arguments.episodes, lambda text: print(text, flush=True))
    for name, samples in result.samples.items():
        warm = [sample for sample in samples if sample.progress >= 0.25] or samples
        shown = [("first", samples[0]), ("at a quarter", warm[0]), ("at the end", samples[-1])]
        values = "; ".join(f"{when} {one.memory_mb:.0f} MB, {one.fds} fds" for when, one in shown)
        print(f"{name:14} {values}")
    for name, size_kb in sorted(result.logs_kb.items()):
        print(f"{name}: {size_kb:.0f} kB, {size_kb / arguments.episodes:.2f} kB per episode")
    print("\n".join(result.problems) or "flat")
    sys.exit(bool(result.problems))


if __name__ == "__main__":
    main()
