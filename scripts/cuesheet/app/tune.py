"""Try a grid of settings on episodes with reference segments, and print the best settings.

CONFIG.yaml holds settings as for a run, and a section `tune`:

    tune:
      reference: truth.json          # or `corrections`: the corrected episodes of the dataset
      grid:                          # every combination is one variant
        plan.second_look: [false, true]
        plan.relabel: ["off", span]
        prompts_dir: [config/prompts, my/prompts]

All variants run one after the other in one folder with one response cache, so frames are decoded
once and requests that variants share are sent once. Only the plan is made, unless the grid has
other stages. Corrections are not applied.
"""

import argparse
import itertools
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cuesheet.app.estimate_cli import REPOSITORY
from cuesheet.app.settings_file import read_settings
from cuesheet.artifacts.layout import RESULTS, Layout, is_episode_name
from cuesheet.artifacts.stage_files import Call, read_stage_file
from cuesheet.config.load import load_config
from cuesheet.errors import CuesheetError
from cuesheet.evaluation.metrics import METRICS
from cuesheet.evaluation.references import Reference, read_reference
from cuesheet.evaluation.scores import evaluate
from cuesheet.evaluation.segments import Segment
from cuesheet.text import counted
from cuesheet.workflow.load import load_run, read_corrections
from cuesheet.workflow.run_dataset import RunDataset

DEFAULT_SCORE = "segment.0.5.f1"
MAX_VARIANTS = 200
_KEYS = ("reference", "grid", "score")
_EXAMPLE = "tune: {reference: truth.json, grid: {plan.relabel: ['off', span]}}"


@dataclass(frozen=True)
class Tuning:
    """The settings of all variants, and what distinguishes each one."""

    settings: dict[str, Any]
    variants: list[dict[str, Any]]  # by dotted key
    reference: str
    score: str


@dataclass(frozen=True)
class Outcome:
    """What one variant cost. Tokens are those of all its requests, also of cached ones."""

    results: Path
    seconds: float
    requests: int
    sent: int
    prompt_tokens: int
    completion_tokens: int


def read_tuning(path: Path) -> Tuning:
    """Read a configuration with a section `tune`.

    Raises:
        CuesheetError: a setting of a variant is invalid; one line per problem.
    """
    settings = read_settings(path)
    tune = settings.pop("tune", None)
    if not isinstance(tune, dict) or not isinstance(tune.get("grid"), dict) or not tune["grid"]:
        raise CuesheetError(f"{path} has no section tune with a grid of settings; add {_EXAMPLE}")
    unknown = sorted(set(tune) - set(_KEYS))
    if unknown:
        raise CuesheetError(f"tune.{unknown[0]}: there is no such key; it has {', '.join(_KEYS)}")
    if not isinstance(tune.get("reference"), str):
        raise CuesheetError(
            "tune.reference: expected a file of reference segments, or `corrections` for the "
            "corrected episodes"
        )
    score = tune.get("score", DEFAULT_SCORE)
    scores = [metric.key for metric in METRICS if metric.title]
    if score not in scores:
        raise CuesheetError(f"tune.score: found {score!r}, expected one of {', '.join(scores)}")
    for key, values in tune["grid"].items():
        if not isinstance(values, list) or not values:
            raise CuesheetError(f"tune.grid.{key}: expected a list of values, such as [1, 2]")
    count = math.prod(len(values) for values in tune["grid"].values())
    if count > MAX_VARIANTS:
        raise CuesheetError(f"tune.grid has {count} combinations; at most {MAX_VARIANTS}")
    variants = [
        dict(zip(tune["grid"], combination, strict=True))
        for combination in itertools.product(*tune["grid"].values())
    ]
    for variant in variants:
        load_config(with_values(settings, variant))
    return Tuning(settings, variants, tune["reference"], score)


