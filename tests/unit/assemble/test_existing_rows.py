"""Which episodes of a source have language rows, and which of these rows stay."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuesheet.artifacts.language import LANGUAGE_COLUMNS, LANGUAGE_FEATURE
from cuesheet.assemble.existing_rows import episodes_with_rows, replaced_styles
from cuesheet.assemble.merge import EpisodeRows, merge_file
from cuesheet.dataset.metadata import read_dataset

DATA = "data/chunk-000/file-000.parquet"


def row(style, timestamp, content="text", camera=None):
    return {
        "role": "assistant",
        "content": content,
        "style": style,
        "timestamp": timestamp,
        "camera": camera,
        "tool_calls": None,
    }


@pytest.fixture(params=["one row group an episode", "one row group"])
def annotated(request, demo_v3, tmp_path):
    """The demo: episode 1 with subtask and motion rows, episode 2 with a trace event alone."""
    root = shutil.copytree(demo_v3, tmp_path / "annotated")
    rows = {
        1: EpisodeRows([row("subtask", 0.0, "old"), row("motion", 0.5)], []),
        2: EpisodeRows([], [row("trace", 1.0, "foreign", "observation.images.front")]),
    }
    lengths = {e.episode_index: e.length for e in read_dataset(root, "d").episodes}
    merge_file(demo_v3 / DATA, root / DATA, rows.get, lengths)
    if request.param == "one row group":
        pq.write_table(pq.read_table(root / DATA), root / DATA)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"] |= {name: dict(LANGUAGE_FEATURE) for name in LANGUAGE_COLUMNS}
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def test_episodes_with_rows_are_found(annotated, demo_v3):
    assert episodes_with_rows(read_dataset(annotated, "d")) == {1, 2}
    assert episodes_with_rows(read_dataset(demo_v3, "d")) == frozenset()


def test_a_column_of_nulls_has_no_rows(annotated):
    table = pq.read_table(annotated / DATA)
    for name in LANGUAGE_COLUMNS:
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.nulls(table.num_rows))
    pq.write_table(table, annotated / DATA)
    assert episodes_with_rows(read_dataset(annotated, "d")) == frozenset()


def test_merge_replaces_our_styles_and_leaves_the_others(annotated, tmp_path):
    lengths = {e.episode_index: e.length for e in read_dataset(annotated, "d").episodes}
    ours = {
        1: EpisodeRows([row("subtask", 0.0, "new")], []),
        2: EpisodeRows([row("subtask", 0.0, "new")], [row("interjection", 1.0, "please")]),
    }
    target = tmp_path / "merged.parquet"
    merge_file(annotated / DATA, target, ours.get, lengths, replaced=replaced_styles(["plan"]))
    frames = pq.read_table(target).to_pylist()
    persistent = {f["episode_index"]: f["language_persistent"] for f in frames}
    assert [(r["style"], r["content"]) for r in persistent[1]] == [
        ("subtask", "new"),
        ("motion", "text"),
    ]
    assert persistent[3] == []
    events = {
        (f["episode_index"], f["frame_index"]): [r["content"] for r in f["language_events"]]
        for f in frames
        if f["language_events"]
    }
    assert events == {(2, 10): ["please", "foreign"]}


def test_interjections_go_with_the_plan_they_follow_from():
    assert {"interjection", None, "plan"} <= set(replaced_styles(["plan"]))
    assert replaced_styles(["vqa"]) == ["vqa"]
