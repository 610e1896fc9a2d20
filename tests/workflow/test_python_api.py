"""The Python API on the annotated demo."""

import pytest

from cuesheet import CuesheetError, open_annotations

pytestmark = pytest.mark.workflow


def test_the_api_returns_what_the_stage_files_say(finished_demo):
    notes = open_annotations(finished_demo.path / "results/demo_v3/annotated")
    plan = finished_demo.json("results/demo_v3/plan/000001.json")
    found = notes.subtasks()
    labels = found[found["episode_index"] == 1]
    assert labels["label"].tolist() == [part["label"] for part in plan["subtasks"]]
    assert labels["end_s"].tolist() == [part["end_s"] for part in plan["subtasks"]]

    second = plan["subtasks"][-1]
    state = notes.state_at(1, second["start_s"])
    assert state["subtask"] == second["label"]
    assert state["plan"].endswith(second["label"])
    assert (
        state["task"]
        == finished_demo.json("results/demo_v3/keyframes/000001/keyframes.json")["task"]
    )
    assert notes.state_at(1, 0.0)["speech"]
    assert notes.state_at(1, 0.35)["speech"] is None

    pairs = finished_demo.json("results/demo_v3/vqa/000001.json")["pairs"]
    questions = notes.vqa()
    of_episode = questions[questions["episode_index"] == 1]
    assert of_episode["answer"].tolist() == [pair["answer"] for pair in pairs]
    assert len(notes.rows(1)) < len(notes.to_frame())
    with pytest.raises(CuesheetError, match="no episode 9"):
        notes.rows(9)
