"""Finds the data file of each episode if meta/episodes names the wrong one.

Metadata that was edited or merged by hand can point to the previous or the next file. The
files' own rows decide. Footers are read first, and columns only if the numbers of rows disagree.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.dataset.models import Episode
from cuesheet.text import describe_range


def resolve_data_files(root: Path, episodes: Sequence[Episode]) -> tuple[list[Episode], str | None]:
    """Return the episodes with the data files that hold their rows, and a notice if any moved.

    Missing and unreadable files are ignored here: the index reports them.
    """
    expected: dict[str, int] = {}
    for episode in episodes:
        expected[episode.data_file] = expected.get(episode.data_file, 0) + episode.length
    if len(expected) < 2:
        return list(episodes), None
    if all(_rows(root / file) in (None, rows) for file, rows in expected.items()):
        return list(episodes), None
    holder: dict[int, str] = {}
    for file in sorted(expected):
        for index in _episode_indices(root / file):
            holder.setdefault(index, file)
    moved = [e for e in episodes if holder.get(e.episode_index, e.data_file) != e.data_file]
    if not moved:
        return list(episodes), None
    wrong = {episode.episode_index for episode in moved}
    notice = (
        f"meta/episodes names the wrong data file for {describe_range(wrong)}; the files' own rows "
        "are used."
    )
    return [
        replace(e, data_file=holder[e.episode_index]) if e.episode_index in wrong else e
        for e in episodes
    ], notice


def _rows(path: Path) -> int | None:
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException):
        return None


def _episode_indices(path: Path) -> list[int]:
    try:
        column = pq.read_table(path, columns=["episode_index"]).column(0)
    except (OSError, pa.ArrowException):
        return []
    if pa.types.is_nested(column.type):
        column = pa.chunked_array([chunk.flatten() for chunk in column.chunks])
    return [int(index) for index in np.unique(column.to_numpy()).tolist()]
