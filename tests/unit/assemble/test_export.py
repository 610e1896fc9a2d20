"""The exported table has one row per language row, with the right frames, times and values."""

import json
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuesheet.artifacts.language import say
from cuesheet.assemble.export import tidy_tables, write_exports
from cuesheet.assemble.merge import EpisodeRows, merge_file
from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError

DATA = "data/chunk-000/file-000.parquet"
CAMERA = "observation.images.front"
COLUMNS = ["episode_index", "frame_index", "style", "role"]
COLUMNS += ["start_s", "end_s", "camera", "text", "json"]
ANSWER = '{"count": 2, "label": "cup"}'


def row(style, role, content, timestamp, camera=None, tool_calls=None):
    names = ("style", "role", "content", "timestamp", "camera", "tool_calls")
    return dict(zip(names, (style, role, content, timestamp, camera, tool_calls), strict=True))


@pytest.fixture
def exported(demo_v3, tmp_path):
    """The demo (10 fps; episode 1 has 46 frames) with rows in episodes 1 and 3."""
    dataset = read_dataset(demo_v3, "demo")
    rows = {
        1: EpisodeRows(
            [
                row("task_aug", "user", "open it", 0.0),
                row("subtask", "assistant", "reach", 0.0),
                row("subtask", "assistant", "pull", 2.1),
                row("plan", "assistant", "1. reach\n2. pull", 0.0),
            ],
            [
                row("vqa", "user", "How many?", 2.1, CAMERA),
                row("vqa", "assistant", ANSWER, 2.1, CAMERA),
                row(None, "assistant", None, 0.0, None, say("Sure.")),
                row("interjection", "user", "stop", 4.5),
            ],
        ),
        3: EpisodeRows([row("subtask", "assistant", "wait", 0.0)], []),
    }
    (tmp_path / "annotated/data/chunk-000").mkdir(parents=True)
    for data_file, episodes in dataset.data_files.items():
        lengths = {episode.episode_index: episode.length for episode in episodes}
        merge_file(demo_v3 / data_file, tmp_path / "annotated" / data_file, rows.get, lengths)
    (tmp_path / "annotated/meta").symlink_to(demo_v3 / "meta")
    (tmp_path / "annotated/videos").symlink_to(demo_v3 / "videos")
    annotated = read_dataset(tmp_path / "annotated", "demo")
    assert write_exports(annotated, tmp_path / "rows.parquet", tmp_path / "rows.jsonl") == 9
    return tmp_path


def test_rows_have_frames_and_end_times_and_are_sorted_by_time(exported):
    table = pd.read_parquet(exported / "rows.parquet")
    assert list(table.columns) == COLUMNS
    assert table["end_s"].notna().all()
    first = table[table["episode_index"] == 1]
    assert first["start_s"].is_monotonic_increasing
    found = {
        (r.style, r.role, r.text): (r.frame_index, r.start_s, r.end_s) for r in first.itertuples()
    }
    assert found == {
        ("task_aug", "user", "open it"): (0, 0.0, 4.6),
        ("subtask", "assistant", "reach"): (0, 0.0, 2.1),
        ("subtask", "assistant", "pull"): (21, 2.1, 4.6),
        ("plan", "assistant", "1. reach\n2. pull"): (0, 0.0, 4.6),
        ("speech", "assistant", "Sure."): (0, 0.0, 0.1),
        ("vqa", "user", "How many?"): (21, 2.1, 2.2),
        ("vqa", "assistant", ANSWER): (21, 2.1, 2.2),
        ("interjection", "user", "stop"): (45, 4.5, 4.6),
    }
    assert table["episode_index"].tolist() == [1] * 8 + [3]


def test_json_lines_hold_the_same_rows_with_values_instead_of_text(exported):
    rows = pq.read_table(exported / "rows.parquet").to_pylist()
    lines = [json.loads(line) for line in (exported / "rows.jsonl").read_text().splitlines()]
    for value, line in zip(rows, lines, strict=True):
        assert line["json"] == (value["json"] and json.loads(value["json"]))
        assert {**value, "json": None} == {**line, "json": None}
    values = {line["style"]: line["json"] for line in lines if line["json"]}
    assert values == {"vqa": json.loads(ANSWER), "speech": say("Sure.")}


def test_a_dataset_without_labels_is_named(demo_v3, tmp_path):
    with pytest.raises(CuesheetError, match=r"file-000\.parquet has no column language_events"):
        write_exports(read_dataset(demo_v3, "demo"), tmp_path / "a", tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_rows_carry_the_datasets_own_timestamps_and_the_export_counts_from_the_start(
    demo_v3, tmp_path
):
    """Timestamps continue across episodes; episode 1 begins with row 75, at 7.5 s."""
    root, annotated = shutil.copytree(demo_v3, tmp_path / "clock"), tmp_path / "annotated"
    path = root / DATA
    table = pq.read_table(path)
    times = pa.array([row / 10 for row in range(len(table))], pa.float32())
    position = table.column_names.index("timestamp")
    pq.write_table(table.set_column(position, "timestamp", times), path)
    rows = EpisodeRows(
        [row("subtask", "assistant", "reach", 0.0), row("subtask", "assistant", "pull", 2.1)],
        [row("interjection", "user", "stop", 4.5)],
    )
    dataset = read_dataset(root, "clock")
    lengths = {episode.episode_index: episode.length for episode in dataset.episodes}
    (annotated / DATA).parent.mkdir(parents=True)
    merge_file(path, annotated / DATA, {1: rows}.get, lengths)
    (annotated / "meta").symlink_to(root / "meta")

    merged = pq.read_table(annotated / DATA)
    assert merged["timestamp"].combine_chunks() == times
    stored = merged["language_persistent"][75].as_py()
    assert [r["timestamp"] for r in stored] == [times[75].as_py(), times[75 + 21].as_py()]
    assert [len(events.as_py()) for events in merged["language_events"]].index(1) == 75 + 45

    exported = pd.concat(tidy_tables(read_dataset(annotated, "clock")))
    found = exported[["frame_index", "start_s", "end_s", "text"]].to_numpy().tolist()
    assert found == [[0, 0.0, 2.1, "reach"], [21, 2.1, 4.6, "pull"], [45, 4.5, 4.6, "stop"]]
