"""What is written with repeated pages reads like what pyarrow writes, or is written by pyarrow."""

import contextlib
import logging
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from cuesheet.artifacts.language_arrow import EVENTS_TYPE, PERSISTENT_ROW, PERSISTENT_TYPE, array
from cuesheet.assemble import merge, parquet_footer, repeated_pages
from cuesheet.assemble.merge import EpisodeRows, annotated_schema, merge_file, write_options
from cuesheet.assemble.parquet_footer import UnexpectedParquetError
from cuesheet.assemble.repeated_pages import EpisodeWriter
from cuesheet.assemble.thrift_compact import read_struct
from cuesheet.dataset.data_reader import Repeated

KEYS = ("role", "content", "style", "timestamp", "camera", "tool_calls")
SAY = [{"type": "function", "function": {"name": "say", "arguments": {"text": "hi"}}}]


def row(content: str | None, style: str | None = "subtask", **other: Any) -> dict[str, Any]:
    base = dict.fromkeys(KEYS) | {"role": "assistant", "timestamp": 0.0}
    return base | {"content": content, "style": style} | other


LISTS: Mapping[str, list[dict[str, Any]]] = {
    "empty": [],
    "one": [row("pick up")],
    "fifty": [row(f"step {n}", ("plan", "memory")[n % 2], timestamp=n / 8) for n in range(50)],
    "unicode": [row("Tür öffnen 🚪"), row("\0"), row(""), row("開ける", camera="前")],
    "nulls": [row(None), row(None, None), row("x", None)],
    "all null": [row(None, None)] * 3,
    "tool calls": [
        row(None, tool_calls=SAY),
        row("x"),
        row("y", tool_calls=[]),
        row("z", tool_calls=[*SAY, {"type": None, "function": None}]),
    ],
    "many": [row(f"step {n % 97}") for n in range(3000)],
    "larger than a page": [row(f"step {n % 97}") for n in range(1 << 16)] + [row("last")],
}


def plain_table(frames: int, episode: int, extra: Mapping[str, Any] | None = None) -> pa.Table:
    times = np.arange(frames, dtype=np.float32) / np.float32(20)
    state = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(frames * 2, dtype=np.float32)), 2)
    columns = {"observation.state": state, "timestamp": times, **(extra or {})}
    columns["episode_index"] = np.full(frames, episode)
    return pa.table(columns).replace_schema_metadata({"made by": "a test"})


def events_of(frames: int) -> pa.ChunkedArray:
    event = {name: value for name, value in row("What?", "vqa").items() if name != "timestamp"}
    return pa.chunked_array([pa.array([[event]] + [[]] * (frames - 1), EVENTS_TYPE)])


def write(path: Path, episodes: list[tuple[int, Any]], **options: Any) -> pa.Table:
    """Write episodes of (frames, one list for all frames or a list a frame); what pyarrow makes."""
    expected = []
    schema = annotated_schema(plain_table(1, 0).schema)
    with EpisodeWriter(path, schema, write_options(schema) | options) as writer:
        for number, (frames, lists) in enumerate(episodes):
            table, events = plain_table(frames, number), events_of(frames)
            varies = bool(lists) and isinstance(lists[0], list)
            column = pa.chunked_array(
                [pa.array(lists if varies else [lists] * frames, PERSISTENT_TYPE)]
            )
            rows = None if varies else pa.array(lists, PERSISTENT_ROW)
            given = column if varies else Repeated(rows, frames, PERSISTENT_TYPE)
            writer.write(table, given, events)
            expected.append(pa.table([*table.columns, column, events], schema=schema))
        writer.finish()
    return pa.concat_tables(expected)


def write_ordinarily(path: Path, table: pa.Table, row_groups: list[int]) -> None:
    begin = 0
    with pq.ParquetWriter(path, table.schema, **write_options(table.schema)) as writer:
        for frames in row_groups:
            writer.write_table(table.slice(begin, frames), frames)
            begin += frames


def chunks(path: Path, group: int) -> dict[str, pq.ColumnChunkMetaData]:
    found = pq.read_metadata(path).row_group(group)
    columns = [found.column(number) for number in range(found.num_columns)]
    return {column.path_in_schema: column for column in columns}


