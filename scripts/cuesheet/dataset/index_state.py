"""Whether an index is current. Light to import, because the Snakefile needs it."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.dataset.metadata import Dataset

# Key of the index's schema metadata that holds the state of the dataset it was made from.
STATE_KEY = b"cuesheet_source_state"
NOTICES_KEY = b"cuesheet_notices"


def source_state(dataset: Dataset) -> str:
    """Return a hash of the metadata and of the size and modification time of every file."""
    digest = hashlib.sha256()
    files = {*dataset.data_files}
    for episode in dataset.episodes:
        digest.update(repr(episode).encode())
        files.update(video.file for video in episode.videos.values())
    for file in sorted(files):
        digest.update(f"{file} {file_state(dataset.root / file)}".encode())
    return digest.hexdigest()


def file_state(path: Path | str) -> str:
    """Return the size and modification time of a file, which change when its content does."""
    try:
        status = Path(path).stat()
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def read_notices(path: Path | str) -> list[str]:
    """Return the notices that were collected when the index was made."""
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(NOTICES_KEY, b"[]"))


def is_current(path: Path | str, dataset: Dataset, selected: Collection[int]) -> bool:
    """Return whether an index was made from the dataset as it is and has the selected episodes."""
    try:
        with pq.ParquetFile(path) as file:
            state = (file.schema_arrow.metadata or {}).get(STATE_KEY)
            indexed = file.read(columns=["episode_index"]).column(0).to_pylist()
    except (OSError, pa.ArrowException):
        return False
    return state == source_state(dataset).encode() and set(selected) <= set(indexed)
