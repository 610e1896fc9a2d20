"""The Arrow types of the two language columns, explicit in every file.

Types inferred from rows differ from file to file (double timestamps, null columns), and a dataset
whose files differ does not load.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from cuesheet.language import EVENTS_COLUMN, PERSISTENT_COLUMN

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
