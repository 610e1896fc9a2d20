"""Adds column chunks to the footer of a Parquet file that pyarrow has written without them.

What the footer says of other columns stays byte by byte. The fields are those of
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from cuesheet.assemble import thrift_compact as thrift

# Values of enumerations: types of pages, encodings, compression, types of values.
DATA_PAGE, DICTIONARY_PAGE = 0, 2
PLAIN, RLE, RLE_DICTIONARY = 0, 3, 8
_SNAPPY = 1
_PHYSICAL_TYPES = {"FLOAT": 4, "BYTE_ARRAY": 6}

_MAGIC = b"PAR1"
_NUM_ROWS, _ROW_GROUPS = 3, 4  # of FileMetaData
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


# The columns that are added, by number: consecutive ones.
Columns = Mapping[int, pq.ColumnSchema]


def read_footer(end: bytes) -> bytes:
    """The encoded FileMetaData in what a writer writes when it is closed, which is that alone."""
    if end[-4:] != _MAGIC or int.from_bytes(end[-8:-4], "little") != len(end) - 8:
        raise UnexpectedParquetError(f"a file ends with {end[-8:]!r}")
    return end[:-8]


def end_of_file(footer: bytes) -> bytes:
    """What a Parquet file ends with."""
    return footer + len(footer).to_bytes(4, "little") + _MAGIC


def with_columns(
    footer: bytes, empty: bytes, columns: Columns, chunks: Sequence[Sequence[Chunk]]
) -> bytes:
    """`footer`, the encoded FileMetaData of a file, with more columns.

    Args:
        footer: of the file without these columns.
        empty: of a file with all columns and no rows.
        columns: what is added.
        chunks: by row group, a chunk for each of the columns in their order.

    Raises:
        UnexpectedParquetError: a footer is not as expected.
    """
    try:
        beginnings = [_beginning(column) for column in columns.values()]
        return _with_columns(footer, empty, min(columns), beginnings, chunks)
    except (KeyError, TypeError, *thrift.MALFORMED) as error:
        raise UnexpectedParquetError(f"a footer cannot be read: {error!r}") from None


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


def _with_columns(
    footer: bytes,
    empty: bytes,
    first_column: int,
    beginnings: Sequence[bytes],
    chunks: Sequence[Sequence[Chunk]],
) -> bytes:
    fields, none, rest = _before_row_groups(empty)
    own_fields, count, at = _before_row_groups(footer)
    if none or count != len(chunks):
        raise UnexpectedParquetError(f"{none} and {count} row groups; expected {len(chunks)}")
    fields[_NUM_ROWS] = own_fields[_NUM_ROWS]
    parts = [thrift.fields(fields), thrift.list_header(count, thrift.STRUCT)]
    for of_group in chunks:
        added = list(zip(beginnings, of_group, strict=True))
        row_group, at = _row_group(footer, at, first_column, added)
        parts.append(row_group)
    return b"".join([*parts, empty[rest:]])


def _before_row_groups(footer: bytes) -> tuple[dict[int, tuple[int, bytes]], int, int]:
    """The encoded fields before the row groups; how many these are, and where the first one is."""
    fields: dict[int, tuple[int, bytes]] = {}
    number, kind, at = thrift.read_header(footer, 0, 0)
    while kind and number != _ROW_GROUPS:
        end = thrift.skip(footer, at, kind)
        fields[number] = (kind, footer[at:end])
        number, kind, at = thrift.read_header(footer, end, number)
    count, first = _read_structs(footer, at, kind)
    return fields | {_ROW_GROUPS: (kind, b"")}, count, first


def _read_structs(footer: bytes, at: int, kind: int) -> tuple[int, int]:
    """How many structs the value of type `kind` lists, and where the first one is."""
    if kind == thrift.LIST:
        count, element, at = thrift.read_list_header(footer, at)
        if element == thrift.STRUCT:
            return count, at
    raise UnexpectedParquetError(f"no list of structs at byte {at} of a footer")


def _row_group(
    footer: bytes, begin: int, first_column: int, added: Sequence[tuple[bytes, Chunk]]
) -> tuple[bytes, int]:
    """The row group at `begin` with more chunks, and where it ended."""
    number, kind, columns = thrift.read_header(footer, begin, 0)
    count, first = _read_structs(footer, columns, kind)
    if number != _COLUMNS or first_column > count:
        raise UnexpectedParquetError(f"a row group of {count} columns; expected {first_column}")
    at = insert = first
    for column in range(count):
        at = thrift.skip(footer, at, thrift.STRUCT)
        if column + 1 == first_column:
            insert = at
    header = thrift.list_header(count + len(added), thrift.STRUCT)
    new = [beginning + _encoded(chunk) for beginning, chunk in added]
    parts = [footer[begin:columns], header, footer[first:insert], *new, footer[insert:at]]
    more = {
        _TOTAL_BYTE_SIZE: sum(chunk.uncompressed_size for _, chunk in added),
        _TOTAL_COMPRESSED_SIZE: sum(chunk.compressed_size for _, chunk in added),
    }
    while True:
        number, kind, value = thrift.read_header(footer, at, number)
        if not kind:
            break
        end = thrift.skip(footer, value, kind)
        if number in more:
            old, _ = thrift.read_integer(footer, value)
            parts += [footer[at:value], thrift.integer(old + more.pop(number))]
        else:
            parts.append(footer[at:end])
        at = end
    if more:
        raise UnexpectedParquetError(f"a row group has no fields {sorted(more)}")
    return b"".join([*parts, thrift.STOP]), value


def _encoded(chunk: Chunk) -> bytes:
    """The ColumnChunk of a chunk, after what `_beginning` gives."""
    numbers = {
        _NUM_VALUES: chunk.num_values,
        _UNCOMPRESSED_SIZE: chunk.uncompressed_size,
        _COMPRESSED_SIZE: chunk.compressed_size,
        _DATA_PAGE_OFFSET: chunk.data_page_offset,
        _DICTIONARY_PAGE_OFFSET: chunk.dictionary_page_offset,
    }
    values = {number: (thrift.I64, thrift.integer(value)) for number, value in numbers.items()}
    values[_ENCODING_STATS] = (thrift.LIST, _encoding_stats(chunk.data_pages))
    return thrift.fields(values, _CODEC) + thrift.STOP * 2


@functools.cache
def _encoding_stats(data_pages: int) -> bytes:
    structs = []
    for numbers in ((DICTIONARY_PAGE, PLAIN, 1), (DATA_PAGE, RLE_DICTIONARY, data_pages)):
        encoded = ((thrift.I32, thrift.integer(number)) for number in numbers)
        fields = dict(zip((_PAGE_TYPE, _ENCODING, _COUNT), encoded, strict=True))
        structs.append(thrift.fields(fields) + thrift.STOP)
    return thrift.listed(thrift.STRUCT, structs)
