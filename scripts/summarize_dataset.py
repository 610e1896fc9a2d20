"""Writes the summary of one dataset.

In: the finished dataset and its annotation and validation files. Out: the summary as JSON and as
text: location of the dataset, episodes, rows by style, calls, tokens, model, warnings.
"""

from pathlib import Path

from cuesheet import files, job_log
from cuesheet.artifacts.layout import Layout
from cuesheet.dataset.index_state import read_notices
from cuesheet.dataset.metadata import read_dataset
from cuesheet.report.summary import as_text, summarize


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]):
        results = Path(snakemake.params.results)
        layout = Layout(results)
        annotated = read_dataset(layout.annotated, layout.dataset)
        summary = summarize(
            results,
            [episode.episode_index for episode in annotated.episodes],
            snakemake.params.get("left_out") or (),
            snakemake.params.get("kept") or (),
            read_notices(layout.index),
        )
        print(as_text(summary))
        files.write_json(snakemake.output.json, summary)
        files.write_text(snakemake.output.text, as_text(summary))


if "snakemake" in globals():
    main(snakemake)
