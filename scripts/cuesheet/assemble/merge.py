"""Writes an annotated copy of a data file: the source's columns and the two language columns.

One episode at a time is read and written, so memory depends neither on the size of the file nor on
the number of frames. Invariants: the source's columns keep their values and types; the language
columns are the last two, in the explicit types of `language_arrow`; there is one row group per
episode; the persistent list is the same on every frame of an episode, sorted by (timestamp, style,
role); an event is only on the frame whose timestamp it has. Rows of episodes that the metadata does
not describe are left out.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from cuesheet.artifacts.language import (
    LANGUAGE_COLUMNS,
    STALE_COLUMNS,
    SUBTASK_COLUMN,
    Row,
    sort_events,
    sort_persistent,
)
from cuesheet.artifacts.language_arrow import (
    COLUMN_TYPES,
    EVENT_ROW,
    EVENTS_TYPE,
    PERSISTENT_DICTIONARY_TYPE,
    hub_features,
)
from cuesheet.assemble.episode_writer import EpisodeWriter
from cuesheet.assemble.existing_rows import foreign_rows
from cuesheet.assemble.subtask_numbers import number_frames
from cuesheet.dataset.data_reader import (
    SourceLanguage,
    episode_start_s,
    episode_tables,
    open_data_file,
    repeat_list,
    scalars,
    seconds_from_start,
)
from cuesheet.errors import CuesheetError
from cuesheet.files import atomic_path

LanguageColumns = tuple[pa.ChunkedArray, pa.ChunkedArray]


@dataclass(frozen=True)
class EpisodeRows:
    """The annotations of an episode. Events still have their timestamp.

    Timestamps are seconds from the start of the episode.
    """

    persistent: Sequence[Row]
    events: Sequence[Row]


@dataclass
class Merged:
    """What a merge did, by episode number."""

    annotated: list[int] = field(default_factory=list)
    kept_from_source: list[int] = field(default_factory=list)  # not annotated in this run
    empty: list[int] = field(default_factory=list)
    frames: int = 0
    dropped: list[int] = field(default_factory=list)  # without metadata; a recorder crashed


def merge_file(
    source: Path,
    output: Path,
    annotations: Callable[[int], EpisodeRows | None],
    expected: Mapping[int, int],
    progress: Callable[[Sequence[int]], Iterator[int]] = iter,
    replaced: Collection[str | None] | None = None,
    subtask_numbers: Mapping[str, int] | None = None,
) -> Merged:
    """Write `output`, atomically: the data file `source` with the language columns.

    `annotations` returns the rows of an episode; None keeps the language rows of the source.
    `expected` has the frames by episode in the order of the file. `replaced` are the styles whose
    rows in the source are replaced (None: all), `subtask_numbers` the numbers for the column
    subtask_index (None: no such column). `progress` wraps the episodes, as `tqdm` does.

    Raises CuesheetError if the file does not agree with the metadata, or a row is on no frame.
    """
    try:
        with open_data_file(source) as file:
            schema = annotated_schema(file.schema_arrow, subtask_numbers is not None)
            plain = [n for n in schema.names if n not in (*LANGUAGE_COLUMNS, *STALE_COLUMNS)]
            own = SourceLanguage(file)
            with atomic_path(output) as temporary, EpisodeWriter(temporary, schema) as writer:
                episodes = episode_tables(file, plain, source, output.parent)
                writing = _Writing(writer, annotations, own, replaced, source, subtask_numbers)
                return writing.run(episodes, expected, progress)
    except pa.ArrowInvalid as error:
        raise CuesheetError(f"{source} is not a readable parquet file: {error}") from None
    except FileNotFoundError:
        raise CuesheetError(
            f"{source} does not exist, but the dataset's metadata names it."
        ) from None


@dataclass(frozen=True)
class _Writing:
    """One merge: the writer, and the sources of an episode's rows."""

    writer: EpisodeWriter
    annotations: Callable[[int], EpisodeRows | None]
    own: SourceLanguage
    replaced: Collection[str | None] | None
    source: Path
    subtask_numbers: Mapping[str, int] | None

    def run(
        self,
        episodes: Iterator[tuple[int, pa.Table]],
        expected: Mapping[int, int],
        progress: Callable[[Sequence[int]], Iterator[int]],
    ) -> Merged:
        merged, row = Merged(), 0
        for wanted in progress(list(expected)):
            following = next(episodes, None)
            while following is not None and following[0] not in expected:
                merged.dropped.append(following[0])
                row += following[1].num_rows
                following = next(episodes, None)
            index, table = following or (None, None)
            if index != wanted or table is None or table.num_rows != expected[wanted]:
                found = (
                    "the file ends"
                    if table is None
                    else f"found {table.num_rows} rows of episode {index}"
                )
                raise CuesheetError(
                    f"{self.source}: expected {expected[wanted]} rows of episode {wanted} next, as "
                    f"the metadata says; {found}. Delete the dataset's episodes.parquet and run "
                    "again: the index reports what disagrees."
                )
            rows = self.annotations(index)
            if rows is None:
                persistent, events, had_rows = self.own.take(row, row + table.num_rows)
                (merged.kept_from_source if had_rows else merged.empty).append(index)
            else:
                persistent, events = self._annotated(rows, index, table, row)
                merged.annotated.append(index)
            if self.subtask_numbers is not None:
                active = persistent.slice(0, 1).to_pylist()[0]
                times = _float32(table.column("timestamp"))
                label = f"{self.source}, episode {index}"
                numbers = number_frames(active, times, self.subtask_numbers, label)
                table = table.append_column(SUBTASK_COLUMN, numbers)
            self.writer.write(table, persistent, events)
            row += table.num_rows
            merged.frames += table.num_rows
        merged.dropped += [index for index, _ in episodes]
        return merged

    def _annotated(
        self, rows: EpisodeRows, index: int, table: pa.Table, first_row: int
    ) -> LanguageColumns:
        """Return the columns of an annotated episode, with rows of the source that stay."""
        timestamps = table.column("timestamp")
        rows = _on_own_clock(rows, scalars(timestamps).astype(np.float64))
        if self.replaced is not None:
            *found, had_rows = self.own.take(first_row, first_row + table.num_rows)
            if had_rows and (rows.persistent or rows.events):
                times = _float32(timestamps).tolist()
                persistent, events = foreign_rows((found[0], found[1]), times, self.replaced)
                rows = EpisodeRows([*rows.persistent, *persistent], [*rows.events, *events])
        return language_columns(rows, timestamps, index, self.source)


