"""The merged data file equals a plain row-by-row reference; the source's columns do not change."""

import hashlib
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from split_dataset import split_dataset

from cuesheet.artifacts.language import LANGUAGE_COLUMNS
from cuesheet.artifacts.language_arrow import EVENTS_TYPE, PERSISTENT_TYPE
from cuesheet.assemble.merge import EpisodeRows, annotated_schema, merge_file
from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError

FILE = "data/chunk-000/file-000.parquet"
CAMERA = "observation.images.front"
SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "merge_language.py"
KEYS = ("role", "content", "style", "timestamp", "camera", "tool_calls")


@pytest.fixture(scope="session")
def root(demo_v3, tmp_path_factory) -> Path:
    """A dataset of twelve episodes in three data files."""
    return split_dataset(demo_v3, tmp_path_factory.mktemp("split") / "split_v3")


def row(style, role, content, timestamp, camera=None, tool_calls=None) -> dict:
    return dict(zip(KEYS, (role, content, style, timestamp, camera, tool_calls), strict=True))


def shortest(timestamp: float) -> float:
    return float(str(np.float32(timestamp)))


def make_rows(timestamps: list[float], seed: int) -> EpisodeRows:
    """Rows of every style at random frames, in random order."""
    draw = np.random.default_rng(seed)
    times = [shortest(t) for t in timestamps]
    say = [{"type": "function", "function": {"name": "say", "arguments": {"text": f"hi {seed}"}}}]
    persistent = [row("task_aug", "user", f"task {n}", times[0]) for n in range(3)]
    for t in sorted(draw.choice(times, 5, replace=False)):
        persistent += [
            row("subtask", "assistant", f"do {t}", t),
            row("memory", "assistant", f"did {t}", t),
            row("plan", "assistant", f"1. do {t}\n2. rest ü", t),
        ]
    events = [row(None, "assistant", None, times[0], None, say)]
    for t in draw.choice(times, 8, replace=False):
        events += [
            row("vqa", "assistant", '{"count": 1, "label": "x"}', t, CAMERA),
            row("vqa", "user", "How many?", t, CAMERA),
            row("vqa", "user", "Where?", t, "observation.images.arm"),
            row("interjection", "user", "Now?", t),
            row(None, "assistant", None, t, None, say),
        ]
    draw.shuffle(persistent)
    draw.shuffle(events)
    return EpisodeRows(list(persistent), list(events))


def reference(table: pa.Table, rows: dict[int, EpisodeRows]) -> tuple[list, list]:
    """Both columns as plain Python lists, made frame by frame."""
    persistent, events = [], []
    for frame in table.select(["episode_index", "timestamp"]).to_pylist():
        found = rows.get(frame["episode_index"], EpisodeRows([], []))
        persistent.append(
            [
                r | {"timestamp": float(np.float32(r["timestamp"]))}
                for r in sorted(
                    found.persistent, key=lambda r: (r["timestamp"], r["style"] or "", r["role"])
                )
            ]
        )
        here = [r for r in found.events if np.float32(r["timestamp"]) == frame["timestamp"]]
        here.sort(key=lambda r: (r["style"] or "", r["role"], r["camera"] or ""))
        events.append([{k: v for k, v in r.items() if k != "timestamp"} for r in here])
    return persistent, events


def rows_for(source: Path, episodes: list[int]) -> dict[int, EpisodeRows]:
    table = pq.read_table(source, columns=["episode_index", "timestamp"])
    numbers = table.column("episode_index").to_numpy()
    times = table.column("timestamp").to_numpy()
    return {n: make_rows(times[numbers == n].tolist(), n) for n in episodes}


def lengths(source: Path) -> dict[int, int]:
    numbers = pq.read_table(source, columns=["episode_index"]).column(0).to_numpy()
    return {int(n): int((numbers == n).sum()) for n in dict.fromkeys(numbers.tolist())}


def merge(source: Path, output: Path, rows: dict[int, EpisodeRows]):
    return merge_file(source, output, rows.get, lengths(source))


@pytest.mark.parametrize(
    ("number", "episodes"),
    [(0, [0, 1, 2, 3, 4]), (0, [1, 3]), (1, [8]), (2, [])],
    ids=["all", "some", "the last", "none"],
)
def test_merged_file_equals_the_row_by_row_reference(root, tmp_path, number, episodes):
    source = root / f"data/chunk-000/file-{number:03d}.parquet"
    rows = rows_for(source, episodes)
    merged = merge(source, tmp_path / "out.parquet", rows)
    assert list(merged.annotated) == episodes
    table = pq.read_table(tmp_path / "out.parquet")
    persistent, events = reference(pq.read_table(source), rows)
    assert table.column("language_persistent").to_pylist() == persistent
    assert table.column("language_events").to_pylist() == events


