"""Replaces column chunks in the footer of a Parquet file that pyarrow has written.

All that is not of those chunks stays byte by byte. The names and numbers of fields are those of
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from cuesheet.thrift_compact import (
    BINARY,
    I32,
    I64,
    LIST,
    STRUCT,
    Fields,
    NotCompactThriftError,
    encoded_fields,
    encoded_integer,
    encoded_list,
    encoded_varint,
    integer,
    read_fields,
    read_header,
    read_list_header,
    skip,
)

# Values of enumerations: types of pages, and encodings.
DATA_PAGE, DICTIONARY_PAGE = 0, 2
PLAIN, RLE, RLE_DICTIONARY = 0, 3, 8

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


# The columns whose chunks are replaced: by number, their path.
Columns = Mapping[int, Sequence[str]]
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
        return _with_chunks(footer, columns, chunks)
    except NotCompactThriftError as error:
        raise UnexpectedParquetError(f"the footer cannot be read: {error}") from None


def _with_chunks(footer: bytes, columns: Columns, chunks: Chunks) -> bytes:
    number, kind, at = read_header(footer, 0, 0)
    while kind and number != _ROW_GROUPS:
        number, kind, at = read_header(footer, skip(footer, at, kind), number)
    count, element, at = read_list_header(footer, at) if kind == LIST else (0, 0, at)
    if element != STRUCT or not set(chunks) <= set(range(count)):
        raise UnexpectedParquetError(f"found {count} row groups; expected group {max(chunks)}")
    parts, copied = [], 0
    for group in range(count):
        if group in chunks:
            row_group, end = _row_group(footer, at, columns, chunks[group])
            parts += [footer[copied:at], row_group]
            at = copied = end
        else:
            at = skip(footer, at, STRUCT)
    return b"".join([*parts, footer[copied:]])


def _row_group(
    footer: bytes, begin: int, columns: Columns, chunks: Sequence[Chunk]
) -> tuple[bytes, int]:
    """The row group at `begin` with other chunks, and where it ended."""
    number, kind, at = read_header(footer, begin, 0)
    count, element, at = read_list_header(footer, at) if kind == LIST else (0, 0, at)
    if (number, element) != (_COLUMNS, STRUCT) or not set(columns) <= set(range(count)):
        raise UnexpectedParquetError(f"found {count} columns; expected column {max(columns)}")
    new = dict(zip(columns, chunks, strict=True))
    parts, copied = [], begin
    more_bytes = more_compressed = 0
    for column in range(count):
        end = skip(footer, at, STRUCT)
        if column in new:
            metadata = _metadata(footer[at:end], columns[column])
            more_bytes += new[column].uncompressed_size - integer(metadata[_UNCOMPRESSED_SIZE][1])
            more_compressed += new[column].compressed_size - integer(metadata[_COMPRESSED_SIZE][1])
            parts += [footer[copied:at], _encoded_chunk(metadata, new[column])]
            copied = end
        at = end
    parts.append(footer[copied:at])
    rest, end = read_fields(footer, at, _COLUMNS)
    for number, more in ((_TOTAL_BYTE_SIZE, more_bytes), (_TOTAL_COMPRESSED_SIZE, more_compressed)):
        if number not in rest:
            raise UnexpectedParquetError(f"a row group has the fields {sorted(rest)}, not {number}")
        rest[number] = (I64, encoded_integer(integer(rest[number][1]) + more))
    return b"".join([*parts, encoded_fields(rest, _COLUMNS)]), end


def _metadata(encoded: bytes, path: Sequence[str]) -> Fields:
    """The ColumnMetaData of an encoded ColumnChunk, which must be that of the column `path`."""
    chunk, _ = read_fields(encoded, 0)
    # The offset is 0 where the metadata is here alone. More fields would tell of indexes.
    if set(chunk) != {_FILE_OFFSET, _META_DATA} or integer(chunk[_FILE_OFFSET][1]):
        raise UnexpectedParquetError(f"column {'.'.join(path)} has the fields {sorted(chunk)}")
    metadata, _ = read_fields(chunk[_META_DATA][1], 0)
    missing = {_TYPE, _PATH, _CODEC, _UNCOMPRESSED_SIZE, _COMPRESSED_SIZE} - set(metadata)
    steps = [step.encode() for step in path]
    encoded_path = encoded_list(BINARY, (encoded_varint(len(step)) + step for step in steps))
    if missing or metadata[_PATH] != (LIST, encoded_path):
        raise UnexpectedParquetError(f"expected column {'.'.join(path)}, found {metadata}")
    return metadata


def _encoded_chunk(old: Fields, chunk: Chunk) -> bytes:
    """A ColumnChunk with the type, path and compression of the ColumnMetaData `old`."""
    encodings = encoded_list(I32, map(encoded_integer, (PLAIN, RLE, RLE_DICTIONARY)))
    pages = ((DICTIONARY_PAGE, PLAIN, 1), (DATA_PAGE, RLE_DICTIONARY, chunk.data_pages))
    stats = encoded_list(STRUCT, (_encoded_stats(*page) for page in pages))
    numbers = {
        _NUM_VALUES: chunk.num_values,
        _UNCOMPRESSED_SIZE: chunk.uncompressed_size,
        _COMPRESSED_SIZE: chunk.compressed_size,
        _DATA_PAGE_OFFSET: chunk.data_page_offset,
        _DICTIONARY_PAGE_OFFSET: chunk.dictionary_page_offset,
    }
    metadata = {number: old[number] for number in (_TYPE, _PATH, _CODEC)}
    metadata |= {number: (I64, encoded_integer(value)) for number, value in numbers.items()}
    metadata |= {_ENCODINGS: (LIST, encodings), _ENCODING_STATS: (LIST, stats)}
    offset = (I64, encoded_integer(0))
    return encoded_fields({_FILE_OFFSET: offset, _META_DATA: (STRUCT, encoded_fields(metadata))})


def _encoded_stats(page_type: int, encoding: int, count: int) -> bytes:
    fields = {_PAGE_TYPE: page_type, _ENCODING: encoding, _COUNT: count}
    return encoded_fields({number: (I32, encoded_integer(v)) for number, v in fields.items()})
