"""Writes one data file of the dataset with the language columns.

In: a data file of the source, and the validated annotation files of its episodes. Out: the same
rows and columns, then `language_persistent` and `language_events`; one row group an episode.
Episodes that are not annotated keep the language rows of the source, or have none.
"""

import functools
from collections.abc import Collection
from pathlib import Path

from tqdm import tqdm

from cuesheet import joblog
from cuesheet.dataset import Dataset, Episode, read_dataset
from cuesheet.errors import CuesheetError
from cuesheet.merge import EpisodeRows, Merged, merge_file
from cuesheet.stage_files import STAGES, read_stage_file


def read_rows(
    results: Path, episode: Episode, stages: Collection[str], required: bool
) -> EpisodeRows:
    """The rows of an episode from its annotation files.

    Args:
        results: the dataset's result folder, which holds plan/, interjections/ and vqa/.
        episode: the episode.
        stages: the stages whose files are read.
        required: a missing file is an error; otherwise its rows are not there.

    Raises:
        CuesheetError: a file is missing, broken, or of another episode or length.
    """
    persistent, events = [], []
    for stage in stages:
        path = results / stage / f"{episode.episode_index:06d}.json"
        if not required and not path.exists():
            continue
        data = read_stage_file(path, stage)
        if data.episode_index != episode.episode_index:
            raise CuesheetError(
                f"{path} is of episode {data.episode_index}; expected {episode.episode_index}. "
                "Delete it and run again."
            )
        ends = [span.end_frame for span in data.subtasks]
        if ends and max(ends) != episode.length:
            raise CuesheetError(
                f"{path} is of an episode of {max(ends)} frames; episode {episode.episode_index} "
                f"has {episode.length} now. It was recorded again: delete its files in keyframes, "
                "plan, interjections, vqa and validation, and run again."
            )
        persistent += [row.model_dump() for row in data.persistent]
        events += [row.model_dump() for row in data.events]
    return EpisodeRows(persistent, events)


def merge_data_file(
    dataset: Dataset,
    data_file: str,
    results: Path,
    output: Path,
    episodes: Collection[int],
    others: Collection[int],
    stages: Collection[str],
) -> Merged:
    """Merges the annotations of `episodes` and `others` into one data file.

    Args:
        dataset: the source dataset.
        data_file: the file, relative to the dataset's root.
        results: the dataset's result folder.
        output: where the annotated file goes.
        episodes: the episodes of this run; every stage of `stages` must have a file for them.
        others: episodes annotated earlier, which keep what is there.
        stages: the stages that are switched on.

    Raises:
        CuesheetError: an episode is not in the file, or its annotations do not fit.
    """
    present = {episode.episode_index: episode for episode in dataset.data_files[data_file]}
    strangers = sorted({*episodes, *others} - set(present))
    if strangers:
        raise CuesheetError(
            f"{data_file} does not hold the episodes {strangers}, whose annotations belong there."
        )

    if dataset.root.resolve() in output.resolve().parents:
        raise CuesheetError(
            f"{output} lies in the source dataset {dataset.root}, which is only read. Choose "
            "another folder for the results, or remove the link that leads there."
        )

    def annotations(episode_index: int) -> EpisodeRows | None:
        if episode_index in episodes:
            return read_rows(results, present[episode_index], stages, required=True)
        if episode_index in others:
            return read_rows(results, present[episode_index], STAGES, required=False)
        return None

    return merge_file(
        dataset.root / data_file,
        output,
        annotations,
        {episode_index: episode.length for episode_index, episode in present.items()},
        functools.partial(tqdm, desc=data_file, unit="episode", mininterval=2.0),
    )


def find_data_file(dataset: Dataset, path: Path) -> str:
    """The data file, relative to the dataset's root, that lies at `path`.

    Raises:
        CuesheetError: the dataset's metadata names no such file.
    """
    for data_file in dataset.data_files:
        if (dataset.root / data_file).resolve() == path.resolve():
            return data_file
    raise CuesheetError(f"{path} is not a data file of the dataset at {dataset.root}.")


def main(snakemake) -> None:
    with joblog.to_file(snakemake.log[0]) as log:
        params = snakemake.params
        results = Path(params.results)
        dataset = read_dataset(params.root, results.name)
        merged = merge_data_file(
            dataset,
            find_data_file(dataset, Path(snakemake.input.data)),
            results,
            Path(snakemake.output.data),
            set(params.episodes),
            set(params.get("others") or ()),
            list(params.get("stages") or STAGES),
        )
        log.info("%d episodes annotated, %d frames", len(merged.annotated), merged.frames)
        if merged.kept_from_source:
            log.info("episodes %s keep the source's language rows", list(merged.kept_from_source))
        if merged.empty:
            log.info("episodes %s have no language rows", list(merged.empty))


if "snakemake" in globals():
    main(snakemake)
