"""Builds the review page of one dataset.

In: the stage files, keyframes and validation files of its result folder, and its corrections.
Out: a static site, review/index.html and the files next to it. Times are in seconds.
"""

import json
from pathlib import Path

from cuesheet import files, job_log
from cuesheet.artifacts.layout import Layout
from cuesheet.report.correction_files import CorrectionFolder
from cuesheet.report.evidence import evidence_entries
from cuesheet.report.review_site import build_site
from cuesheet.text import counted


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]):
        params = snakemake.params
        results = Path(params.results)
        corrections = CorrectionFolder(Path(params.corrections), results.name, backups=results)
        summary = json.loads(Path(snakemake.input.summary).read_text(encoding="utf-8"))
        hints = [text for name, text in evidence_entries(summary) if name == "Corrections"]
        count = build_site(results, corrections, params.default_camera, hints)
        page = Layout(results).review_page
        files.declare(page, snakemake.output.page)
        print(f"{counted(count, 'episode')}: {page}")


if "snakemake" in globals():
    main(snakemake)
