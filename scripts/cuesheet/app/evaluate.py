"""Score a run's annotations: `cuesheet evaluate RESULTS... --reference FILE`.

RESULTS is the result folder of a run (results/DATASET); several are scored side by side on the same
episodes. The reference is a JSON, CSV or parquet file of segments (episode, start_s, end_s, text),
a parquet file of the layout of WGO-Bench, or another result folder, which gives their agreement.
Definitions and layouts: docs/evaluation.md.
"""

import argparse
import json
import sys
from pathlib import Path

from cuesheet.errors import CuesheetError
from cuesheet.evaluation.baselines import BASELINES
from cuesheet.evaluation.references import read_reference
from cuesheet.evaluation.scores import SAME_LABEL_TOKEN_F1, evaluate
from cuesheet.evaluation.table import as_text, write_plot
from cuesheet.files import write_json


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="cuesheet evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, nargs="+", help="result folders, e.g. results/demo")
    parser.add_argument("--reference", type=Path, required=True, help="what is right")
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        choices=BASELINES,
        help="also score this guess, with as many segments an episode (may be repeated)",
    )
    parser.add_argument(
        "--token-f1",
        type=float,
        default=SAME_LABEL_TOKEN_F1,
        help="labels mean the same from this token F1 on (default: %(default)s)",
    )
    parser.add_argument(
        "--only-annotated",
        action="store_true",
        help="leave out reference episodes without annotation; else they count as not found",
    )
    parser.add_argument(
        "--ignore-box",
        action="append",
        default=[],
        metavar="NAME",
        help="reference boxes of this name do not count (may be repeated)",
    )
    parser.add_argument("--json", help="write the scores here; - prints them instead of the table")
    parser.add_argument("--plot", type=Path, help="draw the scores (.svg, .png, .pdf)")
    options = parser.parse_args(arguments)
    try:
        report = evaluate(
            options.results,
            read_reference(options.reference),
            baselines=options.baseline,
            token_f1_threshold=options.token_f1,
            only_annotated=options.only_annotated,
            ignored_boxes=options.ignore_box,
        )
        if options.plot:
            write_plot(report, options.plot)
    except CuesheetError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    if options.json == "-":
        print(json.dumps(report, indent=2))
        return 0
    if options.json:
        write_json(options.json, report)
    print(as_text(report), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
