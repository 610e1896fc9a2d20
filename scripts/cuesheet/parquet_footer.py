"""Replaces column chunks in the footer of a Parquet file that pyarrow has written.

All that is not of those chunks stays byte by byte. The names and numbers of fields are those of
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from cuesheet import thrift_compact as thrift

# Values of enumerations: types of pages, encodings, compression, types of values.
DATA_PAGE, DICTIONARY_PAGE = 0, 2
PLAIN, RLE, RLE_DICTIONARY = 0, 3, 8
_SNAPPY = 1
_PHYSICAL_TYPES = {"FLOAT": 4, "BYTE_ARRAY": 6}

_MAGIC = b"PAR1"
_ROW_GROUPS = 4  # of FileMetaData
_COLUMNS, _TOTAL_BYTE_SIZE, _TOTAL_COMPRESSED_SIZE = 1, 2, 6  # of RowGroup
_FILE_OFFSET, _META_DATA = 2, 3  # of ColumnChunk
# Of ColumnMetaData.
_TYPE, _ENCODINGS, _PATH, _CODEC, _NUM_VALUES = 1, 2, 3, 4, 5
_UNCOMPRESSED_SIZE, _COMPRESSED_SIZE, _DATA_PAGE_OFFSET = 6, 7, 9
_DICTIONARY_PAGE_OFFSET, _ENCODING_STATS = 11, 13
# Of PageEncodingStats.
_PAGE_TYPE, _ENCODING, _COUNT = 1, 2, 3


class UnexpectedParquetError(Exception):
    """What pyarrow wrote is not laid out as it is known to be."""


@dataclass(frozen=True)
class Chunk:
    """A column chunk: a dictionary page, then `data_pages` pages that refer to it.

    Sizes are bytes, the pages' headers included; offsets are from the beginning of the file.
    """

    num_values: int
    data_pages: int
    uncompressed_size: int
    compressed_size: int
    dictionary_page_offset: int
    data_page_offset: int

    @classmethod
    def of(cls, column: pq.ColumnChunkMetaData, data_pages: int) -> "Chunk":
        """What pyarrow says of a column chunk; it does not tell the number of pages."""
        return cls(
            column.num_values,
            data_pages,
            column.total_uncompressed_size,
            column.total_compressed_size,
            column.dictionary_page_offset,
            column.data_page_offset,
        )

    @property
    def end(self) -> int:
        return self.dictionary_page_offset + self.compressed_size


# The columns whose chunks are replaced, by number.
Columns = Mapping[int, pq.ColumnSchema]
# By row group, a chunk for each of these columns in their order.
Chunks = Mapping[int, Sequence[Chunk]]


def replace_chunks(path: Path, columns: Columns, chunks: Chunks) -> None:
    """Write the footer of the file `path` anew, with other column chunks.

    Raises:
        UnexpectedParquetError: the footer is not as expected; the file is as it was.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        tail = file.read()
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or length > size - 12:
            raise UnexpectedParquetError(f"{path} does not end as a Parquet file does")
        begin = file.seek(size - 8 - length)
        footer = with_chunks(file.read(length), columns, chunks)
        file.seek(begin)
        file.truncate()
        file.write(footer + len(footer).to_bytes(4, "little") + _MAGIC)


def with_chunks(footer: bytes, columns: Columns, chunks: Chunks) -> bytes:
    """`footer`, an encoded FileMetaData, with other column chunks.

    Raises:
        UnexpectedParquetError: it is not as expected.
    """
    try:
        beginnings = {number: _beginning(column) for number, column in columns.items()}
        return _with_chunks(footer, beginnings, chunks)
    except (KeyError, TypeError, *thrift.MALFORMED) as error:
        raise UnexpectedParquetError(f"the footer cannot be read: {error!r}") from None


def _beginning(column: pq.ColumnSchema) -> bytes:
    """The encoded ColumnChunk of a column, as far as it is the same in every row group."""
    encodings = thrift.listed(thrift.I32, map(thrift.integer, (PLAIN, RLE, RLE_DICTIONARY)))
    steps = (thrift.binary(step.encode()) for step in column.path.split("."))
    # The chunk's offset is 0 where its metadata is in the footer alone.
    chunk = {_FILE_OFFSET: (thrift.I64, thrift.integer(0)), _META_DATA: (thrift.STRUCT, b"")}
    metadata = {
        _TYPE: (thrift.I32, thrift.integer(_PHYSICAL_TYPES[column.physical_type])),
        _ENCODINGS: (thrift.LIST, encodings),
        _PATH: (thrift.LIST, thrift.listed(thrift.BINARY, steps)),
        _CODEC: (thrift.I32, thrift.integer(_SNAPPY)),
    }
    return thrift.fields(chunk) + thrift.fields(metadata)


