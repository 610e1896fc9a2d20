"""Score the annotations of a run against reference segments.

RESULTS is the result folder of a run (results/DATASET). Several runs are scored side by side on the
same episodes. The reference is a JSON, CSV or Parquet file of segments (episode, start_s, end_s,
text), the Parquet file of WGO-Bench, or the result folder of another run, which gives the agreement
of the two. docs/evaluation.md defines the scores and the file layouts.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from cuesheet.errors import CuesheetError
from cuesheet.evaluation.baselines import BASELINES
from cuesheet.evaluation.granularity import Granularity, Side
from cuesheet.evaluation.references import read_reference
from cuesheet.evaluation.scores import SAME_LABEL_TOKEN_F1, evaluate
from cuesheet.evaluation.table import as_text, write_plot
from cuesheet.files import write_json


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    report = evaluate(
        options.results,
        read_reference(options.reference),
        baselines=options.baseline,
        token_f1_threshold=options.token_f1,
        only_annotated=options.only_annotated,
        ignored_boxes=options.ignore_box,
        granularity=Granularity(parse_folds(options.fold), parse_mapping(options.map)),
    )
    try:
        if options.plot:
            write_plot(report, options.plot)
        if options.json and options.json != "-":
            write_json(options.json, report)
    except (OSError, ValueError) as error:  # a full disk, or a plot format that does not exist
        raise CuesheetError(f"cannot write the scores: {error}") from None
    print(json.dumps(report, indent=2) if options.json == "-" else as_text(report).rstrip("\n"))


def parse_folds(entries: Sequence[str]) -> dict[str, Side]:
    """Parse LABEL or LABEL=SIDE. Raises CuesheetError for another side than previous or next."""
    sides: dict[str, Side] = {}
    for entry in entries:
        label, _, side = entry.partition("=")
        if side not in ("", "previous", "next"):
            raise CuesheetError(f"--fold {entry}: expected LABEL=previous or LABEL=next")
        sides[label] = "next" if side == "next" else "previous"
    return sides


def parse_mapping(entries: Sequence[str]) -> dict[str, str]:
    """Parse LABEL=NEW. Raises CuesheetError if the new label is missing."""
    mapping = {}
    for entry in entries:
        label, _, new = entry.partition("=")
        if not label or not new:
            raise CuesheetError(f"--map {entry}: expected LABEL=NEW, such as approach=pick")
        mapping[label] = new
    return mapping


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cuesheet evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: cuesheet evaluate results/demo_v3 --reference truth.json "
        "--baseline uniform --fold idle",
    )
    parser.add_argument(
        "results", type=Path, nargs="+", metavar="RESULTS", help="result folder, results/DATASET"
    )
    parser.add_argument(
        "--reference", type=Path, required=True, help="file or result folder to compare with"
    )
    _add_scoring_options(parser)
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="also write the scores as JSON to FILE; - prints JSON instead of the table",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="plot the scores (svg, png, pdf)")
    return parser


def _add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select and change what is scored."""
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        choices=BASELINES,
        help="also score this baseline, with as many segments per episode (can be repeated)",
    )
    parser.add_argument(
        "--fold",
        action="append",
        default=[],
        metavar="LABEL[=SIDE]",
        help="merge reference segments of this label into the previous segment, or into the next "
        "one with =next (can be repeated)",
    )
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="LABEL=NEW",
        help="rename this reference label; consecutive segments with the same new label are merged "
        "(can be repeated)",
    )
    parser.add_argument(
        "--token-f1",
        type=float,
        default=SAME_LABEL_TOKEN_F1,
        help="minimum token F1 of labels that mean the same (default: %(default)s)",
    )
    parser.add_argument(
        "--only-annotated",
        action="store_true",
        help="leave out reference episodes that are not annotated; by default, they count as "
        "episodes without any predicted segment",
    )
    parser.add_argument(
        "--ignore-box",
        action="append",
        default=[],
        metavar="NAME",
        help="ignore reference boxes of this name (can be repeated)",
    )