def with_values(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of nested settings with the values of dotted keys, such as `plan.relabel`."""
    changed: dict[str, Any] = json.loads(json.dumps(settings))
    for key, value in values.items():
        *sections, name = key.split(".")
        place = changed
        for section in sections:
            inner = place.get(section)
            place[section] = inner if isinstance(inner, dict) else {}
            place = place[section]
        place[name] = value
    return changed


def tune(tuning: Tuning, folder: Path, cores: int) -> str:
    """Run and score every variant in `folder`; return the table and the best settings.

    Raises:
        CuesheetError: the configuration is wrong, or a run failed.
    """
    settings = _absolute(tuning.settings)
    run = load_run(settings, REPOSITORY)
    if len(run.datasets) != 1:
        raise CuesheetError(
            f"config: dataset: found {len(run.datasets)} datasets, expected one to tune for"
        )
    dataset = next(iter(run.datasets.values()))
    reference = _reference(tuning.reference, settings, dataset)
    episodes = [index for index in dataset.selected if reference.segments.get(index)]
    if not episodes:
        raise CuesheetError(f"tune.reference: {tuning.reference} has none of the chosen episodes")
    wanted = {key.partition(".")[0] for variant in tuning.variants for key in variant}
    fixed: dict[str, Any] = {
        "episodes": episodes,
        "corrections_dir": str((folder / "no_corrections").resolve()),
        "vlm.cache_dir": str((folder / "cache").resolve()),
        "evaluate.reference": None,
        "cluster.shards": "never",
        **{f"{stage}.enabled": False for stage in ("vqa", "interjections") if stage not in wanted},
    }
    outcomes = []
    for number, variant in enumerate(tuning.variants, 1):
        print(f"variant {number} of {len(tuning.variants)}: {_words(variant)}", flush=True)
        changed = _absolute(with_values(with_values(settings, variant), fixed))
        outcomes.append(_run(changed, folder, f"{number:03d}", dataset.name, cores))
    scores = evaluate([outcome.results for outcome in outcomes], reference, only_annotated=True)
    return _as_text(tuning, outcomes, scores, settings)


def _absolute(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with the folders that they name relative to here made absolute."""
    changed = json.loads(json.dumps(settings))
    for key in ("dataset", "prompts_dir", "corrections_dir"):
        value = changed.get(key)
        if isinstance(value, str) and Path(value).expanduser().exists():
            changed[key] = str(Path(value).expanduser().resolve())
    return changed


def _reference(given: str, settings: dict[str, Any], dataset: RunDataset) -> Reference:
    """Return the reference segments: of a file, or of the corrected episodes."""
    if given != "corrections":
        return read_reference(Path(given).expanduser())
    root = Path(load_config(settings).corrections_dir).expanduser() / dataset.name
    segments = {}
    for index, correction in read_corrections(root, dataset.source).items():
        spans = correction.subtasks or []
        end_s = dataset.episode(index).length / dataset.source.fps
        ends = [*(span.start_s for span in spans[1:]), end_s]
        segments[index] = [
            Segment(span.start_s, end, span.label) for span, end in zip(spans, ends, strict=True)
        ]
    if not any(segments.values()):
        raise CuesheetError(f"tune.reference: no correction in {root} has subtasks")
    return Reference(segments)


def _run(settings: dict[str, Any], folder: Path, name: str, dataset: str, cores: int) -> Outcome:
    """Run the annotation of one variant and copy its files to variants/{name}/{dataset}."""
    (folder / "config").mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(settings, sort_keys=False)
    (folder / "config" / "config.yaml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(folder), "--cores", str(cores), "annotations"]
    started = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    seconds = time.monotonic() - started
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise CuesheetError(f"variant {name} failed; its settings are in {folder}/config:\n{last}")
    source = folder / RESULTS / dataset
    target = folder / "variants" / name / dataset
    shutil.rmtree(target.parent, ignore_errors=True)
    ignored = shutil.ignore_patterns("*.png", "clips", "annotated", "logs", "benchmarks", "failed")
    shutil.copytree(source, target, ignore=ignored)
    shutil.copy(folder / "config" / "config.yaml", target.parent / "config.yaml")
    return _cost(target, seconds)


def _cost(results: Path, seconds: float) -> Outcome:
    calls: list[Call] = []
    for path in sorted(Layout(results).stage_folder("plan").glob("*.json")):
        if is_episode_name(path.stem):
            calls += read_stage_file(path, "plan").provenance.calls
    return Outcome(
        results,
        seconds,
        len(calls),
        sum(not call.cache_hit for call in calls),
        sum(call.prompt_tokens or 0 for call in calls),
        sum(call.completion_tokens or 0 for call in calls),
    )


def _as_text(
    tuning: Tuning,
    outcomes: Sequence[Outcome],
    scores: Mapping[str, Any],
    settings: dict[str, Any],
) -> str:
    report = load_config(settings).report
    metric = next(metric for metric in METRICS if metric.key == tuning.score)
    rows, values = [], []
    for variant, outcome, system in zip(tuning.variants, outcomes, scores["systems"], strict=True):
        value = metric.of(system)
        values.append(value)
        interval = system["intervals"].get(tuning.score)
        row = {
            **{key: _show(item) for key, item in variant.items()},
            "score": "none" if value is None else f"{value:.3f}",
            "95 % interval": f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "",
            "requests": f"{outcome.requests:,}",
            "sent": f"{outcome.sent:,}",
            "prompt tokens": f"{outcome.prompt_tokens:,}",
            "reply tokens": f"{outcome.completion_tokens:,}",
            "seconds": f"{outcome.seconds:.0f}",
        }
        if report.price_prompt is not None or report.price_completion is not None:
            cost = outcome.prompt_tokens * (report.price_prompt or 0)
            cost += outcome.completion_tokens * (report.price_completion or 0)
            row["cost"] = f"{cost / 1e6:,.4f} {report.currency}"
        rows.append(row)
    known = [number for number, value in enumerate(values) if value is not None]
    # Of equal scores, the cheapest variant.
    best = max(known, key=lambda n: (values[n], -outcomes[n].prompt_tokens), default=0)
    nested = with_values({}, tuning.variants[best])
    table = pd.DataFrame(rows, index=[outcome.results.parent.name for outcome in outcomes])
    lines = [
        f"{counted(len(scores['episodes']), 'episode')}; score: {tuning.score}",
        "",
        table.add_prefix(" ").to_string(),
        "",
        f"Best: {outcomes[best].results.parent.name}. Its settings:",
        "",
        yaml.safe_dump(nested, sort_keys=False).rstrip(),
    ]
    return "\n".join(lines)


def _words(variant: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {_show(value)}" for key, value in variant.items())


def _show(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="cuesheet tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="settings and grid")
    parser.add_argument(
        "--folder", type=Path, default=Path("tune"), help="folder of the runs (default: tune)"
    )
    parser.add_argument("--cores", type=int, default=4, help="cores of a run (default: 4)")
    given = parser.parse_args(arguments)
    print(tune(read_tuning(given.config), given.folder, given.cores))
