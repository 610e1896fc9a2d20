"""Writes annotated data files: one row group per episode, the language columns last, snappy.

Invariants of every file: it has exactly the schema that was given, the persistent column is stored
with dictionaries, and no file is complete before the writer is closed.
"""

import base64
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.language import LANGUAGE_COLUMNS, PERSISTENT_COLUMN
from cuesheet.artifacts.language_arrow import PERSISTENT_DICTIONARY_TYPE

# Beyond its limit a dictionary is abandoned and every frame stores its strings in full: with the
# default of 1 MiB, the persistent list of 300 subtasks takes 40 GB per hour.
_DICTIONARY_BYTES = 256 << 20
# Values between two checks of a page's size. Images need a small number: 1024 of them, the default,
# may be gigabytes.
_BATCH_VALUES, _BATCH_IMAGES = 1 << 14, 16


class EpisodeWriter:
    """A Parquet file to which episodes are added, one row group each."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Create `path`; `schema` is that of the table, with the two language columns last."""
        at = schema.get_field_index(PERSISTENT_COLUMN)
        field = schema.field(at).with_type(PERSISTENT_DICTIONARY_TYPE)
        self._schema = schema.set(at, field)
        self._writer = pq.ParquetWriter(
            path, self._schema, store_schema=False, **_write_options(schema)
        )
        # Readers take the Arrow types from the key ARROW:schema. pyarrow would store the types of
        # the arrays that are written, in which the persistent column has dictionaries.
        types = {b"ARROW:schema": base64.b64encode(schema.serialize())}
        self._writer.add_key_value_metadata({**(schema.metadata or {}), **types})

    def __enter__(self) -> "EpisodeWriter":
        return self

    def __exit__(self, *exception: Any) -> None:
        self._writer.close()

    def write(self, table: pa.Table, persistent: pa.ChunkedArray, events: pa.ChunkedArray) -> None:
        """Add an episode: `table` with the columns of the source, and the two language columns.

        They have one list per frame, of `PERSISTENT_DICTIONARY_TYPE` and `EVENTS_TYPE`.
        """
        whole = pa.table([*table.columns, persistent, events], schema=self._schema)
        self._writer.write_table(whole, row_group_size=max(whole.num_rows, 1))


def _write_options(schema: pa.Schema) -> dict[str, Any]:
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    stored = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    leaves = [stored.column(number) for number in range(len(stored))]
    # Values that never repeat would fill a dictionary of `_DICTIONARY_BYTES` before it is dropped.
    distinct = {leaf.path for leaf in leaves if _is_image(leaf) or _is_measured(leaf)}
    has_images = any(_is_image(leaf) for leaf in leaves)
    return {
        "compression": "snappy",
        "use_dictionary": [leaf.path for leaf in leaves if leaf.path not in distinct],
        # Nothing can be selected by the smallest and the largest text of an episode.
        "write_statistics": [leaf.path for leaf in leaves if not _is_language(leaf)],
        "dictionary_pagesize_limit": _DICTIONARY_BYTES,
        "write_batch_size": _BATCH_IMAGES if has_images else _BATCH_VALUES,
    }


def _is_image(leaf: pq.ColumnSchema) -> bool:
    return leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type == "NONE"


def _is_measured(leaf: pq.ColumnSchema) -> bool:
    return leaf.physical_type in ("FLOAT", "DOUBLE") and not _is_language(leaf)


def _is_language(leaf: pq.ColumnSchema) -> bool:
    return leaf.path.split(".")[0] in LANGUAGE_COLUMNS
