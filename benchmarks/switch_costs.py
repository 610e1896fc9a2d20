"""Requests and prompt tokens per episode of every switch that asks the model more or less.

    python benchmarks/switch_costs.py DATASET

The stages are rehearsed without a model (as by `cuesheet estimate`), with the demo model's rule for
tokens. Nothing is decoded or sent.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cuesheet.workflow.estimate import estimate_run
from cuesheet.workflow.load import load_run

REPOSITORY = Path(__file__).resolve().parents[1]
BASE: dict[str, Any] = {"plan": {"second_look": False, "relabel": "off"}}
SWITCHES: dict[str, dict[str, Any]] = {
    "single look": BASE,
    "second look": {"plan": {**BASE["plan"], "second_look": True}},
    "relabel: span": {"plan": {**BASE["plan"], "relabel": "span"}},
    "relabel: neighbors": {"plan": {**BASE["plan"], "relabel": "neighbors"}},
    "3 label candidates": {
        "plan": {**BASE["plan"], "relabel": "span", "label_candidates": 3},
    },
    "vocabulary: auto": {"plan": {**BASE["plan"], "vocabulary": "auto"}},
    "inspection": {**BASE, "inspect": {"enabled": True}},
    "3 VQA frames per tick": {**BASE, "vqa": {"frames": 3}},
    "the same, 3 questions per request": {**BASE, "vqa": {"frames": 3, "per_call": 3}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    dataset = parser.parse_args().dataset.resolve()
    print(f"{'switch':<36}{'requests':>10}{'prompt tokens':>15}   per episode", flush=True)
    for name, settings in SWITCHES.items():
        with TemporaryDirectory() as folder:
            run = load_run(
                {"dataset": str(dataset), **settings},
                REPOSITORY,
                results_root=Path(folder),
                online=False,
            )
            (estimate,) = estimate_run(run)
        total, count = estimate.total.likely, max(1, estimate.episodes)
        tokens = total.prompt_tokens / count
        print(f"{name:<36}{total.requests / count:>10.1f}{tokens:>15,.0f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
