"""Writes episodes as row groups; a persistent list that repeats is encoded once.

An episode's persistent list is the same on every frame, millions of rows that pyarrow would encode
one by one. Here pyarrow encodes the lists of a few frames as one page of each leaf column, and the
page's bytes are written as often as the frames need it. In the row group that pyarrow writes, null
lists stand in; the footer then names the repeated pages instead. What the stand-ins took, some 400
bytes an episode, stays in the file unused.

Nothing is taken for granted: pages that are not cut where they should be are not repeated, and
before the file counts as written, pyarrow reads lists of it again.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.language import PERSISTENT_COLUMN
from cuesheet.language_arrow import PERSISTENT_TYPE
from cuesheet.parquet_footer import (
    DATA_PAGE,
    DICTIONARY_PAGE,
    PLAIN,
    RLE,
    RLE_DICTIONARY,
    Chunk,
    Columns,
    UnexpectedParquetError,
    replace_chunks,
)
from cuesheet.source_rows import READ_OPTIONS, Repeated, as_column, is_repeated
from cuesheet.thrift_compact import MALFORMED, read_struct

_LEAST_PAGES = 16  # episodes of fewer frames are not worth it
_PAGE_ROWS = 1 << 16  # language rows in a page, at most
_BLOCK_PAGES = 64  # written at once, at most
_CHECKED_GROUPS = 3  # are read again, those with the fewest language rows

# Fields of PageHeader, and by page type of the header within it.
_PAGE_TYPE, _UNCOMPRESSED_SIZE, _COMPRESSED_SIZE = 1, 2, 3
_DETAILS = {DATA_PAGE: 5, DICTIONARY_PAGE: 7}
# Number of values, encoding; for data also those of definition and repetition levels.
_NUMBERS = {DATA_PAGE: (1, 2, 3, 4), DICTIONARY_PAGE: (1, 2)}


class EpisodeWriter:
    """A Parquet file to which episodes are added, one row group each.

    As a context manager it is closed at the end; only `finish` makes the file complete.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, options: Mapping[str, Any], repeat: bool = True
    ) -> None:
        """
        Args:
            path: where to write; a file that is there is overwritten.
            schema: of the table; the two language columns are the last.
            options: of `pyarrow.parquet.ParquetWriter`.
            repeat: False: pyarrow encodes all lists, the ordinary way.
        """
        self._path = path
        self._schema = schema
        self._written: list[pq.FileMetaData] = []
        self._row_groups = 0
        self._chunks: dict[int, list[Chunk]] = {}  # by row group
        self._checked: dict[int, Repeated] = {}
        self._open = contextlib.ExitStack()
        self._sink = self._open.enter_context(pa.OSFile(str(path), "wb"))
        self._writer = self._open.enter_context(
            pq.ParquetWriter(self._sink, schema, metadata_collector=self._written, **options)
        )
        field = schema.field(PERSISTENT_COLUMN)
        self._pages = _PageEncoder(field, options, self._open) if repeat else None

    def __enter__(self) -> "EpisodeWriter":
        return self

    def __exit__(self, *exception: Any) -> None:
        self._open.__exit__(*exception)

    def write(
        self, table: pa.Table, persistent: Repeated | pa.ChunkedArray, events: pa.ChunkedArray
    ) -> None:
        """Add an episode: `table` with its other columns, and the two language columns."""
        leaves = []
        if self._pages is not None and isinstance(persistent, Repeated):
            leaves = self._pages.encode(persistent)
        lists = pa.nulls(table.num_rows, PERSISTENT_TYPE) if leaves else as_column(persistent)
        whole = pa.table([*table.columns, lists, events], schema=self._schema)
        self._writer.write_table(whole, row_group_size=whole.num_rows)
        if leaves:
            self._checked[self._row_groups] = persistent
            if len(self._checked) > _CHECKED_GROUPS:
                del self._checked[max(self._checked, key=lambda n: self._checked[n].num_rows)]
            self._chunks[self._row_groups] = [leaf.write(self._sink) for leaf in leaves]
        self._row_groups += 1

    def finish(self) -> None:
        """Complete the file and look whether what was repeated can be read.

        Raises:
            UnexpectedParquetError: the file is not laid out as it is known to be, and of no use.
        """
        self._open.close()
        if self._chunks:
            schema = self._written[0].schema
            leaves = {number: schema.column(number) for number in range(len(schema))}
            columns = {
                number: leaf
                for number, leaf in leaves.items()
                if leaf.path.split(".")[0] == PERSISTENT_COLUMN
            }
            if {len(chunks) for chunks in self._chunks.values()} != {len(columns)}:
                raise UnexpectedParquetError(f"pages of other columns than {columns}")
            replace_chunks(self._path, columns, self._chunks)
            try:
                self._check(columns)
            except (pa.ArrowException, OSError) as error:
                raise UnexpectedParquetError(f"pyarrow cannot read it: {error}") from None

    def _check(self, columns: Columns) -> None:
        """Raises UnexpectedParquetError if the file is not what was written."""
        before, after = self._written[0], pq.read_metadata(self._path)
        if (before.num_rows, before.num_row_groups, before.metadata) != (
            after.num_rows,
            after.num_row_groups,
            after.metadata,
        ) or not before.schema.equals(after.schema):
            raise UnexpectedParquetError(f"found {after}; expected {before}")
        size = self._path.stat().st_size
        for group, chunks in self._chunks.items():
            row_group = after.row_group(group)
            for column, chunk in zip(columns, chunks, strict=True):
                found = row_group.column(column)
                if Chunk.of(found, chunk.data_pages) != chunk or chunk.end > size:
                    raise UnexpectedParquetError(
                        f"row group {group}: found {found}; expected {chunk}"
                    )
        with pq.ParquetFile(self._path, **READ_OPTIONS) as file:
            for group, lists in self._checked.items():
                _check_lists(file, group, lists)


