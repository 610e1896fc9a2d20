"""Detect which dimensions of a dataset's state and action are arms and grippers.

In: the index; the data files of the first episodes. Out: signals/layout.json.
"""

from pathlib import Path

from cuesheet import files, job_log
from cuesheet.signals.detect import detect


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]) as log:
        layout = detect(
            Path(snakemake.params.root),
            Path(snakemake.input.index),
            snakemake.wildcards.dataset,
            **snakemake.params.signals,
        )
        files.write_json(snakemake.output.layout, layout.model_dump())
        log.info("%s", layout.describe())
        for notice in layout.notices:
            log.warning("%s", notice)


if "snakemake" in globals():
    main(snakemake)
