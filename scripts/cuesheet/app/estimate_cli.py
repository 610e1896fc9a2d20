"""`cuesheet estimate [CONFIG]`: what a run costs, before it starts."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cuesheet.app.estimate_text import as_table
from cuesheet.app.settings_file import read_settings
from cuesheet.artifacts.layout import RESULTS
from cuesheet.errors import CuesheetError
from cuesheet.workflow.estimate import estimate_run
from cuesheet.workflow.load import load_run

REPOSITORY = Path(__file__).resolve().parents[3]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="cuesheet estimate",
        description="Estimate requests, tokens, disk, time and cost of a run before it starts.",
    )
    parser.add_argument("config", type=Path, nargs="?", help="file with settings (--configfile)")
    parser.add_argument("--dataset", help="dataset, if the settings do not name it")
    parser.add_argument("--results", type=Path, default=RESULTS, help="results folder")
    given = parser.parse_args(arguments)
    try:
        if given.config and given.config.is_dir():
            raise CuesheetError(
                f"{given.config} is a folder; expected a YAML file with settings. To name a "
                f"dataset: cuesheet estimate --dataset {given.config}"
            )
        settings = read_settings(given.config)
        if given.dataset:
            settings["dataset"] = given.dataset
        run = load_run(settings, REPOSITORY, results_root=given.results)
        print("\n\n".join(as_table(estimate, run) for estimate in estimate_run(run)))
    except CuesheetError as error:
        print(f"cuesheet estimate: {error}", file=sys.stderr)
        return 1
    return 0