def _on_own_clock(rows: EpisodeRows, timestamps: np.ndarray) -> EpisodeRows:
    """Replace seconds from the start of the episode by the data file's own timestamps.

    They differ only if the data file's timestamps do not start at 0 in each episode.
    """
    if not episode_start_s(timestamps):
        return rows
    relative = seconds_from_start(timestamps).tolist()
    own = dict(zip(relative, timestamps.astype(np.float32).tolist(), strict=True))

    def moved(listed: Sequence[Row]) -> list[Row]:
        times = (own.get(float(np.float32(row["timestamp"])), row["timestamp"]) for row in listed)
        return [{**row, "timestamp": time} for row, time in zip(listed, times, strict=True)]

    return EpisodeRows(moved(rows.persistent), moved(rows.events))


def annotated_schema(source: pa.Schema, has_subtask_index: bool = False) -> pa.Schema:
    """Return the source's schema without stale columns and with the language columns last.

    The column subtask_index, if it is written, is the one before them.

    The entries of pandas and of the Hugging Face datasets library in the metadata are updated.
    """
    dropped = {*LANGUAGE_COLUMNS, *STALE_COLUMNS}
    fields = [field for field in source if field.name not in dropped]
    fields += [pa.field(SUBTASK_COLUMN, pa.int64())] if has_subtask_index else []
    fields += [pa.field(name, COLUMN_TYPES[name]) for name in LANGUAGE_COLUMNS]
    metadata = dict(source.metadata or {})
    if b"huggingface" in metadata:
        metadata[b"huggingface"] = _hub_metadata(
            metadata[b"huggingface"], dropped, has_subtask_index
        )
    if b"pandas" in metadata:
        metadata[b"pandas"] = _pandas_metadata(metadata[b"pandas"], dropped)
    return pa.schema(fields, metadata=metadata or None)


def _hub_metadata(value: bytes, dropped: set[str], has_subtask_index: bool) -> bytes:
    try:
        hub = json.loads(value)
        features = hub["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return value
    feature_type = "Sequence" if b'"Sequence"' in value and b'"List"' not in value else "List"
    kept = {name: feature for name, feature in features.items() if name not in dropped}
    if has_subtask_index:
        kept[SUBTASK_COLUMN] = {"dtype": "int64", "_type": "Value"}
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
) -> LanguageColumns:
    """Return the two columns of one episode; `timestamps` is its column, in seconds.

    Raises CuesheetError if a row's timestamp is not that of a frame, because the annotations belong
    to an older recording of the episode.
    """
    times = _float32(timestamps).tolist()
    frame_of = dict(zip(times, range(len(times)), strict=True))
    by_frame: dict[int, list[Row]] = {}
    for name, listed in (("persistent row", rows.persistent), ("event", rows.events)):
        for row in listed:
            frame_index = frame_of.get(float(np.float32(row["timestamp"])))
            if frame_index is None:
                what = f"a {name} ({row['style'] or 'speech'}) at {row['timestamp']} s"
                raise CuesheetError(
                    f"{source}, episode {episode_index}: {what} is on no frame. The annotations "
                    "belong to another recording of this episode: delete its files in keyframes, "
                    "plan, interjections, vqa and validation, and run again."
                )
            if name == "event":
                by_frame.setdefault(frame_index, []).append(row)
    persistent = pa.scalar(sort_persistent(rows.persistent), PERSISTENT_DICTIONARY_TYPE)
    return repeat_list(persistent, len(times)), _event_lists(by_frame, len(times))


def _float32(timestamps: pa.ChunkedArray) -> np.ndarray:
    return scalars(timestamps).astype(np.float32)


def _event_lists(by_frame: Mapping[int, list[Row]], frames: int) -> pa.ChunkedArray:
    counts = np.zeros(frames + 1, dtype=np.int32)
    ordered: list[Row] = []
    for frame_index in sorted(by_frame):
        counts[frame_index + 1] = len(by_frame[frame_index])
        ordered += sort_events(by_frame[frame_index])
    offsets = pa.array(np.cumsum(counts, dtype=np.int32))
    values = pa.array(ordered, EVENT_ROW)
    return pa.chunked_array([pa.ListArray.from_arrays(offsets, values, type=EVENTS_TYPE)])
