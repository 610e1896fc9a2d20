"""Collect the labels of all subtasks of a dataset and number them.

In: the validated annotation files of all episodes, and the source's language rows of episodes that
keep them. Out: subtasks.parquet, the labels in order of their numbers (`subtask_index`).
"""

from pathlib import Path

from cuesheet import job_log
from cuesheet.assemble.subtask_numbers import collect_labels, write_table
from cuesheet.dataset.metadata import read_dataset


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]) as log:
        params = snakemake.params
        dataset = read_dataset(params.root, snakemake.wildcards.dataset)
        annotated = {*params.episodes, *params.others}
        labels = collect_labels(dataset, Path(params.results), annotated)
        write_table(Path(snakemake.output.table), labels)
        log.info("%d labels of %d annotated episodes", len(labels), len(annotated))


if "snakemake" in globals():
    main(snakemake)