def _check_lists(file: pq.ParquetFile, group: int, expected: Repeated) -> None:
    """Raises UnexpectedParquetError if a frame of the row group has another list."""
    frames = 0
    for batch in file.iter_batches(
        expected.held_frames, row_groups=[group], columns=[PERSISTENT_COLUMN], use_threads=False
    ):
        if not is_repeated(batch.column(0), expected.rows):
            raise UnexpectedParquetError(
                f"row group {group}: a list is not the one that was written"
            )
        frames += len(batch)
    if frames != expected.frames:
        raise UnexpectedParquetError(f"row group {group}: {frames} of {expected.frames} lists")


class _PageEncoder:
    """Encodes an episode's lists as pages that can be repeated."""

    def __init__(
        self, field: pa.Field, options: Mapping[str, Any], opened: contextlib.ExitStack
    ) -> None:
        self._schema = pa.schema([field])
        self._options = options
        self._open = opened
        # By frames in a page, of which a writer is told once. The files are emptied ever again.
        self._writers: dict[int, tuple[io.BytesIO, pq.ParquetWriter]] = {}

    def encode(self, lists: Repeated) -> list["_Leaf"]:
        """The leaf columns of the lists; none if they should be written the ordinary way."""
        most = min(lists.frames // _LEAST_PAGES, _PAGE_ROWS // max(len(lists.rows), 1))
        if most == 0 or len(lists.rows) == 0:
            return []
        page_frames = 1 << most.bit_length() - 1  # powers of two: few writers serve all episodes
        repeats, rest = divmod(lists.frames, page_frames)
        if page_frames not in self._writers:
            sink = io.BytesIO()
            options = {**self._options, "max_rows_per_page": page_frames}
            writer = self._open.enter_context(pq.ParquetWriter(sink, self._schema, **options))
            self._writers[page_frames] = sink, writer
            _taken(sink)  # the beginning of the file
        sink, writer = self._writers[page_frames]
        few = replace(lists, frames=page_frames + rest)
        writer.write_table(pa.table([few.column()], schema=self._schema), few.frames)
        return _leaves(_read_pages(_taken(sink)), page_frames, repeats, rest)


def _taken(sink: io.BytesIO) -> bytes:
    """What was written to `sink`, which is empty then."""
    data = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return data


@dataclass(frozen=True)
class _Page:
    """A page with its header; sizes in bytes."""

    encoded: bytes
    uncompressed_size: int
    page_type: int
    num_values: int
    encodings: tuple[int, ...]  # of the values, and for data pages of both kinds of levels


@dataclass(frozen=True)
class _Leaf:
    """A leaf column of an episode: its dictionary, the page that repeats, what is left."""

    dictionary: _Page
    page: _Page
    repeats: int
    rest: _Page | None

    def write(self, sink: pa.NativeFile) -> Chunk:
        """Append the column chunk to `sink`."""
        begin = sink.tell()
        rest = self.rest.encoded if self.rest else b""
        blocks, left = divmod(self.repeats, _BLOCK_PAGES)
        if blocks:
            block = self.page.encoded * _BLOCK_PAGES
            sink.write(self.dictionary.encoded)
            for _ in range(blocks):
                sink.write(block)
            sink.write(self.page.encoded * left + rest)
        else:
            sink.write(self.dictionary.encoded + self.page.encoded * left + rest)
        once = [self.dictionary, *([self.rest] if self.rest else [])]
        return Chunk(
            num_values=self.repeats * self.page.num_values
            + (self.rest.num_values if self.rest else 0),
            data_pages=self.repeats + (1 if self.rest else 0),
            uncompressed_size=self.repeats * self.page.uncompressed_size
            + sum(page.uncompressed_size for page in once),
            compressed_size=sink.tell() - begin,
            dictionary_page_offset=begin,
            data_page_offset=begin + len(self.dictionary.encoded),
        )


def _read_pages(data: bytes) -> list[_Page]:
    """All pages of `data`; none if they are not as expected."""
    pages = []
    at = 0
    try:
        while at < len(data):
            header, body = read_struct(data, at)
            page_type = header[_PAGE_TYPE]
            details = header[_DETAILS[page_type]]
            values, *encodings = (details[number] for number in _NUMBERS[page_type])
            end = body + header[_COMPRESSED_SIZE]
            size = body - at + header[_UNCOMPRESSED_SIZE]
            pages.append(_Page(data[at:end], size, page_type, values, tuple(encodings)))
            at = end
    except (KeyError, *MALFORMED):
        return []
    return pages if at == len(data) else []


def _leaves(pages: Sequence[_Page], page_frames: int, repeats: int, rest: int) -> list[_Leaf]:
    """The pages of a row group by leaf; none if they are not cut after `page_frames` lists."""
    count = 3 if rest else 2
    if len(pages) % count:
        return []
    leaves = []
    for first in range(0, len(pages), count):
        dictionary, page, *last = pages[first : first + count]
        levels = page.num_values // page_frames  # of one list
        as_expected = (
            (dictionary.page_type, dictionary.encodings) == (DICTIONARY_PAGE, (PLAIN,))
            and page.num_values == levels * page_frames
            and [other.num_values for other in last] == [levels * rest] * len(last)
            and all(
                (other.page_type, other.encodings) == (DATA_PAGE, (RLE_DICTIONARY, RLE, RLE))
                for other in (page, *last)
            )
        )
        if not as_expected:
            return []
        leaves.append(_Leaf(dictionary, page, repeats, last[0] if last else None))
    return leaves
