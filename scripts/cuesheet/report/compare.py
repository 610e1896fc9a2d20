"""Compare runs on the same episodes in one HTML page.

The page needs no network. It shows the model, requests and tokens of each run, the agreement of
each pair of runs, the scores of all runs if there is a reference, the differences of their prompts,
and the timelines of every episode, with the lowest agreement first.
"""

import argparse
import difflib
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuesheet.errors import CuesheetError
from cuesheet.evaluation.labels import first_verb
from cuesheet.evaluation.references import Reference, read_reference, read_results
from cuesheet.evaluation.scores import (
    SAME_LABEL_TOKEN_F1,
    System,
    evaluate,
    run_names,
    same_label,
    score_system,
)
from cuesheet.evaluation.table import score_frame
from cuesheet.files import write_text
from cuesheet.report.data import COLORS, ReportData, gather, verb_colors
from cuesheet.report.html import prompt_texts, render_page, score_table, total_calls

_MAX_TIMELINES = 300  # episodes


def compare(runs: Sequence[Path], reference: Reference | None = None) -> str:
    """Return the page as text.

    Raises:
        CuesheetError: fewer than two runs, no episode is in all runs, or a file is broken.
    """
    if len(runs) < 2:
        raise CuesheetError("a comparison needs at least two result folders")
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
    by_episode: defaultdict[int, float] = defaultdict(float)
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
            "lines": [
                (system.name, [(p.start_s, p.end_s, p.text) for p in system.segments[index]])
                for system in systems
            ],
        }
        for index in sorted(common, key=lambda index: (by_episode[index], index))
    ]
    colors = verb_colors(sum((data.verbs for data in gathered), Counter()))
    scores = evaluate(runs, reference, only_annotated=True) if reference else None
    return render_page(
        "compare.html.j2",
        names=names,
        facts=_facts(gathered),
        prompts=_prompt_differences(names, runs, gathered),
        agreement=agreement,
        scores=score_table(scores) if scores else None,
        episodes=episodes[:_MAX_TIMELINES],
        total=len(episodes),
        left_out=len(everything - common),
        color_of=lambda label: colors.get(first_verb(label), COLORS - 1),
    )


def _agreement(found: Mapping[str, Any]) -> list[str]:
    """Return four scores of one run against another as text, with their intervals."""
    table = score_frame({"systems": [found]})[found["name"]]
    titles = (
        *("segment F1 at IoU 0.5", "boundary F1 within 0.5 s"),
        *("frame accuracy (without labels)", "label token F1"),
    )
    return [table[title] for title in titles]


def _prompt_differences(
    names: Sequence[str], runs: Sequence[Path], gathered: Sequence[ReportData]
) -> list[tuple[str, str, list[str] | None]]:
    """Return how the prompts of each run differ from those of the first run.

    Returns:
        (prompt, run, lines of a unified diff) per prompt and run that differ. The lines are None if
        a text is not stored, which is the case for runs without a report.
    """
    first, *others = [prompt_texts(run, data) for run, data in zip(runs, gathered, strict=True)]
    found = []
    for run, texts in zip(names[1:], others, strict=True):
        for name in sorted({*first, *texts}):
            before, after = first.get(name, {}), texts.get(name, {})
            if before.keys() == after.keys():
                continue
            found.append((name, run, _diff(_lines(before), _lines(after))))
    return found


def _lines(texts: Mapping[str, str | None]) -> list[str] | None:
    """Return the lines of all texts that a run used of a prompt; None if one is not stored."""
    known = [text for text in texts.values() if text is not None]
    return "".join(known).splitlines() if len(known) == len(texts) else None


def _diff(old: list[str] | None, new: list[str] | None) -> list[str] | None:
    """Return the changed lines with some context; None if either is not known."""
    if old is None or new is None:
        return None
    return list(difflib.unified_diff(old, new, n=2, lineterm=""))[2:]


def _facts(gathered: Sequence[ReportData]) -> list[tuple[str, list[str]]]:
    """Return what each run used and produced: (title, one cell per run)."""
    facts = [_facts_of(data) for data in gathered]
    return [(title, [one[title] for one in facts]) for title in facts[0]]


def _facts_of(data: ReportData) -> dict[str, str]:
    calls = total_calls(data)
    return {
        "model": ", ".join(sorted(name for name, _ in data.models)),
        "episodes": f"{data.annotated:,}",
        "subtasks": f"{len(data.subtask_lengths_s):,}",
        "warnings": f"{sum(map(len, data.warnings.values())):,}",
        "calls": f"{calls.total:,}",
        "from the cache": f"{calls.cache_hits:,}",
        "invalid": f"{len(data.invalid):,}",
        "tokens in": f"{calls.prompt_tokens:,}",
        "tokens out": f"{calls.completion_tokens:,}",
        "server seconds": f"{sum(calls.latencies_s):,.1f}",
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="cuesheet compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "results", type=Path, nargs="+", metavar="RESULTS", help="result folder, results/DATASET"
    )
    parser.add_argument(
        "--reference",
        type=Path,
        help="also score the runs against this file or result folder, as cuesheet evaluate does",
    )
    parser.add_argument(
        "--to",
        type=Path,
        default=Path("compare.html"),
        metavar="FILE",
        help="HTML file to write (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    reference = read_reference(options.reference) if options.reference else None
    page = compare(options.results, reference)
    try:
        write_text(options.to, page)
    except OSError as error:
        raise CuesheetError(f"cannot write {options.to}: {error.strerror}") from None
    print(options.to)
