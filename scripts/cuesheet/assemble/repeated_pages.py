"""Writes episodes as row groups; a persistent list that repeats is encoded once.

An episode's persistent list is the same on every frame, millions of rows that pyarrow would encode
one by one. Here pyarrow encodes the lists of a few frames as one page of each leaf column, and the
page's bytes are written as often as the frames need it, behind the other columns of the row group,
which pyarrow writes. In the end these column chunks are added to its footer.

Nothing is taken for granted: pages that are not cut where they should be are not repeated, and
before the file counts as written, pyarrow reads lists of it again.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.language import PERSISTENT_COLUMN
from cuesheet.assemble.parquet_footer import (
    DATA_PAGE,
    DICTIONARY_PAGE,
    PLAIN,
    RLE,
    RLE_DICTIONARY,
    Chunk,
    Columns,
    UnexpectedParquetError,
    end_of_file,
    read_footer,
    with_columns,
)
from cuesheet.assemble.thrift_compact import MALFORMED, read_struct
from cuesheet.dataset.data_reader import READ_OPTIONS, Repeated, as_column, is_repeated

_LEAST_PAGES = 16  # episodes of fewer frames are not worth it
_PAGE_ROWS = 1 << 16  # language rows in a page, at most
_BLOCK_PAGES = 64  # written at once, at most
_CHECKED_GROUPS = 3  # whose lists are read again,
_CHECKED_BYTES = 512 << 20  # and as much of each at most

# Fields of PageHeader, and by page type of the header within it.
_PAGE_TYPE, _UNCOMPRESSED_SIZE, _COMPRESSED_SIZE = 1, 2, 3
_DETAILS = {DATA_PAGE: 5, DICTIONARY_PAGE: 7}
_ENCODINGS = {DATA_PAGE: (RLE_DICTIONARY, RLE, RLE), DICTIONARY_PAGE: (PLAIN,)}
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
        self._options = options
        self._open = contextlib.ExitStack()
        self._sink = self._open.enter_context(pa.OSFile(str(path), "wb"))
        self._pages: _PageEncoder | None = None
        if repeat:
            self._pages = _PageEncoder(schema.field(PERSISTENT_COLUMN), options, self._open)
            schema = schema.remove(schema.get_field_index(PERSISTENT_COLUMN))
        self._own_schema = schema  # of what pyarrow writes
        self._written: list[pq.FileMetaData] = []
        self._writer = self._open.enter_context(
            pq.ParquetWriter(self._sink, schema, metadata_collector=self._written, **options)
        )
        self._chunks: list[list[Chunk]] = []  # of persistent lists, by row group
        self._checked: dict[int, Repeated] = {}

    def __enter__(self) -> "EpisodeWriter":
        return self

    def __exit__(self, *exception: Any) -> None:
        self._open.__exit__(*exception)

    def write(
        self, table: pa.Table, persistent: Repeated | pa.ChunkedArray, events: pa.ChunkedArray
    ) -> None:
        """Add an episode: `table` with its other columns, and the two language columns."""
        if self._pages is None:
            columns = [*table.columns, as_column(persistent), events]
        else:
            columns = [*table.columns, events]
        whole = pa.table(columns, schema=self._own_schema)
        self._writer.write_table(whole, row_group_size=whole.num_rows)
        if self._pages is None:
            return
        leaves = self._pages.encode(persistent)
        self._chunks.append([leaf.write(self._sink) for leaf in leaves])
        if isinstance(persistent, Repeated) and len(persistent.rows):
            self._checked[len(self._chunks) - 1] = persistent
            if len(self._checked) > _CHECKED_GROUPS:
                del self._checked[max(self._checked, key=self._check_later)]

    def _check_later(self, group: int) -> tuple[bool, int]:
        """Greater for what is less worth the check: what is not repeated, and what takes long."""
        return self._chunks[group][0].data_pages < _LEAST_PAGES, self._checked[group].num_rows

    def finish(self) -> None:
        """Complete the file and look whether what was repeated can be read.

        Raises:
            UnexpectedParquetError: the file is not laid out as it is known to be, and of no use.
        """
        begin = self._sink.tell()
        self._open.close()
        if self._pages is None:
            return
        sink = pa.BufferOutputStream()
        pq.ParquetWriter(sink, self._schema, **self._options).close()
        empty = sink.getvalue()
        expected = pq.read_metadata(pa.BufferReader(empty))
        leaves = [expected.schema.column(number) for number in range(len(expected.schema))]
        columns = {
            number: leaf
            for number, leaf in enumerate(leaves)
            if leaf.path.split(".")[0] == PERSISTENT_COLUMN
        }
        with self._path.open("r+b") as file:
            magic = file.read(4)
            file.seek(begin)
            footer = read_footer(file.read())
            empty_footer = read_footer(bytes(empty)[len(magic) :])
            complete = with_columns(footer, empty_footer, columns, self._chunks)
            file.seek(begin)
            file.truncate()
            file.write(end_of_file(complete))
        try:
            self._check(expected, columns)
        except (pa.ArrowException, OSError) as error:
            raise UnexpectedParquetError(f"pyarrow cannot read it: {error}") from None

    def _check(self, expected: pq.FileMetaData, columns: Columns) -> None:
        """Raises UnexpectedParquetError if the file is not what was written."""
        found, own = pq.read_metadata(self._path), self._written[0]
        if not found.schema.equals(expected.schema) or (
            (found.metadata, found.num_rows, found.num_row_groups)
            != (expected.metadata, own.num_rows, len(self._chunks))
        ):
            raise UnexpectedParquetError(f"found {found}; expected {expected}")
        size = self._path.stat().st_size
        for number, chunks in enumerate(self._chunks):
            group, before = found.row_group(number), own.row_group(number)
            last, last_before = (g.column(g.num_columns - 1) for g in (group, before))
            if group.num_rows != before.num_rows or last != last_before:
                raise UnexpectedParquetError(f"row group {number}: found {group}")
            for column, chunk in zip(columns, chunks, strict=True):
                if Chunk.of(group.column(column), chunk.data_pages) != chunk or chunk.end > size:
                    raise UnexpectedParquetError(f"row group {number}: expected {chunk}")
        with pq.ParquetFile(self._path, **READ_OPTIONS) as file:
            for number, lists in self._checked.items():
                _check_lists(file, number, lists)


def _check_lists(file: pq.ParquetFile, group: int, expected: Repeated) -> None:
    """Raises UnexpectedParquetError if a frame of the row group has another list.

    Of lists of megabytes, which take long to read, the first pages are looked at.
    """
    wanted = min(expected.frames, 1 + _CHECKED_BYTES // max(expected.rows.nbytes, 1))
    frames = 0
    for batch in file.iter_batches(
        expected.held_frames, row_groups=[group], columns=[PERSISTENT_COLUMN], use_threads=False
    ):
        if not is_repeated(batch.column(0), expected.rows):
            raise UnexpectedParquetError(
                f"row group {group}: a list is not the one that was written"
            )
        frames += len(batch)
        if frames >= wanted:
            return
    raise UnexpectedParquetError(f"row group {group}: {frames} of {expected.frames} lists")


class _PageEncoder:
    """Encodes an episode's persistent lists as pages, which can be repeated."""

    def __init__(
        self, field: pa.Field, options: Mapping[str, Any], opened: contextlib.ExitStack
    ) -> None:
        self._schema = pa.schema([field])
        self._options = options
        self._open = opened
        # By frames in a page, of which a writer is told once; in memory, and emptied by each list.
        self._writers: dict[int | None, tuple[io.BytesIO, pq.ParquetWriter]] = {}

    def encode(self, lists: Repeated | pa.ChunkedArray) -> list["_Leaf"]:
        """The leaf columns of the lists.

        Raises:
            UnexpectedParquetError: they are not a dictionary page each, and pages that refer to it.
        """
        if isinstance(lists, Repeated):
            most = min(lists.frames // _LEAST_PAGES, _PAGE_ROWS // max(len(lists.rows), 1))
            if most and len(lists.rows):
                # Powers of two: few writers serve all episodes.
                leaves = self._repeated(lists, 1 << most.bit_length() - 1)
                if leaves:
                    return leaves
        return [
            _Leaf(dictionary, None, 0, pages)
            for dictionary, *pages in self._encoded(as_column(lists), None)
        ]

    def _repeated(self, lists: Repeated, page_frames: int) -> list["_Leaf"]:
        """The leaf columns; none if their pages are not cut after `page_frames` lists."""
        repeats, rest = divmod(lists.frames, page_frames)
        few = replace(lists, frames=page_frames + rest)
        leaves = []
        for dictionary, page, *last in self._encoded(few.column(), page_frames):
            levels = page.num_values // page_frames  # of one list
            wanted = [levels * page_frames, *([levels * rest] if rest else [])]
            if [found.num_values for found in (page, *last)] != wanted:
                return []
            leaves.append(_Leaf(dictionary, page, repeats, last))
        return leaves

    def _encoded(self, column: pa.ChunkedArray, page_frames: int | None) -> list[list["_Page"]]:
        """By leaf column its pages, the dictionary first."""
        if page_frames not in self._writers:
            sink = io.BytesIO()
            options = {**self._options, "max_rows_per_page": page_frames}
            writer = self._open.enter_context(pq.ParquetWriter(sink, self._schema, **options))
            self._writers[page_frames] = sink, writer
            _taken(sink)  # the beginning of the file
        sink, writer = self._writers[page_frames]
        writer.write_table(pa.table([column], schema=self._schema), len(column))
        leaves: list[list[_Page]] = []
        for page in _read_pages(_taken(sink)):
            if page.encodings == _ENCODINGS[DICTIONARY_PAGE]:
                leaves.append([])
            leaves[-1].append(page)
        if not leaves or min(map(len, leaves)) < 2:
            raise UnexpectedParquetError("a column without pages")
        return leaves


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
    num_values: int
    encodings: tuple[int, ...]  # of the values, and for data pages of both kinds of levels


@dataclass(frozen=True)
class _Leaf:
    """A leaf column of an episode: its dictionary, the page that repeats, other pages."""

    dictionary: _Page
    page: _Page | None
    repeats: int
    rest: Sequence[_Page]

    def write(self, sink: pa.NativeFile) -> Chunk:
        """Append the column chunk to `sink`."""
        begin = sink.tell()
        encoded = [self.dictionary.encoded]
        blocks, left = divmod(self.repeats, _BLOCK_PAGES)
        if blocks:
            sink.write(encoded.pop())
            block = self.page.encoded * _BLOCK_PAGES
            for _ in range(blocks):
                sink.write(block)
        if left:
            encoded.append(self.page.encoded * left)
        sink.write(b"".join([*encoded, *(page.encoded for page in self.rest)]))
        pages = [(self.page, self.repeats)] if self.page else []
        pages += [(page, 1) for page in self.rest]
        return Chunk(
            num_values=sum(page.num_values * times for page, times in pages),
            data_pages=self.repeats + len(self.rest),
            uncompressed_size=self.dictionary.uncompressed_size
            + sum(page.uncompressed_size * times for page, times in pages),
            compressed_size=sink.tell() - begin,
            dictionary_page_offset=begin,
            data_page_offset=begin + len(self.dictionary.encoded),
        )


def _read_pages(data: bytes) -> Iterator[_Page]:
    """All pages of `data`, a dictionary first.

    Raises:
        UnexpectedParquetError: there is something else, or they are not encoded as expected.
    """
    at = 0
    try:
        while at < len(data):
            header, body = read_struct(data, at)
            page_type = header[_PAGE_TYPE]
            details = header[_DETAILS[page_type]]
            values, *encodings = (details[number] for number in _NUMBERS[page_type])
            if tuple(encodings) != _ENCODINGS[page_type] or (not at and page_type == DATA_PAGE):
                raise UnexpectedParquetError(f"a page of type {page_type} encoded as {encodings}")
            end = body + header[_COMPRESSED_SIZE]
            size = body - at + header[_UNCOMPRESSED_SIZE]
            yield _Page(data[at:end], size, values, tuple(encodings))
            at = end
    except (KeyError, *MALFORMED) as error:
        raise UnexpectedParquetError(f"a page cannot be read: {error!r}") from None
    if at != len(data):
        raise UnexpectedParquetError("a page is longer than what was written")
