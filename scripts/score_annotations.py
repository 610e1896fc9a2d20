"""Scores the annotations of one dataset against its reference.

In: stage files, clips (for the motion split) and the reference. Out: the scores as JSON, as a table
and as a plot. Definitions: docs/evaluation.md. Times are seconds, boxes and points pixels.
"""

from pathlib import Path

from cuesheet import files, joblog
from cuesheet.evaluation import evaluate
from cuesheet.evaluation_references import read_reference
from cuesheet.evaluation_text import as_text, write_plot


def main(snakemake) -> None:
    with joblog.to_file(snakemake.log[0]):
        settings = snakemake.params.evaluate
        scores = evaluate(
            [Path(snakemake.params.results)],
            read_reference(Path(snakemake.input.reference)),
            baselines=settings["baselines"],
            token_f1_threshold=settings["same_label_token_f1"],
            ignored_boxes=settings["ignore_boxes"],
        )
        print(as_text(scores))
        write_plot(scores, Path(snakemake.output.plot))
        files.write_text(snakemake.output.text, as_text(scores))
        files.write_json(snakemake.output.json, scores)


if "snakemake" in globals():
    main(snakemake)
