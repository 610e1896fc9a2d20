"""Reads a data file episode by episode in bounded memory.

Two things make an episode large: encoded images (gigabytes per hour) and the persistent list of
language rows (megabytes, the same on every frame). Images beyond a limit are held in a file that
is mapped into memory. The strings of the persistent list are read as dictionaries, so that each
string is held once.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.language import EVENTS_COLUMN, LANGUAGE_COLUMNS, PERSISTENT_COLUMN
from cuesheet.artifacts.language_arrow import EVENTS_TYPE, PERSISTENT_DICTIONARY_TYPE
from cuesheet.artifacts.sampling import shortest_float32
from cuesheet.errors import CuesheetError
from cuesheet.files import temporary_file

# Frames whose persistent lists are in memory at once: enough to keep the work per batch small, few
# enough to stay in the processor's cache.
LIST_BATCH_FRAMES = 128

_TYPES: Mapping[str, pa.DataType] = {
    PERSISTENT_COLUMN: PERSISTENT_DICTIONARY_TYPE,
    EVENTS_COLUMN: EVENTS_TYPE,
}
_BATCH_ROWS = 4096
_BATCH_BYTES = 32 << 20  # of the source's columns, before they are decoded
_MAX_START_S = 1.0
_HELD_BYTES = 128 << 20  # of an episode, decoded; larger episodes are held in a file


def open_data_file(path: Path) -> pq.ParquetFile:
    """Open a data file for reading in bounded memory.

    The strings of persistent lists are read as dictionaries; the column's type says so. Raises
    OSError or pa.ArrowException if the file does not exist or is not readable.
    """
    metadata = pq.read_metadata(path)
    leaves = (metadata.schema.column(number) for number in range(len(metadata.schema)))
    texts = [
        leaf.path
        for leaf in leaves
        if leaf.path.split(".")[0] == PERSISTENT_COLUMN and leaf.physical_type == "BYTE_ARRAY"
    ]
    # A column chunk is read as it is needed; by default pyarrow loads all of a file's ahead.
    return pq.ParquetFile(
        path, metadata=metadata, read_dictionary=texts, pre_buffer=False, buffer_size=1 << 20
    )


def episode_tables(
    file: pq.ParquetFile, columns: Sequence[str], source: Path, folder: Path
) -> Iterator[tuple[int, pa.Table]]:
    """Yield the file's episodes in order, each as (episode_index, its rows of `columns`).

    `columns` include `episode_index` and `timestamp`; `open_data_file` opened `file`. `source` is
    its path, for messages. `folder` is for temporary files with rows that are too large for memory.
    Raises CuesheetError if a needed column is missing, or an episode's rows are not contiguous.
    """
    for needed in ("episode_index", "timestamp"):
        if needed not in columns:
            raise CuesheetError(f"{source} has no column {needed!r}; expected LeRobot data.")
    rows = max(file.metadata.num_rows, 1)
    size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
    batch_rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * rows // max(size, 1)))
    pending = _HeldRows(folder)
    current: int | None = None
    seen: set[int] = set()
    for batch in file.iter_batches(batch_rows, columns=list(columns), use_threads=False):
        if batch.column("episode_index").null_count:
            raise CuesheetError(f"{source}: a row has no episode_index; every row must have one.")
        numbers = scalars(batch.column("episode_index"))
        cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for start, end in itertools.pairwise(cuts):
            if start == end:
                continue
            number = int(numbers[start])
            if number != current:
                if current is not None:
                    yield current, pending.take()
                if number in seen:
                    raise CuesheetError(
                        f"{source}: the rows of episode {number} are not contiguous."
                    )
                seen.add(number)
                current = number
            pending.add(batch.slice(start, end - start))
    if current is not None:
        yield current, pending.take()


def scalars(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return a numeric column, one value per row. Some recorders write lists of one number."""
    if pa.types.is_nested(column.type):
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        column = column.flatten()
    if isinstance(column, pa.ChunkedArray):
        return column.to_numpy()
    return column.to_numpy(zero_copy_only=False)


def episode_start_s(timestamps: np.ndarray) -> float:
    """Return the time of an episode's start on the clock of its `timestamps` (float64), in seconds.

    In the format, timestamps count from the start of the episode, so it is 0. If the first one is
    later than a second and than two frames, the timestamps continue across episodes or are those of
    another clock, and it is the first one.
    """
    period_s = float(timestamps[1] - timestamps[0]) if len(timestamps) > 1 else 0.0
    first_s = float(timestamps[0])
    return first_s if abs(first_s) > max(_MAX_START_S, 2 * period_s) else 0.0


def seconds_from_start(timestamps: np.ndarray) -> np.ndarray:
    """Return the timestamps of an episode (float64) relative to `episode_start_s`, as float32."""
    if not episode_start_s(timestamps):
        return timestamps.astype(np.float32)
    # In float32, 7.6 - 7.5 is 0.0999999; the difference of the shortest decimals is 0.1.
    times = np.array([shortest_float32(time_s) for time_s in timestamps.tolist()])
    return np.round(times - times[0], 6).astype(np.float32)


