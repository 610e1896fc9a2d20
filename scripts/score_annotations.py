"""Scores the annotations of one dataset against its reference.

In: stage files, clips (for the motion split), the reference, and the judge's prompts if a judge is
configured. Out: the scores as JSON, as a table and as a plot. Definitions: docs/evaluation.md.
Times are in seconds, boxes and points in pixels.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cuesheet import files, job_log
from cuesheet.artifacts.episode import read_episode
from cuesheet.artifacts.layout import Layout
from cuesheet.evaluation.granularity import Granularity
from cuesheet.evaluation.references import Reference, read_reference, read_results
from cuesheet.evaluation.scores import Verdicts, evaluate
from cuesheet.evaluation.table import as_text, write_plot


def ask_judge(
    results: Path, reference: Reference, prompts: list[str], model_settings: dict[str, Any]
) -> tuple[Verdicts, list[dict[str, Any]]]:
    """Return the verdicts of the model on labels, and the records of its calls."""
    from cuesheet.evaluation.judge import judge, questions

    predicted = read_results(results)
    tasks = {
        index: read_episode(Layout(results).keyframes(index), needs_images=False).task
        for index in predicted.segments
    }
    pending = questions(predicted, reference, tasks)
    with tqdm(total=len(pending), unit="call", mininterval=2, file=sys.stderr) as bar:
        return asyncio.run(
            judge(
                pending,
                prompts=prompts,
                model_settings=model_settings,
                results=results,
                progress=bar.update,
            )
        )


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]):
        params, settings = snakemake.params, snakemake.params.evaluate
        results = Path(params.results)
        granularity = Granularity(settings["fold"], settings["mapping"])
        reference = read_reference(Path(snakemake.input.reference))
        verdicts, calls = {}, []
        if settings["judge"]:
            prompts = list(snakemake.input.prompts)
            changed = reference.changed(granularity)
            verdicts, calls = ask_judge(results, changed, prompts, params.model_settings)
        scores = evaluate(
            [results],
            reference,
            baselines=settings["baselines"],
            token_f1_threshold=settings["same_label_token_f1"],
            verdicts=verdicts,
            ignored_boxes=settings["ignore_boxes"],
            granularity=granularity,
        )
        print(as_text(scores))
        write_plot(scores, Path(snakemake.output.plot))
        files.write_text(snakemake.output.text, as_text(scores))
        files.write_json(snakemake.output.json, {**scores, "calls": calls})


if "snakemake" in globals():
    main(snakemake)
