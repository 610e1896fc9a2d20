"""Write one data file of the annotated dataset.

In: a data file of the source, and the validated annotation files of its episodes. Out: the same
rows and columns, then `language_persistent` and `language_events`; one row group per episode.
Episodes that are not annotated keep the language rows of the source, if there are any.
"""

import functools
from collections.abc import Collection, Mapping
from pathlib import Path

from tqdm import tqdm

from cuesheet import job_log
from cuesheet.artifacts.failures import episode_failures, failed_episodes
from cuesheet.artifacts.layout import Layout
from cuesheet.artifacts.stage_files import ValidationFile, digest, read_stage_file
from cuesheet.assemble.merge import EpisodeRows, Merged, merge_file
from cuesheet.assemble.subtask_numbers import read_numbers
from cuesheet.dataset.metadata import Dataset, Episode, read_dataset
from cuesheet.errors import CuesheetError
from cuesheet.text import as_ranges, describe_range

# Failed episodes whose causes the error message repeats.
SHOWN_EPISODES = 10


def read_rows(results: Path, episode: Episode) -> EpisodeRows:
    """Return the rows of an episode from the annotation files that were validated.

    An episode with the verdict "bad", or left out because of its inspection, has no rows.

    Args:
        results: the dataset's result folder, which holds plan/, interjections/, vqa/, validation/.
        episode: the episode.

    Raises:
        CuesheetError: a file is missing, damaged, changed since it was validated, or belongs to
            another episode or recording.
    """
    persistent, events = [], []
    layout = Layout(results)
    validation = layout.validation(episode.episode_index)
    validated = ValidationFile.read(validation)
    if not validated.has_rows:
        return EpisodeRows([], [])
    for stage, checked in validated.stage_files.items():
        path = layout.stage_file(stage, episode.episode_index)
        if digest(path) != checked:
            raise CuesheetError(
                f"{path} is missing or has changed since it was validated, because a run of "
                f"episode {episode.episode_index} did not finish. Run it again (episodes: "
                f"[{episode.episode_index}]), or delete {validation} to leave it without rows."
            )
        data = read_stage_file(path, stage)
        if data.episode_index != episode.episode_index:
            raise CuesheetError(
                f"{path} belongs to episode {data.episode_index}; expected "
                f"{episode.episode_index}. Delete it and run again."
            )
        ends = [span.end_frame for span in data.subtasks]
        if ends and max(ends) != episode.length:
            raise CuesheetError(
                f"{path} belongs to a recording of {max(ends)} frames, but episode "
                f"{episode.episode_index} has {episode.length} frames now. Delete its files in "
                "keyframes, plan, interjections, vqa and validation, and run again."
            )
        persistent += [row.model_dump() for row in data.persistent]
        events += [row.model_dump() for row in data.events]
    return EpisodeRows(persistent, events)


def check_annotated(results: Path, episodes: Collection[int]) -> None:
    """Raise CuesheetError for episodes that are not annotated, with the causes.

    An episode whose last job failed is not annotated: its files are those of an earlier run.
    """
    failed, layout = failed_episodes(results, episodes), Layout(results)
    missing = [
        index
        for index in sorted(episodes)
        if index in failed or not layout.validation(index).is_file()
    ]
    if not missing:
        return
    failures = episode_failures(results, missing)
    lines = [
        f"episode {index}: {failures[index]['error']}\n    log: {failures[index]['log']}"
        for index in missing[:SHOWN_EPISODES]
        if index in failures
    ]
    raise CuesheetError(
        f"{len(missing)} of {len(episodes)} episodes are not annotated ({as_ranges(missing)}), so "
        "the file is not written. Run again to retry them, or set output.on_missing to "
        "leave_unannotated." + "".join(f"\n  {line}" for line in lines)
    )


def merge_data_file(
    dataset: Dataset,
    data_file: str,
    results: Path,
    output: Path,
    annotated: Collection[int],
    replaced: Collection[str | None] | None = None,
    subtask_numbers: Mapping[str, int] | None = None,
) -> Merged:
    """Merge the annotations of the episodes `annotated` into one data file.

    Args:
        dataset: the source dataset.
        data_file: the file, relative to the dataset's root.
        results: the dataset's result folder.
        output: the annotated file.
        annotated: the episodes of this run, and those that were annotated earlier.
        replaced: the styles whose rows in the source are replaced; None: all styles.
        subtask_numbers: number by label, to write the column subtask_index; None: no such column.

    Raises:
        CuesheetError: an episode is not in the file or not annotated, or its annotations do not
            fit.
    """
    check_annotated(results, annotated)
    present = {episode.episode_index: episode for episode in dataset.data_files[data_file]}
    unknown = sorted(set(annotated) - set(present))
    if unknown:
        raise CuesheetError(
            f"{data_file} does not hold the episodes {unknown}, whose annotations are to be merged "
            "into it."
        )

    def annotations(episode_index: int) -> EpisodeRows | None:
        if episode_index in annotated:
            return read_rows(results, present[episode_index])
        return None

    return merge_file(
        dataset.root / data_file,
        output,
        annotations,
        {episode_index: episode.length for episode_index, episode in present.items()},
        functools.partial(tqdm, desc=data_file, unit="episode", mininterval=2.0),
        replaced,
        subtask_numbers,
    )


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]) as log:
        params = snakemake.params
        results = Path(params.results)
        dataset = read_dataset(params.root, results.name)
        merged = merge_data_file(
            dataset,
            params.data_file,
            results,
            Path(snakemake.output.data),
            {*params.episodes, *params.others},
            params.replaced,
            read_numbers(Path(snakemake.input.subtasks)) if snakemake.input.subtasks else None,
        )
        log.info("%d episodes annotated, %d frames", len(merged.annotated), merged.frames)
        if merged.kept_from_source:
            log.info("episodes %s keep the source's language rows", merged.kept_from_source)
        if merged.dropped:
            log.warning(
                "rows of %s are left out: meta/episodes does not describe these episodes",
                describe_range(merged.dropped),
            )
        if merged.empty:
            log.info("episodes %s have no language rows", merged.empty)


if "snakemake" in globals():
    main(snakemake)