def test_source_columns_are_unchanged_bit_by_bit(root, tmp_path):
    source = root / FILE
    merge(source, tmp_path / "out.parquet", rows_for(source, [0, 2]))
    before, after = pq.read_table(source), pq.read_table(tmp_path / "out.parquet")
    assert after.schema.names == [*before.schema.names, *LANGUAGE_COLUMNS]
    assert after.select(before.schema.names).equals(before)
    assert after.select(before.schema.names).schema.equals(before.schema)
    for name in ("observation.state", "action"):
        values = [t.column(name).combine_chunks().flatten().to_numpy() for t in (before, after)]
        assert values[0].tobytes() == values[1].tobytes()


def test_types_are_explicit_in_every_file_annotated_or_not(root, tmp_path):
    schemas = []
    for number, episodes in ((0, [0]), (1, []), (2, [9, 10, 11])):
        source = root / f"data/chunk-000/file-{number:03d}.parquet"
        output = tmp_path / f"file-{number:03d}.parquet"
        merge(source, output, rows_for(source, episodes))
        schemas.append(pq.read_schema(output))
    assert schemas[0].field("language_persistent").type == PERSISTENT_TYPE
    assert schemas[0].field("language_events").type == EVENTS_TYPE
    assert all(schema.equals(schemas[0]) for schema in schemas)
    item = schemas[0].field("language_persistent").type.value_type
    assert [field.name for field in item] == list(KEYS)
    assert item.field("timestamp").type == pa.float32()
    assert [field.name for field in item if not field.nullable] == ["role", "timestamp"]
    event = schemas[0].field("language_events").type.value_type
    assert [field.name for field in event] == [key for key in KEYS if key != "timestamp"]


def test_one_snappy_row_group_an_episode_whatever_the_sources_row_groups(root, tmp_path):
    table = pq.read_table(root / FILE)
    source = tmp_path / "source.parquet"
    for size in (table.num_rows, 100, 7):
        pq.write_table(table, source, row_group_size=size)
        merge(source, tmp_path / "out.parquet", rows_for(source, [1]))
        metadata = pq.ParquetFile(tmp_path / "out.parquet").metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        assert [group.num_rows for group in groups] == list(lengths(source).values())
        assert {group.column(0).compression for group in groups} == {"SNAPPY"}
        assert pq.read_table(tmp_path / "out.parquet").select(table.schema.names).equals(table)


def test_frames_without_rows_have_empty_lists_not_nulls(root, tmp_path):
    source = root / FILE
    merge(source, tmp_path / "out.parquet", rows_for(source, [0]))
    table = pq.read_table(tmp_path / "out.parquet")
    assert [table.column(name).null_count for name in LANGUAGE_COLUMNS] == [0, 0]
    assert table.column("language_persistent")[-1].as_py() == []


def test_stale_and_earlier_columns_are_replaced(root, tmp_path):
    table = pq.read_table(root / FILE)
    ones = pa.array([1] * table.num_rows)
    source = tmp_path / "source.parquet"
    with_stale = table.append_column("language_events", pa.nulls(table.num_rows))
    for name in ("subtask_index", "tools"):
        with_stale = with_stale.append_column(name, ones)
    pq.write_table(with_stale.append_column("extra", ones), source)
    merge(source, tmp_path / "out.parquet", rows_for(source, [0]))
    names = pq.read_schema(tmp_path / "out.parquet").names
    assert names == [*table.schema.names, "extra", *LANGUAGE_COLUMNS]


def test_language_rows_of_the_source_stay_in_episodes_without_new_rows(root, tmp_path):
    source, once, twice = root / FILE, tmp_path / "once.parquet", tmp_path / "twice.parquet"
    first = rows_for(source, [0, 1, 2])
    merge(source, once, first)
    # As other writers leave it: timestamps as double, no declared nullability.
    table = pq.read_table(once)
    loose = pa.array(table.column("language_persistent").to_pylist())
    at = table.schema.get_field_index("language_persistent")
    pq.write_table(table.set_column(at, "language_persistent", loose), once)
    times = pq.read_table(source, columns=["timestamp"]).column(0).to_pylist()
    begin, length = lengths(source)[0], lengths(source)[1]
    new = {1: make_rows(times[begin : begin + length], 99)}
    merged = merge(once, twice, new)
    assert (merged.annotated, merged.kept_from_source, merged.empty) == ([1], [0, 2], [3, 4])
    result = pq.read_table(twice)
    persistent, events = reference(pq.read_table(source), first | new)
    assert result.column("language_persistent").to_pylist() == persistent
    assert result.column("language_events").to_pylist() == events
    assert result.schema.field("language_persistent").type == PERSISTENT_TYPE


