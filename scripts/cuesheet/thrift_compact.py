"""Structs of Thrift's compact protocol, in which Parquet describes its pages and columns.

The protocol describes itself, so a struct is taken apart without its definition: what is not
understood is copied as it is. https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Iterable, Mapping

# Types of values.
I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12
_TRUE, _FALSE, _BYTE, _I16, _DOUBLE, _SET = 1, 2, 3, 4, 7, 10

# A struct: by the number of the field its type and its encoded value, in the order of the numbers.
Fields = dict[int, tuple[int, bytes]]


class NotCompactThriftError(ValueError):
    """The bytes are not what they should be."""


def read_fields(data: bytes, at: int, number: int = 0) -> tuple[Fields, int]:
    """The fields from `at` to the end of their struct, and where it ends.

    `number` is that of the field before `at`; 0 at the beginning of a struct.
    """
    fields: Fields = {}
    while True:
        number, kind, at = read_header(data, at, number)
        if not kind:
            return fields, at
        end = skip(data, at, kind)
        if number in fields:
            raise NotCompactThriftError(f"field {number} is there twice")
        fields[number] = (kind, data[at:end])
        at = end


def read_header(data: bytes, at: int, number: int) -> tuple[int, int, int]:
    """The header of the field after field `number`: its number, its type, where its value begins.

    At the end of a struct the type is 0.
    """
    header = _byte(data, at)
    at += 1
    if header == 0:
        return number, 0, at
    if header >> 4:
        return number + (header >> 4), header & 15, at
    end = skip(data, at, _I16)
    return integer(data[at:end]), header & 15, end


def read_list_header(data: bytes, at: int) -> tuple[int, int, int]:
    """Number and type of the elements of the list at `at`, and where the first one begins."""
    header = _byte(data, at)
    at += 1
    count = header >> 4
    if count == 15:
        count, at = _varint(data, at)
    return count, header & 15, at


def skip(data: bytes, at: int, kind: int) -> int:
    """Where the value of type `kind` that begins at `at` ends."""
    if kind in (I64, I32, _I16):
        while _byte(data, at) > 127:
            at += 1
        return at + 1
    if kind == STRUCT:
        while header := _byte(data, at):
            at += 1
            if header < 16:
                at = skip(data, at, _I16)
            if header & 15 not in (_TRUE, _FALSE):
                at = skip(data, at, header & 15)
        return at + 1
    if kind == BINARY:
        length, at = _varint(data, at)
        return at + length
    if kind in (LIST, _SET):
        count, element, at = read_list_header(data, at)
        if element in (_TRUE, _FALSE, _BYTE):
            return at + count
        for _ in range(count):
            at = skip(data, at, element)
        return at
    if kind in (_TRUE, _FALSE):
        return at
    if kind in (_BYTE, _DOUBLE):
        return at + (1 if kind == _BYTE else 8)
    raise NotCompactThriftError(f"a value of type {kind}, which Parquet does not use, at byte {at}")


def integer(value: bytes) -> int:
    """The number that an encoded I16, I32 or I64 stands for."""
    unsigned, end = _varint(value, 0)
    if end != len(value):
        raise NotCompactThriftError("an integer is longer than its value")
    return (unsigned >> 1) ^ -(unsigned & 1)


def encoded_integer(value: int) -> bytes:
    """An I16, I32 or I64."""
    return encoded_varint(value << 1 if value >= 0 else (-value << 1) - 1)


def encoded_list(kind: int, elements: Iterable[bytes]) -> bytes:
    """A list of encoded values of type `kind`."""
    listed = list(elements)
    count = len(listed)
    header = bytes([count << 4 | kind]) if count < 15 else bytes([15 << 4 | kind])
    return header + (encoded_varint(count) if count >= 15 else b"") + b"".join(listed)


def encoded_fields(fields: Mapping[int, tuple[int, bytes]], before: int = 0) -> bytes:
    """Fields and the end of their struct; `before` is the number of the field before them."""
    parts = []
    for number in sorted(fields):
        kind, value = fields[number]
        step = number - before
        short = 0 < step < 16
        parts.append(bytes([step << 4 | kind] if short else [kind]))
        if not short:
            parts.append(encoded_integer(number))
        parts.append(value)
        before = number
    return b"".join(parts) + b"\0"


def _byte(data: bytes, at: int) -> int:
    try:
        return data[at]
    except IndexError:
        raise NotCompactThriftError("the data ends within a value") from None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = _byte(data, at)
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def encoded_varint(value: int) -> bytes:
    """An unsigned number, such as the length of binary data."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
