"""Reads the state and action of an episode from its data file as arrays [frames, dimensions]."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.index import IndexedEpisode
from cuesheet.errors import CuesheetError


@dataclass(frozen=True)
class Record:
    """State and action of one episode; a value that is missing in the file is NaN."""

    timestamps_s: np.ndarray  # [frames]
    state: np.ndarray  # [frames, dimensions of the state], 0 of them if the dataset has none
    action: np.ndarray

    @property
    def length(self) -> int:
        return len(self.timestamps_s)


def read_record(
    root: Path, row: IndexedEpisode, state: Sequence[str], action: Sequence[str]
) -> Record:
    """Read the columns of one episode.

    Raises CuesheetError if the file cannot be read, or a column is missing or is not numeric.
    """
    path = root / row.data_file
    columns = list(dict.fromkeys([*state, *action]))
    try:
        with pq.ParquetFile(path) as file:
            arrays = _read_rows(file, columns, row)
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise CuesheetError(
            f"{path}: the columns {', '.join(columns)} of episode {row.episode_index} cannot be "
            f"read ({error}). Set signals.state and signals.action to numeric columns, or "
            "signals.enabled to false."
        ) from None
    times = np.asarray(row.shortest_timestamps)
    return Record(
        times - times[0], _join(arrays, state, row.length), _join(arrays, action, row.length)
    )


def _read_rows(
    file: pq.ParquetFile, columns: Sequence[str], row: IndexedEpisode
) -> dict[str, np.ndarray]:
    """Return columns of the rows [row_from, row_to), from the row groups that contain them."""
    wanted = [name for name in (*columns, "episode_index") if name in file.schema_arrow.names]
    missing = set(columns) - set(wanted)
    if missing:
        raise KeyError(f"no column {', '.join(sorted(missing))}")
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    ends = list(itertools.accumulate(sizes))
    groups = [
        group
        for group, (end, size) in enumerate(zip(ends, sizes, strict=True))
        if end - size < row.row_to and end > row.row_from
    ]
    table = file.read_row_groups(groups, columns=wanted, use_threads=False)
    first = ends[groups[0]] - sizes[groups[0]]
    table = table.slice(row.row_from - first, row.length)
    if len(table) != row.length:
        raise ValueError(f"{len(table)} rows instead of {row.length}")
    return {name: _as_array(table.column(name)) for name in columns}


def _as_array(column: pa.ChunkedArray) -> np.ndarray:
    """Return numbers or (nested) lists of numbers as float64 [frames, dimensions]; null as NaN."""
    kind = column.type
    while isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        kind = kind.value_type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise TypeError(f"values of type {kind}")
    rows = column.to_pylist()
    known = [np.array(row, dtype=np.float64).reshape(-1) for row in rows if row is not None]
    array = np.full((len(rows), max(map(len, known), default=0)), np.nan)
    array[[row is not None for row in rows]] = known
    return array


def _join(arrays: Mapping[str, np.ndarray], columns: Sequence[str], length: int) -> np.ndarray:
    if not columns:
        return np.zeros((length, 0))
    return np.hstack([arrays[name] for name in columns])


def dimension_names(features: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Return the name of each dimension of the joined columns; `column[3]` if it has none."""
    names: list[str] = []
    for column in columns:
        feature = features[column]
        size = int(np.prod(feature.get("shape") or [1]))
        given = _flat_names(feature.get("names"))
        if len(given) == size:
            names += given
        elif size == 1:
            names.append(column.rpartition(".")[2])
        else:
            names += [f"{column}[{number}]" for number in range(size)]
    return names


def _flat_names(names: Any) -> list[str]:
    """Return the names of a feature, which are stored as a list or as `{"motors": [...]}`."""
    if isinstance(names, Mapping):
        return [name for part in names.values() for name in _flat_names(part)]
    if isinstance(names, list):
        return [name for part in names for name in _flat_names(part)]
    return [names] if isinstance(names, str) else []


def columns_of(features: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    """Return those of `wanted` that are numeric columns of the dataset."""
    return [
        name for name in wanted if name in features and str(features[name].get("dtype")) in _NUMERIC
    ]


_NUMERIC = {
    "float16", "float32", "float64", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool",
}  # fmt: skip
