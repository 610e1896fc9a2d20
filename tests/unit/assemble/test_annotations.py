"""The Python API on a small annotated dataset with known rows."""

import subprocess
import sys

import pandas as pd
import pytest

from cuesheet import CuesheetError, open_annotations
from cuesheet.artifacts.language import say
from cuesheet.assemble.merge import EpisodeRows, merge_file
from cuesheet.dataset.metadata import read_dataset

CAMERA = "observation.images.front"
TASK = "Pick and place a puck to a goal"  # of episode 0, which has 75 frames at 10 per second


def row(style, role, content, timestamp, camera=None, tool_calls=None):
    names = ("style", "role", "content", "timestamp", "camera", "tool_calls")
    return dict(zip(names, (style, role, content, timestamp, camera, tool_calls), strict=True))


@pytest.fixture(scope="module")
def notes(demo_v3, tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "annotated"
    dataset = read_dataset(demo_v3, "demo")
    rows = EpisodeRows(
        [
            row("subtask", "assistant", "reach", 0.0),
            row("subtask", "assistant", "place", 3.0),
            row("plan", "assistant", "1. reach\n2. place", 0.0),
            row("memory", "assistant", "I reached.", 3.0),
        ],
        [
            row("vqa", "user", "How many?", 2.0, CAMERA),
            row("vqa", "assistant", '{"count": 2, "label": "cup"}', 2.0, CAMERA),
            row(None, "assistant", None, 3.0, None, say("Placing.")),
        ],
    )
    for data_file, episodes in dataset.data_files.items():
        (folder / data_file).parent.mkdir(parents=True, exist_ok=True)
        lengths = {episode.episode_index: episode.length for episode in episodes}
        merge_file(demo_v3 / data_file, folder / data_file, {0: rows}.get, lengths)
    for name in ("meta", "videos"):
        (folder / name).symlink_to(demo_v3 / name)
    return open_annotations(folder)


@pytest.mark.parametrize(
    ("time_s", "subtask", "memory", "speech"),
    [
        (0.0, "reach", None, None),
        (2.99, "reach", None, None),
        (3.0, "place", "I reached.", "Placing."),
        (3.05, "place", "I reached.", "Placing."),  # the frame at 3.0 s is still shown
        (3.1, "place", "I reached.", None),
        (7.49, "place", "I reached.", None),
        (7.6, None, None, None),
        (-0.1, None, None, None),
    ],
)
def test_the_state_at_a_time_is_that_of_the_frame_that_is_shown(
    notes, time_s, subtask, memory, speech
):
    state = notes.state_at(0, time_s)
    assert state["task"] == TASK
    assert (state["subtask"], state["memory"], state["speech"]) == (subtask, memory, speech)
    assert state["plan"] == ("1. reach\n2. place" if subtask else None)


def test_there_is_one_state_per_frame(notes):
    frames = notes.frames(0)
    assert list(frames.columns) == [
        *("frame_index", "time_s", "task", "subtask", "plan", "memory", "speech")
    ]
    assert frames["time_s"].tolist() == [index / 10 for index in range(75)]
    assert frames["subtask"].tolist() == ["reach"] * 30 + ["place"] * 45
    assert frames.index[frames["speech"].notna()].tolist() == [30]
    assert frames["memory"].isna().sum() == 30
    without = notes.frames(1)
    assert len(without) == 46
    assert without["subtask"].isna().all()


def test_rows_subtasks_and_questions_are_tables(notes):
    assert notes.subtasks().to_numpy().tolist() == [
        [0, 0, 0.0, 3.0, "reach"],
        [0, 30, 3.0, 7.5, "place"],
    ]
    (pair,) = notes.vqa().to_dict("records")
    assert (pair["frame_index"], pair["camera"], pair["question"]) == (20, CAMERA, "How many?")
    assert pair["answer"] == {"count": 2, "label": "cup"}
    assert len(notes.to_frame()) == len(notes.rows(0)) == 7
    assert notes.rows(1).empty
    assert isinstance(notes.to_frame(), pd.DataFrame)


def test_it_is_shown_as_one_short_line(notes):
    assert repr(notes) == f"Annotations({str(notes.dataset.root)!r}, 4 episodes)"


def test_an_unknown_episode_is_named(notes):
    for call in (notes.rows, notes.frames, lambda episode: notes.state_at(episode, 0.0)):
        with pytest.raises(CuesheetError, match="there is no episode 9"):
            call(9)


def test_the_api_imports_nothing_of_snakemake():
    code = "import sys; from cuesheet import open_annotations; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pandas" in done.stdout
    assert "snakemake" not in done.stdout
