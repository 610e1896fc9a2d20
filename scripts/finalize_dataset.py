"""Completes the annotated dataset and checks it.

In: the source dataset and the merged data files. Out: `annotated/`: metadata copied and extended,
videos linked or copied (params.videos), other files of the source. With params.relay the source is
of format v2.1 and the output of v3.0: all is laid out anew. Then every file is opened and compared
with the source.
"""

import functools
from pathlib import Path

from tqdm import tqdm

from cuesheet import files, job_log
from cuesheet.artifacts.layout import Layout
from cuesheet.assemble.finalize import finalize_dataset
from cuesheet.assemble.verify import check_dataset
from cuesheet.dataset.metadata import read_dataset


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]) as log:
        layout = Layout(Path(snakemake.params.results))
        annotated, info = layout.annotated, layout.annotated_info
        dataset = read_dataset(snakemake.params.root, snakemake.wildcards.dataset)
        if snakemake.params.relay:
            from cuesheet.assemble.convert_v21 import relay_dataset  # imports a video library

            relay_dataset(dataset, layout.merged, annotated)
        else:
            placed = finalize_dataset(
                dataset,
                annotated,
                snakemake.params.videos,
                functools.partial(tqdm, desc="files", unit="file", mininterval=2.0),
            )
            for notice in placed.notices:
                log.warning(notice)
            log.info("files: %s", ", ".join(f"{n} {way}" for way, n in placed.counts.items()))
        try:
            check_dataset(
                dataset,
                annotated,
                functools.partial(tqdm, desc="check", unit="file", mininterval=2.0),
            )
        except Exception:
            info.unlink(missing_ok=True)
            raise
        files.declare(info, snakemake.output.info)
        log.info(
            "checked: %d data files, %d episodes", len(dataset.data_files), len(dataset.episodes)
        )


if "snakemake" in globals():
    main(snakemake)
