"""The exported table has one row per language row, with the right frames, times and values."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cuesheet.artifacts.language import say
from cuesheet.assemble.export import write_exports
from cuesheet.assemble.merge import EpisodeRows, merge_file
from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError

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