class _HeldRows:
    """The rows of one episode.

    A row group is written column by column, so the whole episode must be available. The file that
    holds large episodes is unlinked as soon as it is mapped, so it never outlives the process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._tables: list[pa.Table] = []

    def add(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes > _HELD_BYTES:
            self._tables.append(self._moved_to_file())
            self._batches, self._bytes = [], 0

    def take(self) -> pa.Table:
        tables = list(self._tables)
        if self._batches:
            tables.append(pa.Table.from_batches(self._batches))
        self._tables, self._batches, self._bytes = [], [], 0
        return pa.concat_tables(tables)

    def _moved_to_file(self) -> pa.Table:
        with temporary_file(Path(self._folder) / "data.rows") as (handle, path):
            with (
                open(handle, "wb", closefd=False) as file,
                pa.ipc.new_file(file, self._batches[0].schema) as writer,
            ):
                for batch in self._batches:
                    writer.write_batch(batch)
            return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


class SourceLanguage:
    """The language rows that a data file already has, read from front to back."""

    def __init__(self, file: pq.ParquetFile) -> None:
        """Read from `file`, which `open_data_file` opened."""
        schema = file.schema_arrow
        self._file = file
        self._names = [
            name
            for name in LANGUAGE_COLUMNS
            if name in schema.names and not pa.types.is_null(schema.field(name).type)
        ]
        self._group = 0  # the row group to read next
        self._batches: Iterator[pa.RecordBatch] = iter(())  # of the one before
        self._row = 0  # of the file, at which the next batch begins
        self._held: tuple[int, pa.RecordBatch] | None = None

    def take(self, begin: int, end: int) -> tuple[pa.ChunkedArray, pa.ChunkedArray, bool]:
        """Return both columns of the rows [begin, end), and whether there is any language row.

        The columns have the types `PERSISTENT_DICTIONARY_TYPE` and `EVENTS_TYPE`, and empty lists
        if the file has no such column. `begin` must not be before the `end` of an earlier call.
        """
        persistent = _PersistentLists()
        events: list[pa.ListArray] = []
        has_rows = False
        batches = self._between(begin, end) if self._names else ()
        for batch in batches:
            for name in self._names:
                lists = _as_lists(batch.column(name), _TYPES[name])
                has_rows = has_rows or lists.offsets[0] != lists.offsets[-1]
                (persistent if name == PERSISTENT_COLUMN else events).append(lists)
        empty = repeat_list(pa.scalar([], EVENTS_TYPE), 0 if events else end - begin)
        return (
            persistent.column(end - begin),
            pa.chunked_array([*events, *empty.chunks], type=EVENTS_TYPE),
            has_rows,
        )

    def _between(self, begin: int, end: int) -> Iterator[pa.RecordBatch]:
        while begin < end:
            if self._held is None or self._held[0] + len(self._held[1]) <= begin:
                self._held = self._next_batch(begin)
                continue
            first, batch = self._held
            stop = min(end, first + len(batch))
            yield batch.slice(begin - first, stop - begin)
            begin = stop

    def _next_batch(self, begin: int) -> tuple[int, pa.RecordBatch]:
        """Return (first row, rows) of the next batch; skip row groups that end before `begin`."""
        while (batch := next(self._batches, None)) is None:
            rows = self._file.metadata.row_group(self._group).num_rows
            if self._row + rows <= begin:
                self._row += rows
            else:
                self._batches = self._file.iter_batches(
                    LIST_BATCH_FRAMES,
                    row_groups=[self._group],
                    columns=self._names,
                    use_threads=False,
                )
            self._group += 1
        self._row += len(batch)
        return self._row - len(batch), batch


class _PersistentLists:
    """The persistent lists of consecutive frames. As long as all are equal, one is held."""

    def __init__(self) -> None:
        self._chunks: list[pa.Array] = []
        self._rows: list[Any] | None = None  # of every frame so far, if all have the same
        self._frames = 0

    def append(self, lists: pa.ListArray) -> None:
        rows = repeated_rows(lists)
        if self._frames == 0:
            self._rows = rows
        elif self._rows is not None and rows != self._rows:
            self._chunks = self.column(0).chunks
            self._rows = None
        if self._rows is None:
            self._chunks.append(lists)
        self._frames += len(lists)

    def column(self, frames: int) -> pa.ChunkedArray:
        """Return the lists that were appended; if there are none, `frames` empty ones."""
        if self._chunks:
            return pa.chunked_array(self._chunks, type=PERSISTENT_DICTIONARY_TYPE)
        one = pa.scalar(self._rows or [], PERSISTENT_DICTIONARY_TYPE)
        return repeat_list(one, self._frames or frames)


def _as_lists(column: pa.Array, wanted: pa.DataType) -> pa.ListArray:
    """Return a language column of any writer in the explicit type, with empty lists for nulls."""
    if column.type == wanted and not column.null_count:
        return column
    return pa.array([rows or [] for rows in column.to_pylist()], wanted)


def repeat_list(rows: pa.ListScalar, frames: int) -> pa.ChunkedArray:
    """Return a column that has the list `rows` on each of `frames` frames.

    The chunks share their memory, so that an episode of hours takes no more than a short one.
    """
    chunk = pa.repeat(rows, max(1, min(frames, LIST_BATCH_FRAMES)))
    whole, rest = divmod(frames, LIST_BATCH_FRAMES)
    chunks = [chunk] * whole + ([chunk.slice(0, rest)] if rest else [])
    return pa.chunked_array(chunks, type=rows.type)


def repeated_rows(column: pa.ListArray) -> list[Any] | None:
    """Return the rows of the first list if every list of `column` is the same, otherwise None."""
    first = column[0].as_py() if len(column) else None
    if first is None or column.null_count:
        return None
    offsets = column.offsets.to_numpy()
    if (np.diff(offsets) != len(first)).any():
        return None
    values = column.values.slice(offsets[0], len(column) * len(first))
    # Every list equals the one before it: one comparison for the whole column.
    is_repeated = values.slice(len(first)).equals(values.slice(0, len(values) - len(first)))
    return first if is_repeated else None
