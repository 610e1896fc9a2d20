"""Make the index of a dataset from its metadata, checked against its files.

In: the dataset's folder, the cameras and episodes to use. Out: episodes.parquet, one row per
episode: task, length, rows of the data file, timestamps (s), and per camera the video file and its
range (s). Fails with a list of the problems if metadata and files of an episode disagree.
"""

import functools

import pyarrow as pa
from tqdm import tqdm

from cuesheet import job_log
from cuesheet.dataset.index import make_index
from cuesheet.dataset.metadata import read_dataset


def warm_up() -> None:
    """Make pyarrow import pandas once for all jobs. It does so when it makes its first array."""
    pa.array([0])


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]) as log:
        dataset = read_dataset(snakemake.params.root, snakemake.wildcards.dataset)
        dataset = dataset.with_cameras(snakemake.params.cameras)
        log.info("%s: %d episodes at %s", dataset.name, len(dataset.episodes), dataset.root)
        notices = make_index(
            snakemake.output.index,
            dataset,
            snakemake.params.selected,
            functools.partial(tqdm, desc="files", unit="file", mininterval=2.0),
        )
        for notice in notices:
            # The terminal shows warnings; the run has shown the notices of the metadata already.
            (log.info if notice in dataset.notices else log.warning)(notice)


if "snakemake" in globals():
    main(snakemake)
