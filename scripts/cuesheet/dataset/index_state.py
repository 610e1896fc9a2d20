"""Whether an index still fits its source. Light to import: the Snakefile asks this."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.dataset.metadata import Dataset

# Key of the index's schema metadata that holds the state of the source it was made from.
STATE_KEY = b"cuesheet_source_state"
NOTICES_KEY = b"cuesheet_notices"


def source_state(dataset: Dataset) -> str:
    """A hash of all that the index was made from: metadata, and size and time of every file."""
    digest = hashlib.sha256()
    files = {*dataset.data_files}
    for episode in dataset.episodes:
        digest.update(repr(episode).encode())
        files.update(video.file for video in episode.videos.values())
    for file in sorted(files):
        digest.update(f"{file} {file_state(dataset.root / file)}".encode())
    return digest.hexdigest()


def file_state(path: Path | str) -> str:
    """Size and modification time of a file: what changes when its content does."""
    try:
        status = Path(path).stat()
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def read_notices(path: Path | str) -> list[str]:
    """What was noticed when the index was made: sentences for a person."""
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(NOTICES_KEY, b"[]"))


def is_current(path: Path | str, dataset: Dataset, selected: Collection[int]) -> bool:
    """Whether the index at `path` was made from the dataset as it is and has what is selected."""
    try:
        with pq.ParquetFile(path) as file:
            state = (file.schema_arrow.metadata or {}).get(STATE_KEY)
            indexed = file.read(columns=["episode_index"]).column(0).to_pylist()
    except (OSError, pa.ArrowException):
        return False
    return state == source_state(dataset).encode() and set(selected) <= set(indexed)