def data_pages(path: Path, group: int) -> int:
    """Pages of the persistent rows' roles."""
    column = chunks(path, group)["language_persistent.list.element.role"]
    at, end = column.data_page_offset, column.dictionary_page_offset + column.total_compressed_size
    data = path.read_bytes()
    pages = 0
    while at < end:
        header, body = read_struct(data, at)
        at = body + header[3]
        pages += 1
    assert at == end
    return pages


def persistent_is_repeated(path: Path, group: int) -> bool:
    return data_pages(path, group) >= 16


def is_of_pyarrow_alone(path: Path) -> bool:
    """Columns follow each other as the schema says; what is repeated is behind the others."""
    offsets = [column.data_page_offset for column in chunks(path, 0).values()]
    return offsets == sorted(offsets)


SHAPES = [
    (lists, frames)
    for lists, rows in LISTS.items()
    for frames in (1, 2, 15, 16, 17, 31, 33, 900, 5000)
    if frames * len(rows) < 1_200_000
]


@pytest.mark.parametrize(("lists", "frames"), SHAPES)
def test_every_shape_reads_as_it_was_given(tmp_path, frames, lists):
    rows = LISTS[lists]
    path = tmp_path / "out.parquet"
    varied = [[row(f"frame {n}")] * (n % 3) for n in range(20)]
    expected = write(path, [(20, varied), (frames, rows), (40, LISTS["fifty"])])
    assert pq.read_table(path).equals(expected)
    fits = 0 < len(rows) <= 1 << 16 and frames >= 16
    repeated = [persistent_is_repeated(path, group) for group in range(3)]
    assert repeated == [False, fits, True]


@pytest.mark.parametrize("frames", [48, 50, 64, 100, 5000])
def test_pages_that_are_written_block_by_block_are_as_many_as_the_frames_need(
    tmp_path, monkeypatch, frames
):
    monkeypatch.setattr(repeated_pages, "_BLOCK_PAGES", 3)
    monkeypatch.setattr(repeated_pages, "_CHECKED_BYTES", 1)
    expected = write(tmp_path / "out.parquet", [(frames, LISTS["unicode"])])
    assert pq.read_table(tmp_path / "out.parquet").equals(expected)