def test_nan_and_null_of_the_source_survive(root, tmp_path):
    table = pq.read_table(root / FILE)
    odd = np.full(table.num_rows, np.uint32(0x7FC01234)).view(np.float32)  # NaN with a payload
    nulls = pa.array([None if n % 2 else 1 for n in range(table.num_rows)], pa.int16())
    source = tmp_path / "source.parquet"
    pq.write_table(table.append_column("odd", pa.array(odd)).append_column("nulls", nulls), source)
    merge(source, tmp_path / "out.parquet", {})
    result = pq.read_table(tmp_path / "out.parquet")
    assert result.column("odd").to_numpy().tobytes() == odd.tobytes()
    assert result.column("nulls").to_pylist() == nulls.to_pylist()


def test_hub_metadata_describes_exactly_the_files_columns(root, tmp_path):
    source = root / FILE
    merge(source, tmp_path / "out.parquet", rows_for(source, [0]))
    schema = pq.read_schema(tmp_path / "out.parquet")
    before = json.loads(pq.read_schema(source).metadata[b"huggingface"])
    after = json.loads(schema.metadata[b"huggingface"])
    features = after["info"]["features"]
    assert list(features) == schema.names
    assert features["action"] == before["info"]["features"]["action"]
    item = features["language_persistent"]["feature"]
    assert {k: v.get("dtype") for k, v in item.items()} == {
        "role": "string",
        "content": "string",
        "style": "string",
        "timestamp": "float32",
        "camera": "string",
        "tool_calls": None,
    }


def test_metadata_of_pandas_and_older_hub_versions_is_updated_too():
    text = {"dtype": "string", "_type": "Value"}
    hub = {"info": {"features": {"a": {"feature": text, "_type": "Sequence"}, "tools": text}}}
    pandas = {"columns": [{"name": "a"}, {"name": "tools"}], "index_columns": []}
    metadata = {b"huggingface": json.dumps(hub), b"pandas": json.dumps(pandas), b"other": b"x"}
    source = pa.schema([("a", pa.list_(pa.string())), ("tools", pa.string())], metadata=metadata)
    schema = annotated_schema(source)
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names == ["a", *LANGUAGE_COLUMNS]
    assert isinstance(features["language_events"], list)
    assert json.loads(schema.metadata[b"pandas"])["columns"] == [{"name": "a"}]
    assert schema.metadata[b"other"] == b"x"


def test_merging_twice_gives_the_same_bytes(root, tmp_path):
    source = root / FILE
    digests = set()
    for name in ("one", "two"):
        merge(source, tmp_path / name, rows_for(source, [0, 1]))
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("column", ["persistent", "events"])
def test_a_row_on_no_frame_names_episode_and_time_and_leaves_no_file(root, tmp_path, column):
    source = root / FILE
    lost = [row("vqa", "user", "?", 1.234, CAMERA)]
    rows = {2: EpisodeRows(lost, []) if column == "persistent" else EpisodeRows([], lost)}
    output = tmp_path / "out.parquet"
    output.write_bytes(b"earlier")
    with pytest.raises(CuesheetError, match=r"episode 2: .* at 1\.234 s .*run again"):
        merge(source, output, rows)
    assert output.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [output]


def test_a_file_that_differs_from_the_metadata_is_refused(root, tmp_path):
    source = root / FILE
    output = tmp_path / "out.parquet"
    right = lengths(source)
    for wrong in (right | {4: 5}, right | {17: 3}, dict(reversed(right.items()))):
        with pytest.raises(CuesheetError, match="metadata"):
            merge_file(source, output, {}.get, wrong)
    assert not output.exists()


