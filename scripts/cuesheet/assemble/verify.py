"""Reads an annotated dataset as a user would and compares it with its source."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.language import LANGUAGE_COLUMNS, PERSISTENT_COLUMN, SUBTASK_COLUMN
from cuesheet.artifacts.language_arrow import COLUMN_TYPES
from cuesheet.assemble.merge import annotated_schema
from cuesheet.dataset.data_reader import LIST_BATCH_FRAMES, open_data_file, repeated_rows
from cuesheet.dataset.metadata import Dataset, Episode, read_dataset
from cuesheet.errors import CuesheetError

Progress = Callable[[list[str]], Iterator[str]]


def check_dataset(
    source: Dataset,
    annotated: Path,
    progress: Progress = iter,
    selected: Collection[int] = (),
) -> None:
    """Check the annotated dataset of `source`, whose cameras are those that the run used.

    Every data file opens and has the columns and types of its own source file, with the language
    columns last; there is one row group per episode, as the metadata says; the persistent list is
    the same on every frame of an episode; every video exists that the source has, and all videos of
    the selected episodes and the cameras in use; the totals of info.json and the lengths of the
    episodes agree. Raises CuesheetError that names the first twenty problems.
    """
    finished = read_dataset(annotated, source.name).with_cameras(list(source.cameras))
    has_index = SUBTASK_COLUMN in finished.info["features"]
    problems: list[str] = []
    rows = 0
    # A partial copy or download lacks files without chosen episodes.
    is_partial = not all(source.has_file(file) for file in source.data_files)
    present = [f for f in finished.data_files if not is_partial or source.has_file(f)]
    for data_file in progress(present):
        episodes = finished.data_files[data_file]
        path = annotated / data_file
        try:
            with open_data_file(path) as file:
                problems += [f"{path}: {p}" for p in _check_file(file, episodes)]
                schema = file.metadata.schema.to_arrow_schema()
                rows += file.metadata.num_rows
        except (OSError, pa.ArrowException) as error:
            problems.append(f"{path} cannot be read: {error}")
            continue
        problems += [f"{path}: {p}" for p in _check_schema(schema, source, episodes, has_index)]
    if is_partial:
        rows = sum(episode.length for episode in source.episodes)
    problems += _check_totals(finished, source, rows)
    problems += [
        f"{annotated / video} does not exist or is empty."
        for video in _videos(finished, source, selected)
        if not _is_file(annotated / video)
    ]
    if problems:
        shown = "\n  ".join(problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise CuesheetError(f"The annotated dataset at {annotated} is not valid:\n  {shown}{more}")


def _videos(finished: Dataset, source: Dataset, selected: Collection[int]) -> list[str]:
    """Return the video files that must exist.

    The source may lack videos of cameras that are not in use and of episodes that are not selected.
    A conversion writes every video.
    """
    names = finished.files_of((e.episode_index for e in finished.episodes), include_excluded=True)
    if source.version == finished.version:
        present = {name for name in names if source.has_file(name)}
        return sorted(present | {*source.files_of(selected)} - {*finished.data_files})
    return sorted({*names} - {*finished.data_files})


def _check_schema(
    schema: pa.Schema, source: Dataset, episodes: Sequence[Episode], has_subtask_index: bool
) -> Iterator[str]:
    """Compare a data file with the source files of its episodes. Data files may differ in types."""
    for name in dict.fromkeys(source.episode(e.episode_index).data_file for e in episodes):
        expected = annotated_schema(pq.read_schema(source.root / name), has_subtask_index)
        if not schema.equals(expected):
            yield f"other columns or types than {source.root / name}."


def _is_file(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _check_file(file: pq.ParquetFile, episodes: Sequence[Episode]) -> Iterator[str]:
    schema = file.metadata.schema.to_arrow_schema()
    if tuple(schema.names[-2:]) != LANGUAGE_COLUMNS:
        yield f"the last columns are {schema.names[-2:]}; expected {list(LANGUAGE_COLUMNS)}."
        return
    for name in LANGUAGE_COLUMNS:
        if schema.field(name).type != COLUMN_TYPES[name]:
            yield f"{name} has the type {schema.field(name).type}; expected {COLUMN_TYPES[name]}."
            return
    rows = sum(episode.length for episode in episodes)
    if file.metadata.num_rows != rows:
        yield f"{file.metadata.num_rows} rows; the source has {rows}."
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    if groups != [episode.length for episode in episodes]:
        yield f"{len(groups)} row groups; expected one per episode, {len(episodes)}."
        return
    for number, episode in enumerate(episodes):
        if not _is_repeated(file, number):
            yield (
                f"{PERSISTENT_COLUMN} is not the same on every frame of "
                f"episode {episode.episode_index}."
            )


def _is_repeated(file: pq.ParquetFile, row_group: int) -> bool:
    """Return whether all frames of a row group have the same persistent list."""
    first: list[Any] | None = None
    for batch in file.iter_batches(
        LIST_BATCH_FRAMES, row_groups=[row_group], columns=[PERSISTENT_COLUMN], use_threads=False
    ):
        rows = repeated_rows(batch.column(0))
        if rows is None or (first is not None and rows != first):
            return False
        first = rows
    return True


def _check_totals(finished: Dataset, source: Dataset, rows: int) -> Iterator[str]:
    wanted = {"total_episodes": len(source.episodes), "total_frames": rows}
    for key, value in wanted.items():
        found = finished.info.get(key)
        if found is not None and found != value:
            yield f"meta/info.json says {key} = {found}; the dataset has {value}."
    for name in LANGUAGE_COLUMNS:
        if finished.info["features"].get(name, {}).get("dtype") != "language":
            yield f"meta/info.json lacks the feature {name}."
    lengths = [{e.episode_index: e.length for e in one.episodes} for one in (finished, source)]
    if lengths[0] != lengths[1]:
        yield (
            f"the metadata has {len(lengths[0])} episodes whose lengths differ from those of the "
            f"{len(lengths[1])} episodes of the source."
        )
