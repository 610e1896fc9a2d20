"""Thrift's compact protocol, in which Parquet describes its pages and columns.

The protocol describes itself, so a struct is gone through without its definition.
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md

Reading raises `MALFORMED` where the bytes are not of the protocol, or end too early.
"""

from collections.abc import Iterable, Mapping

# Types of values.
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)

MALFORMED = (IndexError, ValueError)

_INTEGERS = (I64, I32, I16)
_NOTHING = (TRUE, FALSE)  # the type of a field is its value

# A struct by the numbers of its fields; of values that are no numbers or structs, the bytes.
Struct = dict[int, "int | bytes | Struct"]


def skip(data: bytes, at: int, kind: int) -> int:
    """Where the value of type `kind` that begins at `at` ends."""
    if kind == STRUCT:
        while header := data[at]:
            at += 1
            kind = header & 15
            if header < 16:
                _, at = _varint(data, at)  # the field's number
            # Integers and short strings here, not in a call: a footer has a hundred thousand.
            if kind in _INTEGERS:
                while data[at] > 127:
                    at += 1
                at += 1
            elif kind == BINARY and data[at] < 128:
                at += data[at] + 1
            elif kind not in _NOTHING:
                at = skip(data, at, kind)
        return at + 1
    if kind in _INTEGERS:
        return _varint(data, at)[1]
    if kind == BINARY:
        length, at = _varint(data, at)
        return at + length
    if kind in (LIST, SET):
        count, element, at = read_list_header(data, at)
        for _ in range(count):
            at = at + 1 if element in _NOTHING else skip(data, at, element)
        return at
    if kind in (BYTE, DOUBLE):
        return at + (1 if kind == BYTE else 8)
    raise ValueError(f"a value of type {kind}, which Parquet does not use, at byte {at}")


def read_header(data: bytes, at: int, before: int) -> tuple[int, int, int]:
    """The header of the field after field `before`: its number, its type, where its value is.

    At the end of the struct the type is 0.
    """
    header = data[at]
    if 0 < header < 16:
        number, at = _varint(data, at + 1)
        return _signed(number), header, at
    return before + (header >> 4), header & 15, at + 1


def read_list_header(data: bytes, at: int) -> tuple[int, int, int]:
    """Number and type of the elements of the list at `at`, and where the first one is."""
    header = data[at]
    if header >> 4 < 15:
        return header >> 4, header & 15, at + 1
    count, at = _varint(data, at + 1)
    return count, header & 15, at


def read_integer(data: bytes, at: int) -> tuple[int, int]:
    """The integer at `at`, and where it ends."""
    value, at = _varint(data, at)
    return _signed(value), at


def read_struct(data: bytes, at: int, before: int = 0) -> tuple[Struct, int]:
    """The fields from `at` on, which follow field `before`, and where their struct ends."""
    fields: Struct = {}
    while data[at]:
        before, kind, at = read_header(data, at, before)
        if kind in _INTEGERS:
            fields[before], at = read_integer(data, at)
        elif kind == STRUCT:
            fields[before], at = read_struct(data, at)
        elif kind in _NOTHING:
            fields[before] = kind == TRUE
        else:
            end = skip(data, at, kind)
            fields[before], at = data[at:end], end
    return fields, at + 1


def integer(value: int) -> bytes:
    """An encoded I16, I32 or I64."""
    return varint(value << 1 if value >= 0 else -2 * value - 1)


def binary(value: bytes) -> bytes:
    return varint(len(value)) + value


def list_header(count: int, kind: int) -> bytes:
    """What goes before `count` encoded values of type `kind`."""
    return bytes([count << 4 | kind]) if count < 15 else bytes([15 << 4 | kind]) + varint(count)


def listed(kind: int, elements: Iterable[bytes]) -> bytes:
    """A list of encoded values of type `kind`."""
    values = list(elements)
    return list_header(len(values), kind) + b"".join(values)


def fields(values: Mapping[int, tuple[int, bytes]], before: int = 0) -> bytes:
    """Encoded fields, by number type and encoded value, in order; `before` is the one before them.

    A struct ends with `STOP`.
    """
    parts = []
    for number, (kind, value) in values.items():
        step = number - before
        parts.append(
            bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + integer(number)
        )
        parts.append(value)
        before = number
    return b"".join(parts)


STOP = b"\0"


def varint(value: int) -> bytes:
    """An unsigned number, of seven bits a byte."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = data[at]
    at += 1
    if value < 128:
        return value, at
    value &= 127
    shift = 7
    while (byte := data[at]) > 127:
        value |= (byte & 127) << shift
        shift += 7
        at += 1
    return value | byte << shift, at + 1


def _signed(value: int) -> int:
    return value >> 1 ^ -(value & 1)
