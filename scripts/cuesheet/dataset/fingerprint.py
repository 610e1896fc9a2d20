"""Fingerprints of episodes: a hash of what the metadata says about an episode's content.

The hash covers the tasks, the length and the per-episode statistics of every recorded feature. It
does not cover the episode's position in files, or counters that change when episodes are added
before it. Appending episodes or rewriting the files therefore keeps a fingerprint, and recording
the episode again changes it.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

# Columns of meta/episodes that describe content: stats/<feature>/<statistic>.
STATISTICS = re.compile(
    r"stats/(?!(?:index|episode_index|task_index|frame_index)/)(.+)/(?:min|max|mean|std|count)"
)


def fingerprints(
    table: pa.Table, tasks: Sequence[tuple[str, ...]], lengths: Sequence[int]
) -> list[str]:
    """Return one string of 32 hex digits per row of `table`, which has columns of meta/episodes.

    The fingerprint of a row depends on that row only.
    """
    names = sorted(name for name in table.column_names if STATISTICS.fullmatch(name))
    columns = {name: table.column(name).combine_chunks() for name in names}
    matrices = {name: _as_matrix(column) for name, column in columns.items()}
    heads = (json.dumps([texts, length]) for texts, length in zip(tasks, lengths, strict=True))
    whole = {name: matrix for name, matrix in matrices.items() if matrix is not None}
    if len(whole) == len(matrices):
        # Every row has the same number of values in every column: one block of bytes per row.
        layout = _layout((name, matrix.shape[1]) for name, matrix in whole.items())
        block = np.hstack([np.empty((len(table), 0)), *whole.values()])
        rows = (row.tobytes() for row in np.ascontiguousarray(block, dtype="<f8"))
        return [_digest(head, layout, row) for head, row in zip(heads, rows, strict=True)]
    found = []
    for row, head in enumerate(heads):
        arrays = {
            name: _as_vector(columns[name][row].as_py()) if matrix is None else matrix[row]
            for name, matrix in matrices.items()
        }
        held = {name: array for name, array in arrays.items() if array is not None}
        layout = _layout((name, len(array)) for name, array in held.items())
        found.append(_digest(head, layout, b"".join(a.tobytes() for a in held.values())))
    return found


def _layout(columns: Iterable[tuple[str, int]]) -> str:
    return "".join(f"\n{name}:{count}" for name, count in columns) + "\n"


def _digest(head: str, layout: str, values: bytes) -> str:
    return hashlib.blake2b(head.encode() + layout.encode() + values, digest_size=16).hexdigest()


def _as_vector(value: Any) -> np.ndarray | None:
    """Return all numbers of a nested list in order: NaN for a missing number, None for no list."""
    if value is None:
        return None
    return np.array([np.nan if leaf is None else leaf for leaf in leaves(value)], dtype="<f8")


def leaves(value: Any) -> Iterator[Any]:
    """Yield the numbers of a nested list in order; `value` itself if it is not a list."""
    if isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def _as_matrix(column: pa.Array) -> np.ndarray | None:
    """Return the column as float64 [rows, values per row]; None if rows differ in their number."""
    rows = len(column)
    values = column
    while pa.types.is_nested(values.type):
        if values.null_count:
            return None
        if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            lengths = np.diff(np.from_dlpack(values.offsets))
            if len(lengths) and (lengths != lengths[0]).any():
                return None
        elif not pa.types.is_fixed_size_list(values.type):
            return None
        values = values.flatten()
    is_number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    if not is_number or values.null_count or not rows or len(values) % rows:
        return None
    # pyarrow's own conversion to numpy would import pandas, for 0.3 CPU seconds of every start.
    return np.from_dlpack(values).astype("<f8").reshape(rows, -1)
