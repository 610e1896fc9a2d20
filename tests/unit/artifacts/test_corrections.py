"""Corrections by people: valid ones, error messages for invalid ones, and their effect."""

import json
from pathlib import Path

import pytest

from cuesheet.artifacts import apply_corrections
from cuesheet.artifacts.episode import Episode, Keyframe
from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError
from cuesheet.workflow.load import read_corrections

FRONT = "observation.images.front"


@pytest.fixture(scope="module")
def demo(demo_v3):
    return read_dataset(demo_v3, "demo_v3")


def write(folder: Path, text: str | None = None, name: str = "000001.json", **values) -> Path:
    """A correction of episode 1 of the demo (46 frames at 10 fps)."""
    value = {"format": 1, "dataset": "demo_v3", "episode_index": 1, **values}
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(value) if text is None else text)
    return folder


def spans(*starts_and_labels, end=None):
    listed = [{"start_s": start, "label": label} for start, label in starts_and_labels]
    if end is not None:
        listed[-1]["end_s"] = end
    return listed


def test_texts_of_every_kind_are_read(tmp_path, demo):
    write(
        tmp_path,
        subtasks=[
            {"start_s": 0, "end_s": 2.0, "label": "reach"},
            {"start_s": 2.0, "end_s": 3.0, "label": "pull", "memory": "I am at\nthe handle."},
            {"start_s": 3.0, "end_s": 4.6, "label": "let go", "memory": ""},
        ],
        rephrasings=["Pull out the drawer", "Get the drawer open"],
        interjections=[
            {"time_s": 0.0, "speech": "On it."},
            {"time_s": 2.52, "interjection": "Slower.", "speech": "Slowing down."},
        ],
        done=True,
        reviewer="Ana",
    )
    read = read_corrections(tmp_path, demo)[1]
    assert [span.memory for span in read.subtasks] == [None, "I am at the handle.", ""]
    assert read.rephrasings == ["Pull out the drawer", "Get the drawer open"]
    assert [entry.interjection for entry in read.interjections] == [None, "Slower."]
    assert (read.done, read.reviewer) == (True, "Ana")


def test_no_folder_means_no_corrections(tmp_path, demo):
    assert read_corrections(tmp_path / "none", demo) == {}


def test_every_key_is_read(tmp_path, demo):
    write(
        tmp_path,
        length=46,
        subtasks=spans((0, "reach"), (2.0, "pull"), end=4.6),
        vqa=[
            {"frame_index": 10, "camera": FRONT, "type": "bbox", "delete": True},
            {
                "frame_index": 20,
                "camera": FRONT,
                "type": "count",
                "question": "How many drawers?",
                "answer": {"label": "drawer", "count": 1},
            },
        ],
        verdict="bad",
        note="the arm stops",
    )
    read = read_corrections(tmp_path, demo)[1]
    assert [span.label for span in read.subtasks] == ["reach", "pull"]
    assert [entry.delete for entry in read.vqa] == [True, False]
    assert read.verdict == "bad"


@pytest.mark.parametrize("text", ["start,end,text\n0,2.0,reach\n2.0,,pull\n"])
@pytest.mark.parametrize(
    "change",
    [
        str,
        lambda t: "\ufeff" + t,
        lambda t: t.replace(",", ";"),
        lambda t: t.replace(",", ", "),
        lambda t: t.replace("reach", '"reach"').replace(",", ", ").replace("\n", "\r\n"),
    ],
)
def test_a_table_says_the_same_as_json(tmp_path, demo, text, change):
    write(tmp_path, change(text), "000001.csv")
    read = read_corrections(tmp_path, demo)[1]
    assert [span.model_dump() for span in read.subtasks] == [
        {"start_s": 0.0, "end_s": 2.0, "label": "reach", "memory": None},
        {"start_s": 2.0, "end_s": None, "label": "pull", "memory": None},
    ]


