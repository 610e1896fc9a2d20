"""Writes the report on one dataset.

In: the stage files, keyframes and validation files of its result folder, and its scores if there
are any. Out: one HTML file that needs no network. Times are seconds.
"""

import functools
import json
from pathlib import Path

from tqdm import tqdm

from cuesheet import files, job_log
from cuesheet.config.report import ReportConfig
from cuesheet.report.data import gather
from cuesheet.report.evidence import evidence_entries
from cuesheet.report.html import render


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]):
        params = snakemake.params
        progress = functools.partial(tqdm, desc="episodes", unit="episode", mininterval=2.0)
        data = gather(Path(params.results), params.selected, progress)
        evaluations = snakemake.input.get("evaluation")  # a list of at most one file
        scores = (
            json.loads(Path(evaluations[0]).read_text(encoding="utf-8")) if evaluations else None
        )
        summary = json.loads(Path(snakemake.input.summary).read_text(encoding="utf-8"))
        page = render(
            data,
            ReportConfig(**params.report),
            Path(params.prompts_dir),
            scores,
            evidence_entries(summary),
        )
        files.write_text(snakemake.output.html, page)


if "snakemake" in globals():
    main(snakemake)
