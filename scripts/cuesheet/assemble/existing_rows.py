"""Language rows that a source dataset already has: which episodes have them, and which are kept."""

from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.language import LANGUAGE_COLUMNS, Row
from cuesheet.dataset.data_reader import SourceLanguage, open_data_file
from cuesheet.dataset.metadata import Dataset, Episode
from cuesheet.errors import CuesheetError

# The styles that each stage writes. Interjections and speech depend on the plan.
_OF_STAGE: dict[str, tuple[str | None, ...]] = {
    "plan": ("subtask", "plan", "memory", "task_aug", "interjection", None),
    "interjections": ("interjection", None),
    "vqa": ("vqa",),
}


def replaced_styles(stages: Collection[str], *, motion: bool = False) -> list[str | None]:
    """Return the styles whose rows in the source are replaced if `stages` run.

    `motion`: the plan also writes rows of that style.
    """
    styles = [style for stage in stages for style in _OF_STAGE[stage]]
    if motion and "plan" in stages:
        styles.append("motion")
    return list(dict.fromkeys(styles))


def episodes_with_rows(dataset: Dataset) -> frozenset[int]:
    """Return the episodes that have language rows in the source.

    If every row group is an episode, as in files that Cuesheet writes, the statistics of the file's
    footer are used; otherwise the columns are read. Raises CuesheetError if a file cannot be read.
    """
    if not set(LANGUAGE_COLUMNS) & set(dataset.info["features"]):
        return frozenset()
    found: set[int] = set()
    for data_file, episodes in dataset.data_files.items():
        path = dataset.root / data_file
        if not dataset.has_file(data_file):
            continue
        try:
            with open_data_file(path) as file:
                found.update(_with_rows(file, episodes))
        except (OSError, pa.ArrowException) as error:
            raise CuesheetError(f"{path} cannot be read: {error}") from None
    return frozenset(found)


def _with_rows(file: pq.ParquetFile, episodes: Sequence[Episode]) -> Iterator[int]:
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    if [group.num_rows for group in groups] == [episode.length for episode in episodes]:
        known = [_has_rows_by_footer(group) for group in groups]
        if None not in known:
            yield from (e.episode_index for e, has in zip(episodes, known, strict=True) if has)
            return
    own = SourceLanguage(file)
    begin = 0
    for episode in episodes:
        end = begin + episode.length
        if own.take(begin, end)[2]:
            yield episode.episode_index
        begin = end


def _has_rows_by_footer(group: pq.RowGroupMetaData) -> bool | None:
    """Return whether a row group has a role that is not null; None if statistics are missing."""
    for number in range(group.num_columns):
        column = group.column(number)
        steps = column.path_in_schema.split(".")
        if steps[0] in LANGUAGE_COLUMNS and steps[-1] == "role":
            statistics = column.statistics
            if statistics is None or not statistics.has_null_count:
                return None
            # The footer does not count the nulls of empty lists as values.
            if statistics.num_values > 0:
                return True
    return False


def foreign_rows(
    columns: tuple[pa.ChunkedArray, pa.ChunkedArray],
    timestamps: Sequence[float],
    styles: Collection[str | None],
) -> tuple[list[Row], list[Row]]:
    """Return the persistent rows and events that are kept: those of other styles than `styles`.

    `columns` are the episode's two language columns. Each event gets the timestamp of its frame.
    """
    first = columns[0].slice(0, 1).to_pylist()
    persistent = [row for row in (first[0] if first else []) if row["style"] not in styles]
    events = [
        {**row, "timestamp": timestamp}
        for timestamp, rows in zip(timestamps, columns[1].to_pylist(), strict=True)
        for row in rows
        if row["style"] not in styles
    ]
    return persistent, events