def test_the_footer_is_that_of_an_ordinary_file_but_for_the_repeated_pages(tmp_path):
    path, ordinary = tmp_path / "out.parquet", tmp_path / "ordinary.parquet"
    episodes = [(900, LISTS["fifty"]), (17, LISTS["tool calls"]), (5, LISTS["one"])]
    table = write(path, episodes)
    write_ordinarily(ordinary, table, [frames for frames, _ in episodes])
    assert pq.read_table(ordinary).equals(table)
    ours, theirs = pq.read_metadata(path), pq.read_metadata(ordinary)
    assert ours.schema.equals(theirs.schema)
    assert ours.metadata == theirs.metadata
    assert b"made by" in ours.metadata
    for name in ("num_rows", "num_columns", "num_row_groups", "format_version", "created_by"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert pq.read_schema(path).equals(pq.read_schema(ordinary), check_metadata=True)
    for group in range(3):
        mine, other = chunks(path, group), chunks(ordinary, group)
        assert list(mine) == list(other)
        assert mine["timestamp"].statistics.equals(other["timestamp"].statistics)
        for name, column in mine.items():
            assert column.num_values == other[name].num_values
            assert column.encodings == other[name].encodings
            assert column.compression == "SNAPPY"
            assert column.is_stats_set == other[name].is_stats_set
            if not name.startswith("language_persistent"):
                assert column.total_compressed_size == other[name].total_compressed_size
                assert column.statistics == other[name].statistics
        total = sum(column.total_uncompressed_size for column in mine.values())
        assert ours.row_group(group).total_byte_size == total


def test_all_ways_of_reading_give_the_same(tmp_path):
    path = tmp_path / "out.parquet"
    episodes = [(300, LISTS["fifty"]), (333, LISTS["unicode"]), (50, LISTS["tool calls"])]
    table = write(path, episodes)
    assert pq.read_table(path, memory_map=True).equals(table)
    assert pq.read_table(path, pre_buffer=False, use_threads=False, buffer_size=4096).equals(table)
    assert pa.dataset.dataset(path).to_table().equals(table)
    for name in ("language_persistent", "language_events", "timestamp"):
        assert pq.read_table(path, columns=[name]).equals(table.select([name]))
    with pq.ParquetFile(path) as file:
        leaf = file.read(columns=["language_persistent.list.element.content"])
    contents = [[r["content"] for r in rows] for rows in table["language_persistent"].to_pylist()]
    assert [[r["content"] for r in rows] for rows in leaf.column(0).to_pylist()] == contents
    middle = table.slice(300, 333)
    assert pq.read_table(path, filters=[("episode_index", "=", 1)]).equals(middle)
    with pq.ParquetFile(path) as file:
        assert file.read_row_group(1).equals(middle)
        assert file.read_row_groups([2, 0], columns=["language_persistent"]).num_rows == 350
        for size in (1, 7, 64, 1000):
            batches = list(file.iter_batches(size))
            assert pa.Table.from_batches(batches).equals(table)


def test_one_file_may_hold_every_kind_of_episode(tmp_path):
    """Annotated, kept from the source (the same list and varying ones), without rows; pictures."""
    frames = 40
    pictures = [{"bytes": bytes([n]) * 3000, "path": f"{n}.png"} for n in range(frames)]
    camera = {"observation.images.front": pa.array(pictures)}
    tables = [plain_table(frames, episode, camera) for episode in range(5)]
    kept = [[LISTS["unicode"]] * frames, [[row(f"{n}")] for n in range(frames)], [[]] * frames]
    lists = [[LISTS["one"]] * frames, *kept, [LISTS["one"]] * frames]
    table = pa.concat_tables(tables)
    persistent = [rows for episode in lists for rows in episode]
    table = table.append_column("language_persistent", pa.array(persistent, PERSISTENT_TYPE))
    source, path = tmp_path / "source.parquet", tmp_path / "out.parquet"
    pq.write_table(table, source)
    new = {0: EpisodeRows(LISTS["fifty"][:1], []), 4: EpisodeRows([], [])}
    merged = merge_file(source, path, new.get, dict.fromkeys(range(5), frames))
    assert (merged.annotated, merged.kept_from_source, merged.empty) == ((0, 4), (1, 2), (3,))
    read = pq.read_table(path)
    expected = [LISTS["fifty"][:1]] * frames + persistent[frames : 4 * frames] + [[]] * frames
    assert read["language_persistent"].to_pylist() == expected
    assert read.select(table.schema.names[:-1]).equals(table.select(table.schema.names[:-1]))
    repeated = [persistent_is_repeated(path, group) for group in range(5)]
    assert repeated == [True, True, False, False, False]


def test_pages_that_are_not_cut_as_expected_are_not_repeated(tmp_path):
    path = tmp_path / "out.parquet"
    expected = write(path, [(900, LISTS["many"])], data_page_size=64)
    assert pq.read_table(path).equals(expected)
    sizes = [column.num_values for column in chunks(path, 0).values()]
    ordinary = tmp_path / "ordinary.parquet"
    pq.write_table(expected, ordinary, data_page_size=64)
    assert sizes == [column.num_values for column in chunks(ordinary, 0).values()]


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zstd"},
        {"compression": "none"},
        {"write_page_index": True},
        {"data_page_version": "2.0"},
        {"use_dictionary": False},
        {"dictionary_pagesize_limit": 10},
    ],
    ids=str,
)
def test_what_is_not_as_expected_leads_to_the_ordinary_way(tmp_path, monkeypatch, caplog, options):
    path, source = tmp_path / "out.parquet", tmp_path / "source.parquet"
    with pytest.raises(UnexpectedParquetError):
        write(tmp_path / "broken.parquet", [(40, LISTS["fifty"])], **options)
    pq.write_table(plain_table(40, 0), source)
    usual = merge.write_options
    monkeypatch.setattr(merge, "write_options", lambda schema: usual(schema) | options)
    rows = EpisodeRows([row("pick up"), row("put down", "plan")], [])
    with caplog.at_level(logging.WARNING):
        merged = merge_file(source, path, lambda _: rows, {0: 40})
    assert merged.frames == 40
    assert "could not be repeated" in caplog.text
    lists = pq.read_table(path)["language_persistent"].to_pylist()
    assert [[r["content"] for r in found] for found in lists] == [["put down", "pick up"]] * 40
    assert is_of_pyarrow_alone(path)


def changed(**fields: Any) -> Any:
    """A `with_columns` that writes other numbers than it was told."""

    def fault(with_columns: Any) -> Any:
        def broken(footer: bytes, empty: bytes, columns: Any, found: Any) -> bytes:
            wrong = [[replace(chunk, **fields) for chunk in group] for group in found]
            return with_columns(footer, empty, columns, wrong)

        return broken

    return fault


