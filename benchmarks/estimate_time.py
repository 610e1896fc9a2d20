"""Measures how long `cuesheet estimate` takes for many episodes.

    python benchmarks/estimate_time.py [--episodes 10000] [--finished] [--json FILE]

With `--finished`, the plan of every episode exists, so the estimate reads all of them.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import measuring
from datasets import many_episodes
from measuring import Target

from cuesheet.artifacts.layout import Layout

AT_MOST_S = 10.0


def write_plans(results: Path, count: int) -> None:
    """Write a plan of five subtasks for every episode."""
    spans = [
        {"start_frame": n, "end_frame": n + 1, "start_s": n / 10, "end_s": (n + 1) / 10}
        for n in range(5)
    ]
    content = {"format": 1, "stage": "plan", "dataset": "many", "persistent": [], "events": []}
    content["subtasks"] = [{**span, "label": f"step {n}"} for n, span in enumerate(spans)]
    layout = Layout(results / "many")
    layout.stage_folder("plan").mkdir(parents=True)
    for index in range(count):
        text = json.dumps({**content, "episode_index": index})
        layout.stage_file("plan", index).write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--finished", action="store_true", help="all plans exist")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cuesheet-estimate-") as name:
        folder = Path(name)
        dataset = many_episodes(folder / "many", given.episodes, with_rows=False)
        if given.finished:
            write_plans(folder / "results", given.episodes)
        command = [sys.executable, "-m", "cuesheet.app.cli", "estimate", "--dataset", str(dataset)]
        used = measuring.whole_process([*command, "--results", str(folder / "results")])
    print({name: round(value, 2) for name, value in used.items()})
    target = Target("CPU seconds of the estimate", used["cpu_s"], AT_MOST_S, at_most=True)
    measuring.publish("estimate_time", [target], {"episodes": given.episodes, **used}, given.json)


if __name__ == "__main__":
    main()
