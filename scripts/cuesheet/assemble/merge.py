"""Writes a data file of the dataset anew, with the two language columns.

One episode at a time goes through: the source's columns unchanged, the language columns last, one
row group an episode. The persistent list is the same on every frame; it is built and encoded for a
few frames, and what they make is repeated (`repeated_pages`): neither memory nor time grows with
frames times rows.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.language import (
    LANGUAGE_COLUMNS,
    STALE_COLUMNS,
    Row,
    sort_events,
    sort_persistent,
)
from cuesheet.artifacts.language_arrow import (
    COLUMN_TYPES,
    EVENT_ROW,
    EVENTS_TYPE,
    PERSISTENT_ROW,
    PERSISTENT_TYPE,
    array,
    hub_features,
)
from cuesheet.assemble.existing_rows import foreign_rows
from cuesheet.assemble.parquet_footer import UnexpectedParquetError
from cuesheet.assemble.repeated_pages import EpisodeWriter
from cuesheet.dataset.data_reader import (
    READ_OPTIONS,
    Repeated,
    SourceLanguage,
    as_column,
    episode_tables,
)
from cuesheet.errors import CuesheetError
from cuesheet.files import atomic_path

# Beyond its limit a dictionary is given up and every frame holds its strings in full: with the
# default of 1 MiB, the persistent list of 300 subtasks makes some 40 GB of an hour.
_DICTIONARY_BYTES = 256 << 20


@dataclass(frozen=True)
class EpisodeRows:
    """The annotations of an episode; events still carry their timestamp."""

    persistent: Sequence[Row]
    events: Sequence[Row]


@dataclass(frozen=True)
class Merged:
    """What a merge did, by episode number."""

    annotated: tuple[int, ...]
    kept_from_source: tuple[int, ...]  # not annotated here, but the source had language rows
    empty: tuple[int, ...]
    frames: int


def merge_file(
    source: Path,
    output: Path,
    annotations: Callable[[int], EpisodeRows | None],
    expected: Mapping[int, int],
    progress: Callable[[Sequence[int]], Iterator[int]] = iter,
    replaced: Collection[str | None] | None = None,
) -> Merged:
    """Writes `output`: the data file `source` with the language columns. Atomic.

    Args:
        source: a data file of a LeRobot v3.0 dataset.
        output: where the annotated file goes.
        annotations: the rows of an episode; None leaves the episode without annotation, with the
            language rows that the source itself may hold.
        expected: frames by episode, in the order of the file, as the metadata says.
        progress: wraps the episodes to show progress, as `tqdm` does.
        replaced: rows of other styles that the source has stay beside the annotations; None: none
            stays.

    Raises:
        CuesheetError: the file is not what the metadata says, or a row belongs to no frame.
    """

    def written(repeat: bool) -> Merged:
        with pq.ParquetFile(source, **READ_OPTIONS) as file:
            schema = annotated_schema(file.schema_arrow)
            plain = [name for name in schema.names if name not in LANGUAGE_COLUMNS]
            own = SourceLanguage(file)
            with atomic_path(output) as temporary:
                episodes = episode_tables(file, plain, source, temporary.parent)
                with EpisodeWriter(temporary, schema, write_options(schema), repeat) as writer:
                    writing = _Writing(writer, annotations, own, replaced, source)
                    merged = _write(writing, episodes, expected, progress)
                    writer.finish()
                    return merged

    try:
        try:
            return written(repeat=True)
        except UnexpectedParquetError as error:
            logging.getLogger(__name__).warning(
                "%s: encoded pages could not be repeated, which takes longer: %s", output, error
            )
            return written(repeat=False)
    except pa.ArrowInvalid as error:
        raise CuesheetError(f"{source} is not a readable parquet file: {error}") from None
    except FileNotFoundError:
        raise CuesheetError(f"{source} is not there; the dataset's metadata names it.") from None


@dataclass(frozen=True)
class _Writing:
    """What is written where, and what the rows of an episode come from."""

    writer: EpisodeWriter
    annotations: Callable[[int], EpisodeRows | None]
    own: SourceLanguage
    replaced: Collection[str | None] | None
    source: Path

    def columns(
        self, episode_index: int, table: pa.Table, first_frame: int
    ) -> tuple[tuple[Repeated | pa.ChunkedArray, pa.ChunkedArray], str]:
        """The language columns of an episode, and whether they are annotated, kept or empty."""
        rows = self.annotations(episode_index)
        if rows is not None and self.replaced is None:
            language = language_columns(rows, table.column("timestamp"), episode_index, self.source)
            return language, "annotated"
        found, had_rows = self.own.take(first_frame, first_frame + table.num_rows)
        if rows is None:
            return found, "kept" if had_rows else "empty"
        if had_rows and (rows.persistent or rows.events):
            times = table.column("timestamp").cast(pa.float32()).to_pylist()
            persistent, events = foreign_rows((as_column(found[0]), found[1]), times, self.replaced)
            rows = EpisodeRows([*rows.persistent, *persistent], [*rows.events, *events])
        language = language_columns(rows, table.column("timestamp"), episode_index, self.source)
        return language, "annotated"


def _write(
    writing: _Writing,
    episodes: Iterator[tuple[int, pa.Table]],
    expected: Mapping[int, int],
    progress: Callable[[Sequence[int]], Iterator[int]],
) -> Merged:
    source, writer = writing.source, writing.writer
    done: dict[str, list[int]] = {"annotated": [], "kept": [], "empty": []}
    frames = 0
    for wanted in progress(list(expected)):
        episode_index, table = next(episodes, (None, None))
        if episode_index != wanted or table.num_rows != expected[wanted]:
            found = (
                "the file ends"
                if table is None
                else f"found {table.num_rows} rows of episode {episode_index}"
            )
            raise CuesheetError(
                f"{source}: expected {expected[wanted]} rows of episode {wanted} next, as the "
                f"metadata says; {found}. Run the index again to see what disagrees."
            )
        language, way = writing.columns(episode_index, table, frames)
        done[way].append(episode_index)
        writer.write(table, *language)
        frames += table.num_rows
    extra = next(episodes, None)
    if extra is not None:
        raise CuesheetError(
            f"{source}: rows of episode {extra[0]} that the metadata does not place in this file."
        )
    return Merged(tuple(done["annotated"]), tuple(done["kept"]), tuple(done["empty"]), frames)


def write_options(schema: pa.Schema) -> dict[str, Any]:
    """How the columns are written: dictionaries for what repeats, small pages of pictures."""
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    stored = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    leaves = [stored.column(number) for number in range(len(stored))]
    # With room for much, the dictionary of what never repeats would only be held in memory.
    unlike = {leaf.path for leaf in leaves if _is_picture(leaf) or _is_measured(leaf)}
    options: dict[str, Any] = {
        "compression": "snappy",
        "use_dictionary": [leaf.path for leaf in leaves if leaf.path not in unlike],
        # The least and the greatest text of an episode help nobody, and take a sixth of the time.
        "write_statistics": [leaf.path for leaf in leaves if not _is_of_language(leaf)],
        "dictionary_pagesize_limit": _DICTIONARY_BYTES,
    }
    if any(_is_picture(leaf) for leaf in leaves):
        # A page's size is looked at only after so many values; the default, 1024, may be gigabytes.
        options["write_batch_size"] = 16
    return options


def _is_picture(leaf: pq.ColumnSchema) -> bool:
    return leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type == "NONE"


def _is_measured(leaf: pq.ColumnSchema) -> bool:
    return leaf.physical_type in ("FLOAT", "DOUBLE") and not _is_of_language(leaf)


def _is_of_language(leaf: pq.ColumnSchema) -> bool:
    return leaf.path.split(".")[0] in LANGUAGE_COLUMNS


def annotated_schema(source: pa.Schema) -> pa.Schema:
    """The source's schema without stale columns, with the language columns last.

    What the Hugging Face datasets library and pandas keep in the file's metadata is kept in step.
    """
    dropped = {*LANGUAGE_COLUMNS, *STALE_COLUMNS}
    fields = [field for field in source if field.name not in dropped]
    fields += [pa.field(name, COLUMN_TYPES[name]) for name in LANGUAGE_COLUMNS]
    metadata = dict(source.metadata or {})
    if b"huggingface" in metadata:
        metadata[b"huggingface"] = _hub_metadata(metadata[b"huggingface"], dropped)
    if b"pandas" in metadata:
        metadata[b"pandas"] = _pandas_metadata(metadata[b"pandas"], dropped)
    return pa.schema(fields, metadata=metadata or None)


def _hub_metadata(value: bytes, dropped: set[str]) -> bytes:
    try:
        hub = json.loads(value)
        features = hub["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return value
    feature_type = "Sequence" if b'"Sequence"' in value and b'"List"' not in value else "List"
    kept = {name: feature for name, feature in features.items() if name not in dropped}
    hub["info"]["features"] = kept | hub_features(feature_type)
    return json.dumps(hub).encode()


def _pandas_metadata(value: bytes, dropped: set[str]) -> bytes:
    try:
        pandas = json.loads(value)
        pandas["columns"] = [c for c in pandas["columns"] if c.get("name") not in dropped]
    except (ValueError, KeyError, TypeError, AttributeError):
        return value
    return json.dumps(pandas).encode()


def language_columns(
    rows: EpisodeRows, timestamps: pa.ChunkedArray, episode_index: int, source: Path | str
) -> tuple[Repeated, pa.ChunkedArray]:
    """The two columns of one episode.

    Args:
        rows: the episode's rows, in any order.
        timestamps: the episode's `timestamp` column, seconds, one a frame.
        episode_index: for messages.
        source: the data file, for messages.

    Raises:
        CuesheetError: a row's timestamp is not that of a frame: the annotations are of an older
            recording of the episode.
    """
    if timestamps.type != pa.float32():  # a cast imports pyarrow.compute: 0.05 s of CPU
        timestamps = timestamps.cast(pa.float32())
    times = timestamps.to_pylist()
    frame_of = dict(zip(times, range(len(times)), strict=True))
    by_frame: dict[int, list[Row]] = {}
    for name, listed in (("persistent row", rows.persistent), ("event", rows.events)):
        for row in listed:
            frame_index = frame_of.get(float(np.float32(row["timestamp"])))
            if frame_index is None:
                what = f"a {name} ({row['style'] or 'speech'}) at {row['timestamp']} s"
                raise CuesheetError(
                    f"{source}, episode {episode_index}: {what} is on no frame. The annotations "
                    "are of another recording of this episode: delete its files in keyframes, "
                    "plan, interjections, vqa and validation, and run again."
                )
            if name == "event":
                by_frame.setdefault(frame_index, []).append(row)
    persistent = array(sort_persistent(rows.persistent), PERSISTENT_ROW)
    return Repeated(persistent, len(times), PERSISTENT_TYPE), _placed(by_frame, len(times))


def _placed(by_frame: Mapping[int, list[Row]], frames: int) -> pa.ChunkedArray:
    counts = np.zeros(frames + 1, dtype=np.int32)
    ordered: list[Row] = []
    for frame_index in sorted(by_frame):
        counts[frame_index + 1] = len(by_frame[frame_index])
        ordered += sort_events(by_frame[frame_index])
    offsets = pa.py_buffer(np.cumsum(counts, dtype=np.int32))
    values = array(ordered, EVENT_ROW)
    lists = pa.Array.from_buffers(EVENTS_TYPE, frames, [None, offsets], children=[values])
    return pa.chunked_array([lists])