def test_rows_of_episodes_without_metadata_are_left_out(root, tmp_path):
    source, earlier = root / FILE, tmp_path / "earlier.parquet"
    first = rows_for(source, [0, 1, 2, 3, 4])
    merge(source, earlier, first)
    described = {number: length for number, length in lengths(source).items() if number in (0, 3)}
    new = rows_for(source, [0])
    merged = merge_file(earlier, tmp_path / "out.parquet", new.get, described)
    assert (merged.annotated, merged.kept_from_source, merged.dropped) == ([0], [3], [1, 2, 4])
    table = pq.read_table(tmp_path / "out.parquet")
    whole = pq.read_table(source)
    kept = whole.filter(pc.is_in(whole["episode_index"], pa.array([0, 3])))
    assert table.select(kept.column_names).equals(kept)
    persistent, events = reference(kept, {**first, **new})
    assert table.column("language_persistent").to_pylist() == persistent
    assert table.column("language_events").to_pylist() == events


def test_a_row_without_an_episode_number_is_refused(root, tmp_path):
    table = pq.read_table(root / FILE)
    numbers = table.column("episode_index").to_pylist()
    numbers[3] = None
    index = table.schema.get_field_index("episode_index")
    source = tmp_path / "source.parquet"
    pq.write_table(table.set_column(index, "episode_index", pa.array(numbers, pa.int64())), source)
    with pytest.raises(CuesheetError, match=r"source\.parquet: a row has no episode_index"):
        merge_file(source, tmp_path / "out.parquet", {}.get, lengths(root / FILE))
    assert list(tmp_path.iterdir()) == [source]


def write_stage_files(results: Path, episode: int, rows: EpisodeRows, length: int) -> None:
    """An episode's annotation files, and the validation that says which were checked."""
    checked = {}
    for stage in ("plan", "interjections", "vqa"):
        data = {
            "format": 1,
            "stage": stage,
            "dataset": results.name,
            "episode_index": episode,
            "persistent": rows.persistent if stage == "plan" else [],
            "events": rows.events if stage == "vqa" else [],
        }
        if stage == "plan":
            span = {"start_frame": 0, "start_s": 0.0, "end_s": 1.0, "label": "all"}
            data["subtasks"] = [span | {"end_frame": length}]
        text = json.dumps(data)
        checked[stage] = hashlib.sha256(text.encode()).hexdigest()
        write(results / stage / f"{episode:06d}.json", text)
    validation = {"format": 1, "episode_index": episode, "errors": [], "warnings": []}
    validation |= {"counts": {}, "stage_files": checked}
    write(results / "validation" / f"{episode:06d}.json", json.dumps(validation))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def script() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


@pytest.fixture
def results(root, tmp_path) -> Path:
    folder = tmp_path / "results"
    for episode, rows in rows_for(root / FILE, [0, 1, 2]).items():
        write_stage_files(folder, episode, rows, lengths(root / FILE)[episode])
    return folder


def run(script, root, results, annotated):
    output = results / "annotated" / FILE
    merged = script.merge_data_file(
        read_dataset(root, "dataset"), FILE, results, output, set(annotated)
    )
    return merged, pq.read_table(output)


def test_the_script_merges_the_rows_that_were_validated(script, root, results):
    merged, table = run(script, root, results, [0, 1])
    assert merged.annotated == [0, 1]
    rows = rows_for(root / FILE, [0, 1])
    persistent, events = reference(pq.read_table(root / FILE), rows)
    assert table.column("language_persistent").to_pylist() == persistent
    assert table.column("language_events").to_pylist() == events


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_the_script_refuses_a_file_that_is_not_the_one_that_was_validated(
    script, root, results, damage
):
    path = results / "plan/000001.json"
    if damage == "gone":
        path.unlink()
    else:
        path.write_text(path.read_text() + " ")
    with pytest.raises(CuesheetError, match=r"plan/000001\.json is missing or has changed"):
        run(script, root, results, [1])


def test_the_script_refuses_annotations_of_an_earlier_recording(script, root, results):
    rows = EpisodeRows([row("subtask", "assistant", "all", 0.0)], [])
    write_stage_files(results, 1, rows, length=100)
    length = lengths(root / FILE)[1]
    with pytest.raises(CuesheetError, match=f"recording of 100 frames, but episode 1 has {length}"):
        run(script, root, results, [1])


def test_the_script_refuses_episodes_of_other_files(script, root, results):
    write_stage_files(results, 7, EpisodeRows([], []), length=10)
    with pytest.raises(CuesheetError, match=r"file-000\.parquet does not hold the episodes \[7\]"):
        run(script, root, results, [1, 7])
