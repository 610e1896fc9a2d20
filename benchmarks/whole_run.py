"""Measures what only a whole run shows, Snakemake included.

    python benchmarks/whole_run.py [--episodes 32] [--slots 16] [--reply-s 2] [--cores 2]
    python benchmarks/whole_run.py --dataset FOLDER --lerobot PYTHON --packages FOLDER[:FOLDER]

- The share of the server's slots in use from the first request to the last. The first one is the
  check of the server, which uses one slot before any job starts, so the share from the first
  request of a job to the last is shown, too.
- The seconds from the start of `snakemake` to the first request.
- Wall time, CPU seconds and peak memory of everything but the server.

The dataset repeats the demo's episodes, with other tasks, so that all requests are distinct.
`--dataset` names another one. The server takes `--reply-s` per request and processes `--slots`
requests at once. A first run records the replies of the demo model, and the second, with an empty
cache and no results, is measured.

With `--lerobot`, the workflow is compared with `lerobot-annotate` (LeRobot 0.6.1) instead: both
annotate the dataset against a server that takes 0.5 s per request, and their cost and their
requests are printed side by side. Both have their default settings, except that the workflow's
features that LeRobot lacks are off. `dataset_only` is the workflow's target `datasets`: without
clips, report and review page, which LeRobot does not make. PYTHON is the Python of an environment
with LeRobot's dependencies (.venv-lerobot/bin/python); `--packages` are folders with LeRobot 0.6.1
(.venv-lerobot/v061) and with the package openai, if the environment lacks it.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lerobot_annotator
import slot_server
import workflow_cost
from datasets import distinct_episodes
from measuring import REPOSITORY, Target, publish

MODEL = "cuesheet-demo-1"


def measure(
    dataset: Path, folder: Path, *, slots: int, reply_s: float, cores: int
) -> dict[str, Any]:
    """Run the workflow twice in new folders below `folder`; return the figures of the second."""
    port_file = folder / "demo_vlm.port"
    demo = [sys.executable, "-m", "demo_vlm", "--port", "0", "--port-file", str(port_file)]
    with (
        slot_server.process_with_port(demo, port_file) as port,
        slot_server.running(
            reply_s, slots, upstream=f"http://127.0.0.1:{port}/v1", model=MODEL
        ) as server,
    ):
        vlm = {
            "serve": "external",
            "base_urls": [server.base_url],
            "model": MODEL,
            "concurrency": slots * 3 // 2,  # as the description of the setting advises
        }
        settings = {"dataset": {"measured": str(dataset.resolve())}, "vlm": vlm}
        workflow_cost.run(folder / "recorded", settings, cores)
        server.reset()
        begun = time.monotonic()
        cost = workflow_cost.run(folder / "measured", settings, cores)
        stats = server.stats()
    return {
        **stats,
        "slots": slots,
        "reply_s": reply_s,
        # Both processes read the same monotonic clock of the machine.
        "start_to_first_request_s": stats["first_at"] - begun,
        "ideal_span_s": stats["calls"] * reply_s / slots,
        "cost": cost,
    }


def compare(options: argparse.Namespace) -> None:
    """Print the cost and the requests of both annotators."""
    with tempfile.TemporaryDirectory(prefix="whole_run.") as name:
        found = lerobot_annotator.compare(
            (options.dataset or REPOSITORY / "data" / "demo_v3").resolve(),
            Path(name),
            python=options.lerobot,
            packages=options.packages,
            cores=options.cores,
        )
    ours, theirs = found["cuesheet"], found["lerobot"]
    print(f"{'':<16}" + "".join(f"{name:>14}" for name in found) + f"{'ratio':>8}")
    for key, value in ours.items():
        ratio = theirs[key] / value if value else float("nan")
        print(f"{key:<16}" + "".join(f"{one[key]:>14,.1f}" for one in found.values()), end="")
        print(f"{ratio:>8.2f}")

    def gain(*keys: str) -> float:
        return sum(theirs[key] for key in keys) / sum(ours[key] for key in keys)

    targets = [
        Target("wall time, compared with lerobot-annotate (ratio)", gain("wall_s"), 1.4),
        Target("CPU time, compared with lerobot-annotate (ratio)", gain("cpu_s"), 1.1),
        Target("tokens, compared (ratio)", gain("image_tokens", "text_tokens"), 1.25),
    ]
    publish("whole_run_lerobot", targets, found, options.json)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, help="default: repeated episodes of the demo")
    parser.add_argument("--episodes", type=int, default=32, help="number of repeated episodes")
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--reply-s", type=float, default=2.0)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--lerobot", type=Path, help="compare with LeRobot, which this Python runs")
    parser.add_argument("--packages", default=".venv-lerobot/v061", help="folders of its packages")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    if options.lerobot:
        compare(options)
        return
    with tempfile.TemporaryDirectory(prefix="whole_run.") as name:
        found = measure(
            options.dataset or distinct_episodes(Path(name) / "data", options.episodes),
            Path(name),
            slots=options.slots,
            reply_s=options.reply_s,
            cores=options.cores,
        )
    cost = found["cost"]
    print(
        f"{found['calls']} requests in {found['span_s']:.1f} s, at best {found['ideal_span_s']:.1f}"
    )
    first_s = found["start_to_first_request_s"] + found["first_of_jobs_at"] - found["first_at"]
    print(f"first request of a job {first_s:.1f} s after the start")
    print(f"wall {cost['wall_s']} s, CPU {cost['cpu_s']} s, peak {cost['peak_mb']} MB")
    targets = [
        Target("slots in use, check of the server to last request (share)", found["used"], 0.95),
        Target("slots in use, first request of a job to last (share)", found["used_by_jobs"], 0.95),
        Target("start to first request (s)", found["start_to_first_request_s"], 5.0, at_most=True),
        Target("replies that were not recorded before", found["recorded"], 0, at_most=True),
    ]
    publish("whole_run", targets, found, options.json)


if __name__ == "__main__":
    main()
