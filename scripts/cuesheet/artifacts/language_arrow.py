"""The Arrow types of the two language columns, explicit in every file.

Types inferred from rows differ from file to file (double timestamps, null columns), and a dataset
whose files differ does not load.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from cuesheet.artifacts.language import EVENTS_COLUMN, PERSISTENT_COLUMN

_FUNCTION = pa.struct([("name", pa.string()), ("arguments", pa.struct([("text", pa.string())]))])
_TOOL_CALL = pa.struct([("type", pa.string()), ("function", _FUNCTION)])

PERSISTENT_ROW = pa.struct(
    [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string()),
        pa.field("style", pa.string()),
        pa.field("timestamp", pa.float32(), nullable=False),
        pa.field("camera", pa.string()),
        pa.field("tool_calls", pa.list_(pa.field("element", _TOOL_CALL))),
    ]
)
EVENT_ROW = pa.struct([field for field in PERSISTENT_ROW if field.name != "timestamp"])

PERSISTENT_TYPE = pa.list_(pa.field("element", PERSISTENT_ROW))
EVENTS_TYPE = pa.list_(pa.field("element", EVENT_ROW))
COLUMN_TYPES: Mapping[str, pa.DataType] = {
    PERSISTENT_COLUMN: PERSISTENT_TYPE,
    EVENTS_COLUMN: EVENTS_TYPE,
}


def _with_dictionaries(data_type: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(data_type):
        return pa.struct([f.with_type(_with_dictionaries(f.type)) for f in data_type])
    if pa.types.is_list(data_type):
        field = data_type.value_field
        return pa.list_(field.with_type(_with_dictionaries(field.type)))
    return pa.dictionary(pa.int32(), data_type) if pa.types.is_string(data_type) else data_type


# How the persistent list is held in memory and handed to the Parquet writer. Every frame has the
# same strings: with dictionaries, a frame costs 4 bytes per string, and none is hashed again.
PERSISTENT_DICTIONARY_TYPE = _with_dictionaries(PERSISTENT_TYPE)


def hub_features(feature_type: str) -> dict[str, Any]:
    """Return the two columns as the Hugging Face datasets library describes them in file metadata.

    `feature_type` is its name for lists: "List" (datasets 4 and later) or "Sequence".
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
