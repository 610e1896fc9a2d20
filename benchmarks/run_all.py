"""Runs all benchmarks and draws their results in one figure.

    python benchmarks/run_all.py [--out results/benchmarks] [--dataset FOLDER] [--draw-only]

Each benchmark writes its JSON file to the folder `--out`. `benchmarks.svg` next to them shows every
ratio against its target on a logarithmic scale: targets right of the line are reached.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BENCHMARKS = ("media", "merge", "server_fill", "overhead", "graph", "prompt_tokens")


def score(target: dict[str, Any]) -> float | None:
    """Return the ratio to the target: 1 if it is just reached; None for a count that must be 0."""
    if "at_most" in target:
        return target["at_most"] / target["value"] if target["at_most"] else None
    return target["value"] / target["at_least"]


def draw(folder: Path) -> Path:
    """Draw the targets of all JSON files in `folder`."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    rows = [
        (target, reached)
        for result in found
        for target in result["targets"]
        if (reached := score(target))
    ]
    figure, axes = pyplot.subplots(figsize=(9, 0.28 * len(rows) + 1.2), layout="constrained")
    for position, (target, reached) in enumerate(reversed(rows)):
        color = "#2a7f62" if reached >= 1 else "#c0392b"
        axes.barh(position, reached - 1, left=1, color=color, height=0.7)
        axes.text(
            max(reached, 1) * 1.03, position, f"{target['value']:.3g}", va="center", fontsize=8
        )
    axes.set_yticks(range(len(rows)), [target["name"] for target, _ in reversed(rows)], fontsize=8)
    axes.set_xscale("log")
    marks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    low, high = axes.get_xlim()
    axes.set_xticks([mark for mark in marks if low <= mark <= high], minor=False)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times the target (right of the line: reached); the number is the value itself")
    axes.margins(x=0.12, y=0.01)
    path = folder / "benchmarks.svg"
    figure.savefig(path, metadata={"Date": None})
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--dataset", type=Path, help="for overhead.py, such as dev_v3")
    parser.add_argument("--draw-only", action="store_true", help="of the JSON files in --out")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in () if options.draw_only else BENCHMARKS:
        command = [sys.executable, str(HERE / f"{name}.py")]
        command += ["--json", str(options.out / f"{name}.json")]
        if name == "overhead" and options.dataset:
            command += ["--dataset", str(options.dataset)]
        print(f"\n== {name}", flush=True)
        if subprocess.run(command).returncode:
            failed.append(name)
    print(f"\n{draw(options.out)}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
