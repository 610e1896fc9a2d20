"""Reads a data file episode by episode in bounded memory.

What makes an episode large are encoded pictures (an hour is gigabytes) and the persistent list of
language rows (megabytes, the same on every frame). Pictures beyond a limit wait in a file that is
mapped into memory; lists are read a few frames at a time, and one that repeats is held once.
"""

import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.language import EVENTS_COLUMN, LANGUAGE_COLUMNS, PERSISTENT_COLUMN
from cuesheet.artifacts.language_arrow import EVENTS_TYPE, PERSISTENT_TYPE, array
from cuesheet.errors import CuesheetError

# A column chunk is read as it is needed; pyarrow's default loads all of a file's ahead.
READ_OPTIONS: Mapping[str, Any] = {"pre_buffer": False, "buffer_size": 1 << 20}
LIST_BATCH_FRAMES = 8

_BATCH_ROWS = 4096
_BATCH_BYTES = 32 << 20  # of the source's columns, before they are decoded
_HELD_BYTES = 128 << 20  # of an episode, decoded; more than that waits in a file
_REPEATED_FRAMES = 64  # at most so many frames' persistent lists are held in memory,
_REPEATED_BYTES = 32 << 20  # and at most so many bytes of them


def episode_tables(
    file: pq.ParquetFile, columns: Sequence[str], source: Path, folder: Path
) -> Iterator[tuple[int, pa.Table]]:
    """The file's episodes in order, each as (episode_index, its rows of `columns`).

    Args:
        file: the data file, opened with `READ_OPTIONS`.
        columns: what is read; `episode_index` and `timestamp` must be among them.
        source: the file's path, for messages.
        folder: where rows that are too large for memory wait.

    Raises:
        CuesheetError: a needed column is missing, or an episode is not in one piece.
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
            raise CuesheetError(f"{source}: a row has no episode_index; expected one on every row.")
        # Not to_numpy, which imports pandas: 0.2 s of CPU.
        numbers = np.from_dlpack(batch.column("episode_index"))
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
                        f"{source}: the rows of episode {number} are not in one piece."
                    )
                seen.add(number)
                current = number
            pending.add(batch.slice(start, end - start))
    if current is not None:
        yield current, pending.take()


class _HeldRows:
    """The rows of one episode.

    A row group is written column after column, so the whole episode must be at hand. The file that
    holds what memory should not has lost its name once it is full: it is gone whatever happens.
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
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", suffix=".rows") as file:
            with pa.ipc.new_file(file, self._batches[0].schema) as writer:
                for batch in self._batches:
                    writer.write_batch(batch)
            file.flush()
            return pa.ipc.open_file(pa.memory_map(file.name)).read_all()


