"""Makes the index of a dataset from its metadata, checked against its files.

In: the dataset's folder. Out: episodes.parquet, one row an episode: task, length, rows of the data
file, timestamps (s), and per camera the video file and its range (s). Fails with the list of all
problems where metadata and files disagree.
"""

import functools

from tqdm import tqdm

from cuesheet import joblog
from cuesheet.dataset import read_dataset
from cuesheet.episode_index import build_index, write_index


def main(snakemake) -> None:
    with joblog.to_file(snakemake.log[0]) as log:
        dataset = read_dataset(snakemake.params.root, snakemake.wildcards.dataset)
        log.info("%s: %d episodes at %s", dataset.name, len(dataset.episodes), dataset.root)
        table, notices = build_index(
            dataset, functools.partial(tqdm, desc="files", unit="file", mininterval=2.0)
        )
        for notice in notices:
            log.warning(notice)
        write_index(table, snakemake.output.index)


if "snakemake" in globals():
    main(snakemake)