COUNT = {"frame_index": 0, "camera": FRONT, "type": "count"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format": 2}, "format: Input should be 1"),
        (
            {"dataset": "other"},
            "episode 1 of 'other', but the path is that of episode 1 of 'demo_v3'",
        ),
        ({"lenght": 3}, "lenght: Extra inputs"),
        ({"length": 50}, "made for 50 frames; the episode now has 46"),
        ({"verdict": "ugly"}, "verdict"),
        ({"subtasks": []}, "subtasks: List should have at least 1 item"),
        ({"subtasks": spans((1.0, "late"))}, "subtasks.0 starts at 1 s; expected 0"),
        ({"subtasks": spans((0, " "))}, "subtasks.0.label"),
        ({"subtasks": spans((0, "a"), (0.02, "b"))}, "less than one frame after"),
        ({"subtasks": spans((0, "a"), (3, "b"), (2, "c"))}, "subtasks.2 starts at 2 s"),
        (
            {"subtasks": [{"start_s": 0, "end_s": 1, "label": "a"}, *spans((2, "b"))]},
            "subtasks.0 ends at 1 s and subtasks.1 starts at 2 s; expected the same time",
        ),
        ({"subtasks": spans((0, "a"), (9, "b"))}, "starts at 9 s; the episode ends at 4.6 s"),
        ({"subtasks": spans((0, "a"), end=3)}, "ends at 3 s; the episode ends at 4.6 s"),
        (
            {"subtasks": [{"start_s": 0, "label": "a", "memory": "I began."}]},
            "nothing has happened before the first subtask",
        ),
        ({"rephrasings": [""]}, "rephrasings.0"),
        (
            {"interjections": [{"time_s": 1.0, "interjection": "Stop."}]},
            "interjections.0.speech: Field required",
        ),
        (
            {"interjections": [{"time_s": 9.0, "interjection": "Stop.", "speech": "Yes."}]},
            "interjections.0 is at 9 s, but the episode ends at 4.6 s",
        ),
        (
            {"interjections": [{"time_s": 1.0, "speech": "Yes."}]},
            "interjections.0 at 1 s has no interjection",
        ),
        ({"done": "yes"}, "done"),
        ({"vqa": [COUNT]}, 'expected either "delete": true, or a question and an answer'),
        (
            {"vqa": [{**COUNT, "question": "?", "answer": {"label": "x", "count": 1.5}}]},
            "expected a whole number",
        ),
        (
            {"vqa": [{**COUNT, "delete": True}, {**COUNT, "delete": True}]},
            f"vqa has two entries for frame 0 of {FRONT}",
        ),
        ({"vqa": [{**COUNT, "frame_index": 46, "delete": True}]}, "frame 46 does not exist"),
        ({"vqa": [{**COUNT, "camera": "top", "delete": True}]}, "camera 'top' does not exist"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_place(tmp_path, demo, values, said):
    write(tmp_path, **values)
    with pytest.raises(CuesheetError) as error:
        read_corrections(tmp_path, demo)
    assert said in str(error.value)
    assert str(tmp_path / "000001.json") in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("000001.json", '{"format": 1', "not valid JSON"),
        ("1.json", "{}", "six digits"),
        ("000009.json", "{}", "there is no episode 9"),
        ("000001.csv", "from,to,text\n", "expected the columns start, end, text"),
        ("000001.csv", "start,end,text\n0,one,reach\n", "line 2: start '0', end 'one'"),
        ("000001.csv", "start,end,text\n0,1,reach, then pull\n", "more than 3 values"),
        ("000001.csv", "start,end,text\n", "subtasks: List should have at least 1"),
    ],
)
def test_files_that_are_no_corrections_are_refused(tmp_path, demo, name, text, said):
    write(tmp_path, text, name)
    with pytest.raises(CuesheetError) as error:
        read_corrections(tmp_path, demo)
    assert said in str(error.value)


def test_two_files_of_one_episode_are_refused(tmp_path, demo):
    write(tmp_path)
    write(tmp_path, "start,text\n0,reach\n", "000001.csv")
    with pytest.raises(CuesheetError, match="correct the same episode"):
        read_corrections(tmp_path, demo)


def episode() -> Episode:
    frames = [Keyframe(FRONT, index, index / 10, Path("x.png"), 64, 48) for index in (0, 10, 19)]
    return Episode("made", 0, "push", 10.0, [index / 10 for index in range(20)], {FRONT: frames})


def test_times_go_to_the_nearest_frame_and_cover_the_episode():
    given = [
        {"start_s": 0.04, "end_s": 0.52, "label": "a"},
        {"start_s": 0.52, "end_s": 2.0, "label": "b"},
    ]
    segmentation = apply_corrections.subtasks_from_spans(given, episode())
    assert [(part.start_frame, part.end_frame) for part in segmentation] == [(0, 5), (5, 20)]


def test_an_end_that_is_not_the_episodes_is_refused():
    with pytest.raises(CuesheetError, match=r"ends at 1.9 s; the episode ends at 2 s"):
        apply_corrections.subtasks_from_spans(
            [{"start_s": 0, "end_s": 1.9, "label": "a"}], episode()
        )


def pair(frame_index, kind="count", **values):
    answer = {"label": "puck", "count": 1}
    question = {"question": "How many pucks?", "answer": answer}
    return {"frame_index": frame_index, "camera": FRONT, "type": kind, **question, **values}


def test_pairs_are_deleted_replaced_and_added():
    other = {"label": "puck", "count": 2}
    entries = [
        {**pair(0), "delete": True},
        {**pair(5, "bbox"), "delete": True},  # by now of another type: stays
        {**pair(10, answer=other), "delete": False},
        {**pair(19), "delete": False},
    ]
    after, done = apply_corrections.apply_vqa([pair(0), pair(5), pair(10)], entries)
    assert after == [pair(5), pair(10, answer=other), pair(19)]
    assert [(entry["frame_index"], entry["action"]) for entry in done] == [
        (0, "deleted"),
        (10, "replaced"),
        (19, "added"),
    ]


def test_a_question_about_a_frame_that_was_not_decoded_is_refused_before_asking():
    with pytest.raises(CuesheetError, match=r"frame 11 .* the nearest one is 10"):
        apply_corrections.check_decoded([{**pair(11), "delete": False}], episode())
