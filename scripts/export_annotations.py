"""Export the annotations of one dataset as a tidy table.

In: the finished dataset. Out: annotations.parquet and annotations.jsonl, one row or line per
language row (see `cuesheet.assemble.export`). Times in seconds from the episode's start.
"""

from pathlib import Path

from cuesheet import job_log
from cuesheet.assemble.export import write_exports
from cuesheet.dataset.metadata import read_dataset


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]) as log:
        annotated = Path(snakemake.input.info).parent.parent
        dataset = read_dataset(annotated, snakemake.wildcards.dataset)
        count = write_exports(dataset, Path(snakemake.output.parquet), Path(snakemake.output.jsonl))
        log.info("%d rows of %d episodes", count, len(dataset.episodes))


if "snakemake" in globals():
    main(snakemake)
