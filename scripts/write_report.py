"""Writes the report on one dataset.

In: the stage files, keyframes and validation files of its result folder, the prompt files, and its
scores, if it has any. Out: one HTML file that needs no network, and prompts/ with the prompts that
the run used. Times are in seconds.
"""

import json
from functools import partial
from pathlib import Path

from tqdm import tqdm

from cuesheet import files, job_log
from cuesheet.config.report import ReportConfig
from cuesheet.report.data import gather
from cuesheet.report.evidence import evidence_entries
from cuesheet.report.html import prompt_texts, render, store_prompts


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]):
        params = snakemake.params
        results = Path(params.results)
        data = gather(results, params.selected, partial(tqdm, unit="episode", mininterval=2))
        store_prompts(results, data, Path(params.prompts_dir))
        evaluations = snakemake.input.get("evaluation")  # a list of at most one file
        scores = (
            json.loads(Path(evaluations[0]).read_text(encoding="utf-8")) if evaluations else None
        )
        summary = json.loads(Path(snakemake.input.summary).read_text(encoding="utf-8"))
        page = render(
            data,
            ReportConfig(**params.report),
            prompt_texts(results, data),
            scores,
            evidence_entries(summary),
            summary["vocabulary"],
        )
        files.write_text(snakemake.output.html, page)


if "snakemake" in globals():
    main(snakemake)
