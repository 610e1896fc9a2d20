"""Export the annotations of one dataset as a tidy table.

In: the finished dataset, and its inspections if there are any. Out: annotations.parquet and
annotations.jsonl, one row or line per language row (see `cuesheet.assemble.export`), and
inspections.jsonl, one line per inspected episode. Times in seconds from the episode's start.
"""

from pathlib import Path

from cuesheet import job_log
from cuesheet.artifacts.layout import Layout
from cuesheet.assemble.export import write_exports, write_inspections
from cuesheet.dataset.metadata import read_dataset


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]) as log:
        annotated = Path(snakemake.input.info).parent.parent
        dataset = read_dataset(annotated, snakemake.wildcards.dataset)
        count = write_exports(dataset, Path(snakemake.output.parquet), Path(snakemake.output.jsonl))
        if snakemake.output.get("inspections"):
            write_inspections(
                Layout(Path(snakemake.params.results)),
                [episode.episode_index for episode in dataset.episodes],
                Path(snakemake.output.inspections),
            )
        log.info("%d rows of %d episodes", count, len(dataset.episodes))


if "snakemake" in globals():
    main(snakemake)
