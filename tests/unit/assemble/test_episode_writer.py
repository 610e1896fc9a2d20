"""An annotated data file reads back exactly as it was given, by every way of reading it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from cuesheet.artifacts.language_arrow import (
    COLUMN_TYPES,
    EVENTS_TYPE,
    PERSISTENT_DICTIONARY_TYPE,
    PERSISTENT_TYPE,
)
from cuesheet.assemble.episode_writer import EpisodeWriter
from cuesheet.assemble.merge import annotated_schema
from cuesheet.dataset.data_reader import (
    LIST_BATCH_FRAMES,
    SourceLanguage,
    open_data_file,
    repeat_list,
    repeated_rows,
)

KEYS = ("role", "content", "style", "timestamp", "camera", "tool_calls")
SAY = [{"type": "function", "function": {"name": "say", "arguments": {"text": "hi"}}}]


def row(content: str | None, style: str | None = "subtask", **other: Any) -> dict[str, Any]:
    base = dict.fromkeys(KEYS) | {"role": "assistant", "timestamp": 0.0}
    return base | {"content": content, "style": style} | other


LISTS: dict[str, list[dict[str, Any]]] = {
    "empty": [],
    "one": [row("pick up")],
    "fifty": [row(f"step {n}", ("plan", "memory")[n % 2], timestamp=n / 8) for n in range(50)],
    "unicode": [row("Tür öffnen 🚪"), row("\0"), row(""), row("開ける", camera="前")],
    "nulls": [row(None), row(None, None), row("x", None)],
    "tool calls": [
        row(None, tool_calls=SAY),
        row("x"),
        row("y", tool_calls=[]),
        row("z", tool_calls=[*SAY, {"type": None, "function": None}]),
    ],
    "many": [row(f"step {n % 97}") for n in range(3000)],
}
FRAMES = (1, 2, LIST_BATCH_FRAMES - 1, LIST_BATCH_FRAMES, LIST_BATCH_FRAMES + 1, 400)


def source_table(frames: int, episode: int) -> pa.Table:
    times = np.arange(frames, dtype=np.float32) / np.float32(20)
    state = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(frames * 2, dtype=np.float32)), 2)
    columns = {"observation.state": state, "timestamp": times, "label": ["a"] * frames}
    fields = pa.table(columns | {"episode_index": np.full(frames, episode)})
    required = pa.field("label", pa.large_string(), nullable=False)
    return fields.cast(fields.schema.set(2, required)).replace_schema_metadata({"made by": "test"})


def event_lists(frames: int) -> pa.ChunkedArray:
    event = {name: value for name, value in row("What?", "vqa").items() if name != "timestamp"}
    return pa.chunked_array([pa.array([[event]] + [[]] * (frames - 1), EVENTS_TYPE)])


def write(path: Path, episodes: list[tuple[int, list[dict[str, Any]]]]) -> pa.Table:
    """Write episodes of (frames, persistent rows); return the table that was meant."""
    meant = []
    schema = annotated_schema(source_table(1, 0).schema)
    with EpisodeWriter(path, schema) as writer:
        for number, (frames, rows) in enumerate(episodes):
            table, events = source_table(frames, number), event_lists(frames)
            lists = repeat_list(pa.scalar(rows, PERSISTENT_DICTIONARY_TYPE), frames)
            writer.write(table, lists, events)
            plain = pa.chunked_array([pa.array([rows] * frames, PERSISTENT_TYPE)])
            meant.append(pa.table([*table.columns, plain, events], schema=schema))
    return pa.concat_tables(meant)


@pytest.mark.parametrize("rows", LISTS.values(), ids=LISTS)
def test_every_list_reads_as_it_was_given_on_every_frame(tmp_path, rows):
    path = tmp_path / "out.parquet"
    meant = write(path, [(frames, rows) for frames in FRAMES] + [(40, LISTS["fifty"])])
    assert pq.read_table(path).equals(meant)
    groups = pq.read_metadata(path)
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [*FRAMES, 40]


def test_the_schema_is_the_one_that_was_given_with_its_metadata(tmp_path):
    path = tmp_path / "out.parquet"
    schema = write(path, [(5, LISTS["one"])]).schema
    assert pq.read_schema(path).equals(schema)
    assert pq.read_schema(path).metadata == schema.metadata
    assert schema.field("observation.state").type == pa.list_(pa.float32(), 2)
    assert schema.field("label").type == pa.large_string()
    assert not schema.field("label").nullable
    assert {name: schema.field(name).type for name in COLUMN_TYPES} == COLUMN_TYPES
    assert b"made by" in schema.metadata
    # Also for a reader that knows nothing of Arrow's types.
    stored = pq.read_metadata(path).schema
    content = next(
        leaf
        for leaf in (stored.column(n) for n in range(len(stored)))
        if leaf.path == "language_persistent.list.element.content"
    )
    assert (content.physical_type, content.logical_type.type) == ("BYTE_ARRAY", "STRING")


def test_all_ways_of_reading_give_the_same(tmp_path):
    path = tmp_path / "out.parquet"
    meant = write(path, [(300, LISTS["fifty"]), (333, LISTS["unicode"]), (50, LISTS["nulls"])])
    assert pq.read_table(path, memory_map=True).equals(meant)
    assert pq.read_table(path, pre_buffer=False, use_threads=False, buffer_size=4096).equals(meant)
    assert pa.dataset.dataset(path).to_table().equals(meant)
    assert pq.read_table(path, filters=[("episode_index", "=", 1)]).equals(meant.slice(300, 333))
    with pq.ParquetFile(path) as file:
        assert file.read_row_group(1).equals(meant.slice(300, 333))
        for size in (7, 64, 1000):
            assert pa.Table.from_batches(list(file.iter_batches(size))).equals(meant)


def test_strings_of_the_persistent_column_are_stored_once_per_episode(tmp_path):
    path = tmp_path / "out.parquet"
    text = "a long label " * 50
    write(path, [(400, [row(text)])])
    group = pq.read_metadata(path).row_group(0)
    columns = (group.column(number) for number in range(group.num_columns))
    content = next(
        c for c in columns if c.path_in_schema.endswith("persistent.list.element.content")
    )
    assert content.has_dictionary_page
    assert content.total_uncompressed_size < 2 * len(text)


@pytest.mark.parametrize("rows", LISTS.values(), ids=LISTS)
def test_the_lists_of_a_file_are_read_again_as_one_list_and_the_number_of_frames(tmp_path, rows):
    path = tmp_path / "out.parquet"
    meant = write(path, [(frames, rows) for frames in FRAMES])
    with open_data_file(path) as file:
        own = SourceLanguage(file)
        begin = 0
        for frames in FRAMES:
            persistent, events, has_rows = own.take(begin, begin + frames)
            assert has_rows
            assert persistent.type == PERSISTENT_DICTIONARY_TYPE
            assert persistent.to_pylist() == [rows] * frames
            assert events.equals(meant["language_events"].slice(begin, frames))
            begin += frames


def test_a_difference_in_any_frame_and_any_field_is_seen():
    changes = (
        {"content": "other"},
        {"timestamp": 0.25},
        {"camera": "front"},
        {"tool_calls": SAY},
        {"style": None},
    )
    rows = [row("a"), row("b")]
    for lists in ([rows] * 5, [[]] * 5):
        assert repeated_rows(pa.array(lists, PERSISTENT_DICTIONARY_TYPE)) == lists[0]
    for change in changes:
        for frame in range(5):
            lists = [rows] * frame + [[rows[0], rows[1] | change]] + [rows] * (4 - frame)
            assert repeated_rows(pa.array(lists, PERSISTENT_DICTIONARY_TYPE)) is None
    for lists in ([rows, rows[:1], rows], [rows, [], rows], [[], rows], [rows, None]):
        assert repeated_rows(pa.array(lists, PERSISTENT_DICTIONARY_TYPE)) is None
