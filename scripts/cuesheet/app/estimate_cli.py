"""`cuesheet estimate [CONFIG]`: what a run costs, before it starts."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cuesheet.app.estimate_text import as_table
from cuesheet.artifacts.layout import RESULTS
from cuesheet.errors import CuesheetError
from cuesheet.workflow.estimate import estimate_run
from cuesheet.workflow.load import load_run

REPOSITORY = Path(__file__).resolve().parents[3]
DEFAULT_CONFIG = Path("config") / "config.yaml"


def read_config(path: Path | None, dataset: str | None) -> dict[str, Any]:
    """Return the settings of a configuration file as Snakemake would read them."""
    config: dict[str, Any] = {}
    for file in (DEFAULT_CONFIG, path):
        if file is None or (file is DEFAULT_CONFIG and not file.is_file()):
            continue
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise CuesheetError(f"the configuration {file} cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise CuesheetError(f"the configuration {file} is not a mapping of settings")
        config = _merged(config, content)
    return config | ({"dataset": dataset} if dataset else {})


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


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
        run = load_run(
            read_config(given.config, given.dataset), REPOSITORY, results_root=given.results
        )
        print("\n\n".join(as_table(estimate, run) for estimate in estimate_run(run)))
    except CuesheetError as error:
        print(f"cuesheet estimate: {error}", file=sys.stderr)
        return 1
    return 0
