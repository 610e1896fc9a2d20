"""Measures how long `cuesheet estimate` takes for many episodes.

    python benchmarks/estimate_time.py [--episodes 10000] [--finished] [--cached] [--json FILE]

With `--finished`, the plan of every episode exists, so the estimate reads all of them. With
`--cached`, the response cache has 20 responses per episode, which the estimate looks up.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import measuring
from datasets import many_episodes
from measuring import REPOSITORY, Target

from cuesheet.artifacts.layout import Layout
from cuesheet.serving.response_cache import ResponseCache
from cuesheet.workflow.load import load_run

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


def write_cache(settings: dict[str, Any], results: Path, count: int) -> None:
    """Note 20 responses per episode, as an earlier run does. Their content is not parsed."""
    run = load_run(settings, REPOSITORY, results_root=results)
    recipe = run.recipes(run.dataset("many"))["vqa"]
    cache = ResponseCache(settings["vlm"]["cache_dir"])
    folder = cache.folder / "requests" / recipe
    folder.mkdir(parents=True)
    for index in range(count):
        keys = [hashlib.sha256(f"{index} {n}".encode()).hexdigest() for n in range(20)]
        (folder / f"{index:06d}.txt").write_text("".join(f"{key}\n" for key in keys))
        for path in map(cache.path, keys):
            path.parent.mkdir(exist_ok=True)
            path.write_text('{\n  "reply": {}\n}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--finished", action="store_true", help="all plans exist")
    parser.add_argument("--cached", action="store_true", help="the cache has responses")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cuesheet-estimate-") as name:
        folder = Path(name)
        dataset = many_episodes(folder / "many", given.episodes, with_rows=False)
        if given.finished:
            write_plans(folder / "results", given.episodes)
        settings = {"dataset": str(dataset), "vlm": {"cache_dir": str(folder / "cache")}}
        if given.cached:
            write_cache(settings, folder / "results", given.episodes)
        (folder / "settings.json").write_text(json.dumps(settings))
        command = [sys.executable, "-m", "cuesheet.app.cli", "estimate"]
        command.append(str(folder / "settings.json"))
        used = measuring.whole_process([*command, "--results", str(folder / "results")])
    print({name: round(value, 2) for name, value in used.items()})
    target = Target("CPU seconds of the estimate", used["cpu_s"], AT_MOST_S, at_most=True)
    measuring.publish("estimate_time", [target], {"episodes": given.episodes, **used}, given.json)


if __name__ == "__main__":
    main()
