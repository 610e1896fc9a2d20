"""Complete the annotated dataset and verify it.

In: the source dataset and the merged data files. Out: `annotated/`: metadata copied and extended,
videos linked or copied (params.videos), the other files of the LeRobot format, and those that
params.extra_files names. With params.convert the source has the format v2.1 and the output v3.0:
all files are converted. Then every file is opened and compared with the source.
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
        subtasks = Path(snakemake.input.subtasks) if snakemake.input.subtasks else None
        dataset = read_dataset(snakemake.params.root, snakemake.wildcards.dataset)
        if snakemake.params.convert:
            from cuesheet.assemble.convert_v21 import convert_dataset  # imports a video library

            convert_dataset(
                dataset, layout.merged, annotated, snakemake.params.extra_files, subtasks
            )
        else:
            placed = finalize_dataset(
                dataset,
                annotated,
                snakemake.params.videos,
                snakemake.params.extra_files,
                functools.partial(tqdm, desc="files", unit="file", mininterval=2.0),
                subtasks,
            )
            for notice in placed.notices:
                log.warning(notice)
            log.info("files: %s", ", ".join(f"{n} {way}" for way, n in placed.counts.items()))
        try:
            check_dataset(
                dataset.with_cameras(snakemake.params.cameras),
                annotated,
                functools.partial(tqdm, desc="check", unit="file", mininterval=2.0),
                snakemake.params.selected,
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
