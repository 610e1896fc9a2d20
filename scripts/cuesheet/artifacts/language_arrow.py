"""The Arrow types of the two language columns, explicit in every file.

Types inferred from rows differ from file to file (double timestamps, null columns), and a dataset
whose files differ does not load.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cuesheet.artifacts.language import EVENTS_COLUMN, PERSISTENT_COLUMN

_TOOL_CALLS = pa.list_(
    pa.field(
        "element",
        pa.struct(
            [
                pa.field("type", pa.string()),
                pa.field(
                    "function",
                    pa.struct(
                        [
                            pa.field("name", pa.string()),
                            pa.field("arguments", pa.struct([pa.field("text", pa.string())])),
                        ]
                    ),
                ),
            ]
        ),
    )
)

PERSISTENT_ROW = pa.struct(
    [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string()),
        pa.field("style", pa.string()),
        pa.field("timestamp", pa.float32(), nullable=False),
        pa.field("camera", pa.string()),
        pa.field("tool_calls", _TOOL_CALLS),
    ]
)
EVENT_ROW = pa.struct([field for field in PERSISTENT_ROW if field.name != "timestamp"])

PERSISTENT_TYPE = pa.list_(pa.field("element", PERSISTENT_ROW))
EVENTS_TYPE = pa.list_(pa.field("element", EVENT_ROW))
COLUMN_TYPES: Mapping[str, pa.DataType] = {
    PERSISTENT_COLUMN: PERSISTENT_TYPE,
    EVENTS_COLUMN: EVENTS_TYPE,
}


def hub_features(feature_type: str) -> dict[str, Any]:
    """The two columns as the Hugging Face datasets library describes them in parquet metadata.

    Args:
        feature_type: what the file calls lists: "List" (datasets 4 and later) or "Sequence".
    """
    text = {"dtype": "string", "_type": "Value"}
    call = {"type": text, "function": {"name": text, "arguments": {"text": text}}}

    def listed(item: Mapping[str, Any]) -> Any:
        return {"feature": item, "_type": "List"} if feature_type == "List" else [item]

    event = {"role": text, "content": text, "style": text, "camera": text}
    timestamp = {"dtype": "float32", "_type": "Value"}
    persistent = {"role": text, "content": text, "style": text, "timestamp": timestamp}
    persistent |= {"camera": text, "tool_calls": listed(call)}
    return {
        PERSISTENT_COLUMN: listed(persistent),
        EVENTS_COLUMN: listed({**event, "tool_calls": listed(call)}),
    }


def array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """`pyarrow.array(values, kind)` for the types of the language columns.

    pyarrow's own imports pandas, to look whether it is given something of pandas: 0.2 s of CPU.

    Args:
        values: dicts, lists, strings or numbers, as `kind` says; None is null.
        kind: struct, list, string, float32 or int32.
    """
    missing = values.count(None)
    if missing == len(values):
        return pa.nulls(missing, kind)
    validity = [value is not None for value in values] if missing else None
    buffers: list[Any] = [np.packbits(validity, bitorder="little") if missing else None]
    children = []
    if pa.types.is_struct(kind):
        given = [value or {} for value in values] if missing else values
        for field in kind:
            children.append(array([value.get(field.name) for value in given], field.type))
    elif pa.types.is_list(kind):
        given = [value or () for value in values] if missing else values
        buffers.append(_offsets(given))
        children.append(array(list(itertools.chain.from_iterable(given)), kind.value_type))
    elif pa.types.is_string(kind):
        given = [(value or "").encode() for value in values]
        buffers += [_offsets(given), b"".join(given)]
    else:
        numbers = {pa.float32(): np.float32, pa.int32(): np.int32}[kind]
        buffers.append(np.array([value or 0 for value in values], numbers))
    wrapped = [None if buffer is None else pa.py_buffer(buffer) for buffer in buffers]
    return pa.Array.from_buffers(kind, len(values), wrapped, children=children)


def _offsets(values: Sequence[Any]) -> np.ndarray:
    return np.array([0, *itertools.accumulate(map(len, values))], np.int32)