def cut(with_columns: Any) -> Any:
    return lambda *given: with_columns(*given)[:-20]


def other_columns(repeated: Any) -> Any:
    """The pages of the first two leaf columns are exchanged."""

    def broken(*given: Any) -> Any:
        found = repeated(*given)
        return [found[1], found[0], *found[2:]]

    return broken


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (repeated_pages, "with_columns", changed(num_values=2000 + 1)),
        (repeated_pages, "with_columns", changed(data_page_offset=0)),
        (repeated_pages, "with_columns", changed(uncompressed_size=5)),
        (repeated_pages, "with_columns", cut),
        (repeated_pages._PageEncoder, "_repeated", other_columns),
    ],
    ids=["number of values", "offset", "size", "footer", "columns"],
)
def test_what_was_written_wrongly_is_found_before_the_file_is_published(
    tmp_path, monkeypatch, owner, name, fault
):
    monkeypatch.setattr(owner, name, fault(getattr(owner, name)))
    with pytest.raises(UnexpectedParquetError):
        write(tmp_path / "broken.parquet", [(40, LISTS["fifty"]), (90, LISTS["unicode"])])
    source, path = tmp_path / "source.parquet", tmp_path / "out.parquet"
    pq.write_table(plain_table(40, 0), source)
    merge_file(source, path, lambda _: EpisodeRows(LISTS["one"], []), {0: 40})
    assert pq.read_table(path)["language_persistent"].to_pylist() == [LISTS["one"]] * 40


def test_a_footer_that_is_cut_or_changed_is_refused_or_found_by_the_check(tmp_path, monkeypatch):
    given = []

    def spy(*arguments: Any) -> bytes:
        given.append(arguments)
        return parquet_footer.with_columns(*arguments)

    monkeypatch.setattr(repeated_pages, "with_columns", spy)
    write(tmp_path / "out.parquet", [(40, LISTS["fifty"])])
    footer, *others = given[0]
    groups_end = footer.rindex(b"language_events")
    for end in range(0, groups_end, 3):
        with pytest.raises(UnexpectedParquetError):
            parquet_footer.with_columns(footer[:end], *others)
    for at in range(0, groups_end, 5):
        changed = footer[:at] + bytes([footer[at] ^ 0x55]) + footer[at + 1 :]
        with contextlib.suppress(UnexpectedParquetError):  # and no other error
            parquet_footer.with_columns(changed, *others)
    for empty in (b"", footer, others[0][:50]):
        with pytest.raises(UnexpectedParquetError):
            parquet_footer.with_columns(footer, empty, *others[1:])
    with pytest.raises(UnexpectedParquetError):
        parquet_footer.with_columns(*given[0][:3], [])
    for end in (b"", b"PAR1", b"x" * 100, b"\xff" * 8 + b"PAR1"):
        with pytest.raises(UnexpectedParquetError):
            parquet_footer.read_footer(end)


@pytest.mark.parametrize("lists", [name for name in LISTS if name != "larger than a page"])
def test_arrays_are_those_of_pyarrow(lists):
    rows = LISTS[lists]
    for values, kind in (
        (rows, PERSISTENT_ROW),
        ([rows, [], rows[:2]], PERSISTENT_TYPE),
        ([None, rows], PERSISTENT_TYPE),
        ([None, None], PERSISTENT_TYPE),
        ([0, None, 7], pa.int32()),
    ):
        made, expected = array(values, kind), pa.array(values, kind)
        made.validate(full=True)
        assert made.equals(expected)
        assert made.null_count == expected.null_count


def test_merging_imports_neither_pandas_nor_what_else_takes_long(tmp_path):
    pq.write_table(plain_table(40, 0), tmp_path / "source.parquet")
    program = (
        "import sys; from pathlib import Path;"
        "from cuesheet.assemble.merge import EpisodeRows, merge_file;"
        "source = Path(sys.argv[1]); rows = EpisodeRows(eval(sys.argv[2]), []);"
        "merge_file(source, source.with_name('out.parquet'), lambda _: rows, {0: 40});"
        "print({'pandas', 'pyarrow.compute', 'snakemake'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "source.parquet"), repr(LISTS["one"])]
    scripts = Path(merge.__file__).parents[2]
    done = subprocess.run(
        command, check=True, env={"PYTHONPATH": str(scripts)}, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout == "set()\n"
    assert pq.read_metadata(tmp_path / "out.parquet").num_rows == 40