@dataclass(frozen=True)
class Repeated:
    """The lists of an episode's frames where all are the same: `rows`, on each of `frames`."""

    rows: pa.Array
    frames: int
    column_type: pa.ListType

    @property
    def num_rows(self) -> int:
        """Language rows of all frames."""
        return self.frames * len(self.rows)

    @property
    def held_frames(self) -> int:
        """As many frames' lists as may be held in memory."""
        fitting = _REPEATED_BYTES // max(self.rows.nbytes, 1)
        return max(1, min(self.frames, _REPEATED_FRAMES, fitting))

    def column(self) -> pa.ChunkedArray:
        """A list a frame. The chunks share their memory."""
        held = self.held_frames
        offsets = array([0, len(self.rows)], pa.int32())
        one = pa.ListArray.from_arrays(offsets, self.rows, type=self.column_type)
        few = math.isqrt(held)  # in two steps, since every array to join takes its time
        block = pa.concat_arrays([one] * few)
        chunk = pa.concat_arrays([block] * -(-held // few)).slice(0, held)
        whole, rest = divmod(self.frames, held)
        chunks = [chunk] * whole + ([chunk.slice(0, rest)] if rest else [])
        return pa.chunked_array(chunks, type=self.column_type)


class SourceLanguage:
    """The language rows that a data file already has, read front to back."""

    def __init__(self, file: pq.ParquetFile) -> None:
        schema = file.schema_arrow
        self._file = file
        self._names = [
            name
            for name in LANGUAGE_COLUMNS
            if name in schema.names and not pa.types.is_null(schema.field(name).type)
        ]
        self._begin = 0
        self._read = self._batches()
        self._held: tuple[int, pa.RecordBatch] | None = None

    def take(
        self, begin: int, end: int
    ) -> tuple[tuple[Repeated | pa.ChunkedArray, pa.ChunkedArray], bool]:
        """The two columns of rows [begin, end) in the explicit types, and whether there is a row.

        Persistent lists are `Repeated` where all are the same.

        `begin` must not be before the `end` of an earlier call.
        """
        lists = {
            PERSISTENT_COLUMN: _Lists(PERSISTENT_TYPE),
            EVENTS_COLUMN: _Lists(EVENTS_TYPE),
        }
        if self._names:
            for batch in self._between(begin, end):
                for name in self._names:
                    lists[name].add(batch.column(name))
        persistent = lists[PERSISTENT_COLUMN].found(end - begin)
        events = as_column(lists[EVENTS_COLUMN].found(end - begin))
        return (persistent, events), any(found.has_rows for found in lists.values())

    def _between(self, begin: int, end: int) -> Iterator[pa.RecordBatch]:
        self._begin = begin
        while begin < end:
            if self._held is None or self._held[0] + len(self._held[1]) <= begin:
                self._held = next(self._read)
                continue
            first, batch = self._held
            stop = min(end, first + len(batch))
            yield batch.slice(begin - first, stop - begin)
            begin = stop

    def _batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(first row, rows) of the row groups that do not end before `_begin`."""
        first = 0
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if first + rows <= self._begin:
                first += rows
                continue
            for batch in self._file.iter_batches(
                LIST_BATCH_FRAMES, row_groups=[group], columns=self._names, use_threads=False
            ):
                yield first, batch
                first += len(batch)


class _Lists:
    """The lists of consecutive frames; as long as all are the same, one is held."""

    def __init__(self, column_type: pa.ListType) -> None:
        self.has_rows = False
        self._type = column_type
        self._first: pa.Array | None = None  # the one list, while there is but one
        self._frames = 0
        self._chunks: list[pa.Array] = []

    def add(self, column: pa.ListArray) -> None:
        if column.type != self._type or column.null_count:
            column = array([rows or [] for rows in column.to_pylist()], self._type)
        values = column.flatten()
        self.has_rows = self.has_rows or len(values) > 0
        if not self._frames:
            self._first = values.slice(0, column.value_lengths()[0].as_py())
        if self._first is not None and not is_repeated(column, self._first):
            self._chunks = Repeated(self._first, self._frames, self._type).column().chunks
            self._first = None
        if self._first is None:
            self._chunks.append(column)
        self._frames += len(column)

    def found(self, frames: int) -> Repeated | pa.ChunkedArray:
        """The lists of `frames` frames: those that were added, or empty ones if none were."""
        if self._chunks:
            return pa.chunked_array(self._chunks, type=self._type)
        first = array([], self._type.value_type) if self._first is None else self._first
        return Repeated(first, frames, self._type)


def as_column(lists: Repeated | pa.ChunkedArray) -> pa.ChunkedArray:
    """A list a frame."""
    return lists.column() if isinstance(lists, Repeated) else lists


def is_repeated(column: pa.ListArray, first: pa.Array) -> bool:
    """Whether every list of `column`, which has no nulls, is `first`."""
    # Not flatten and unique: pyarrow.compute takes 0.05 s of CPU to import.
    rows, offsets = len(first), np.from_dlpack(column.offsets)
    if not len(column) or (np.diff(offsets) != rows).any():
        return False
    values = column.values.slice(offsets[0], len(column) * rows)
    # Every list equals the one before it: one comparison for the whole column.
    return values.slice(0, rows).equals(first) and values.slice(rows).equals(
        values.slice(0, len(values) - rows)
    )
