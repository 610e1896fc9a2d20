"""Hold runs on the same episodes side by side: `cuesheet compare RESULTS RESULTS...`.

Writes one HTML file that needs no network: what each run took, how far they agree, how they score
where there is a reference, and every episode's timelines, those they agree least on first.
"""

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cuesheet.errors import CuesheetError
from cuesheet.evaluation.references import Reference, read_reference, read_results
from cuesheet.evaluation.scores import (
    SAME_LABEL_TOKEN_F1,
    System,
    evaluate,
    run_names,
    same_label,
    score_system,
)
from cuesheet.files import write_text
from cuesheet.report.data import ReportData, gather, verb
from cuesheet.report.html import COLORS, PAGES, score_table, total_calls

_MOST_SHOWN = 300  # episodes with their timelines


def compare(runs: Sequence[Path], reference: Reference | None = None) -> str:
    """The page as text.

    Raises:
        CuesheetError: fewer than two runs, no episode that all have, or a broken file.
    """
    if len(runs) < 2:
        raise CuesheetError("a comparison needs two result folders or more")
    names = run_names(runs)
    systems = [
        System(name, read_results(run).segments) for name, run in zip(names, runs, strict=True)
    ]
    common = set.intersection(*(set(system.segments) for system in systems))
    if not common:
        raise CuesheetError(f"{', '.join(names)} have no annotated episode in common")
    everything = set.union(*(set(system.segments) for system in systems))
    gathered = [gather(run, []) for run in runs]
    agreement = []
    by_episode: Counter[int] = Counter()
    for first, second in itertools.combinations(systems, 2):
        found = score_system(
            second, Reference(first.segments), common, same_label(SAME_LABEL_TOKEN_F1)
        )
        agreement.append((first.name, second.name, _agreement(found)))
        for index, scores in found["by_episode"].items():
            by_episode[int(index)] += scores["frame_accuracy"] or 0.0
    tasks = {line.episode_index: line.task for line in gathered[0].timelines}
    episodes = [
        {
            "index": index,
            "task": tasks.get(index, ""),
            "agreement": by_episode[index] / len(agreement),
            "end_s": max((p.end_s for s in systems for p in s.segments[index]), default=1.0),
            "lines": [(system.name, system.segments[index]) for system in systems],
        }
        for index in sorted(common, key=lambda index: (by_episode[index], index))
    ]
    verbs = sum((data.verbs for data in gathered), Counter())
    colors = {word: color for color, (word, _) in enumerate(verbs.most_common(COLORS - 1))}
    scores = evaluate(runs, reference, only_annotated=True) if reference else None
    environment = Environment(
        loader=FileSystemLoader(PAGES), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("compare.html.j2").render(
        css=(PAGES / "theme.css").read_text() + (PAGES / "report.css").read_text(),
        names=names,
        facts=_facts(gathered),
        agreement=agreement,
        scores=score_table(scores) if scores else None,
        episodes=episodes[:_MOST_SHOWN],
        total=len(episodes),
        left_out=len(everything - common),
        color_of=lambda label: colors.get(verb(label), COLORS - 1),
    )


def _agreement(found: Mapping[str, Any]) -> list[str]:
    values = [
        found["segment"]["0.5"]["f1"],
        found["boundary"]["0.5"]["f1"],
        found["frame_accuracy"],
        found["labels"]["token_f1"],
    ]
    return ["–" if value is None else f"{value:.3f}" for value in values]


def _facts(gathered: Sequence[ReportData]) -> list[tuple[str, list[str]]]:
    """What each run took and made, a row a fact."""
    calls = [total_calls(data) for data in gathered]
    return [
        ("model", [", ".join(sorted(name for name, _ in data.models)) for data in gathered]),
        ("episodes", [f"{data.annotated:,}" for data in gathered]),
        ("subtasks", [f"{len(data.subtask_lengths_s):,}" for data in gathered]),
        ("warnings", [f"{sum(map(len, data.warnings.values())):,}" for data in gathered]),
        ("calls", [f"{tally.total:,}" for tally in calls]),
        ("from the cache", [f"{tally.cache_hits:,}" for tally in calls]),
        ("invalid", [f"{len(data.invalid):,}" for data in gathered]),
        ("tokens in", [f"{tally.prompt_tokens:,}" for tally in calls]),
        ("tokens out", [f"{tally.completion_tokens:,}" for tally in calls]),
        ("server seconds", [f"{sum(tally.latencies_s):,.1f}" for tally in calls]),
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="cuesheet compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, nargs="+", help="result folders of the runs")
    parser.add_argument(
        "--reference", type=Path, help="also score them, as cuesheet.app.evaluate does"
    )
    parser.add_argument("--to", type=Path, default=Path("compare.html"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    try:
        reference = read_reference(options.reference) if options.reference else None
        write_text(options.to, compare(options.results, reference))
    except CuesheetError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    print(options.to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