def _with_chunks(footer: bytes, beginnings: Mapping[int, bytes], chunks: Chunks) -> bytes:
    number, kind, at = thrift.read_header(footer, 0, 0)
    while kind and number != _ROW_GROUPS:
        number, kind, at = thrift.read_header(footer, thrift.skip(footer, at, kind), number)
    count, at = _read_structs(footer, at, kind)
    if not set(chunks) <= set(range(count)):
        raise UnexpectedParquetError(f"found {count} row groups; expected group {max(chunks)}")
    parts, copied = [], 0
    for group in range(count):
        if group in chunks:
            new = dict(zip(beginnings, chunks[group], strict=True))
            row_group, end = _row_group(footer, at, beginnings, new)
            parts += [footer[copied:at], row_group]
            at = copied = end
        else:
            at = thrift.skip(footer, at, thrift.STRUCT)
    return b"".join([*parts, footer[copied:]])


def _read_structs(footer: bytes, at: int, kind: int) -> tuple[int, int]:
    """How many structs the value of type `kind` lists, and where the first one is."""
    if kind == thrift.LIST:
        count, element, at = thrift.read_list_header(footer, at)
        if element == thrift.STRUCT:
            return count, at
    raise UnexpectedParquetError(f"no list of structs at byte {at} of the footer")


def _row_group(
    footer: bytes, begin: int, beginnings: Mapping[int, bytes], chunks: Mapping[int, Chunk]
) -> tuple[bytes, int]:
    """The row group at `begin` with other chunks, and where it ended."""
    number, kind, at = thrift.read_header(footer, begin, 0)
    count, at = _read_structs(footer, at, kind)
    if number != _COLUMNS or not set(chunks) <= set(range(count)):
        raise UnexpectedParquetError(f"found {count} columns; expected column {max(chunks)}")
    parts, copied = [], begin
    grown = {_TOTAL_BYTE_SIZE: 0, _TOTAL_COMPRESSED_SIZE: 0}
    for column in range(count):
        if column not in chunks:
            at = thrift.skip(footer, at, thrift.STRUCT)
            continue
        chunk, rest = chunks[column], at + len(beginnings[column])
        if footer[at:rest] != beginnings[column]:
            raise UnexpectedParquetError(f"found another column chunk than {beginnings[column]}")
        sizes, end = _sizes(footer, rest)
        if footer[end : end + 1] != thrift.STOP:
            raise UnexpectedParquetError("a column chunk has more than metadata")
        grown[_TOTAL_BYTE_SIZE] += chunk.uncompressed_size - sizes[_UNCOMPRESSED_SIZE]
        grown[_TOTAL_COMPRESSED_SIZE] += chunk.compressed_size - sizes[_COMPRESSED_SIZE]
        parts += [footer[copied:rest], _encoded(chunk), thrift.STOP]
        at = copied = end + 1
    while kind:
        number, kind, value = thrift.read_header(footer, at, number)
        if number in grown:
            total, at = thrift.read_integer(footer, value)
            parts += [footer[copied:value], thrift.integer(total + grown.pop(number))]
            copied = at
        elif kind:
            at = thrift.skip(footer, value, kind)
    if grown:
        raise UnexpectedParquetError(f"a row group has no fields {sorted(grown)}")
    return b"".join([*parts, footer[copied:value]]), value


def _sizes(footer: bytes, at: int) -> tuple[dict[int, int], int]:
    """The sizes in a ColumnMetaData, which goes on at `at` after its codec, and where it ends."""
    sizes = {}
    number = _CODEC
    while number < _COMPRESSED_SIZE:
        number, kind, at = thrift.read_header(footer, at, number)
        if kind != thrift.I64:
            raise UnexpectedParquetError(f"field {number} of a column is of type {kind}")
        sizes[number], at = thrift.read_integer(footer, at)
    return sizes, thrift.skip(footer, at, thrift.STRUCT)


def _encoded(chunk: Chunk) -> bytes:
    """The ColumnMetaData of a chunk, after what `_beginning` gives."""
    numbers = {
        _NUM_VALUES: chunk.num_values,
        _UNCOMPRESSED_SIZE: chunk.uncompressed_size,
        _COMPRESSED_SIZE: chunk.compressed_size,
        _DATA_PAGE_OFFSET: chunk.data_page_offset,
        _DICTIONARY_PAGE_OFFSET: chunk.dictionary_page_offset,
    }
    values = {number: (thrift.I64, thrift.integer(value)) for number, value in numbers.items()}
    values[_ENCODING_STATS] = (thrift.LIST, _encoding_stats(chunk.data_pages))
    return thrift.fields(values, _CODEC) + thrift.STOP


@functools.cache
def _encoding_stats(data_pages: int) -> bytes:
    structs = []
    for numbers in ((DICTIONARY_PAGE, PLAIN, 1), (DATA_PAGE, RLE_DICTIONARY, data_pages)):
        encoded = ((thrift.I32, thrift.integer(number)) for number in numbers)
        fields = dict(zip((_PAGE_TYPE, _ENCODING, _COUNT), encoded, strict=True))
        structs.append(thrift.fields(fields) + thrift.STOP)
    return thrift.listed(thrift.STRUCT, structs)
