"""The model of a run judges labels. Its verdicts take precedence and are cached."""

import json

import pytest
from workflow_runs import CountingServer, Workdir

pytestmark = pytest.mark.workflow


def test_the_judge_gets_each_pair_once_and_its_verdicts_count(
    workdir: Workdir, counting_server: CountingServer, demo_v3, tmp_path
):
    rows = [
        {"episode": 0, "start_s": 0.0, "end_s": 3.7, "text": "approach puck"},  # shares "puck"
        {"episode": 0, "start_s": 3.7, "end_s": 7.5, "text": "rest"},
    ]
    (tmp_path / "truth.json").write_text(json.dumps(rows))
    settings = {
        "dataset": str(demo_v3),
        "episodes": [0],
        "vqa": {"enabled": False},
        "signals": {"enabled": False},  # the boundaries are those of the model
        "vlm": counting_server.vlm,
    }
    reference = {"reference": str(tmp_path / "truth.json")}
    workdir.configure(**settings, evaluate=reference)
    workdir.run()
    by_words = workdir.json("results/demo_v3/evaluation.json")
    assert "Verdict" not in counting_server.kinds()
    assert by_words["calls"] == []
    workdir.configure(**settings, evaluate={**reference, "judge": True})
    done = workdir.run()
    assert set(done.jobs) == {"score_annotations", "write_report"}
    judged = workdir.json("results/demo_v3/evaluation.json")
    texts = [
        message["content"][-1]["text"]
        for request in counting_server.asked
        if request["response_format"]["json_schema"]["name"] == "Verdict"
        for message in request["messages"][1:]
    ]
    assert len(texts) == len(set(texts)) == len(judged["calls"]) == judged["judged_labels"] > 0
    assert all("Task: Pick and place a puck to a goal" in text for text in texts)
    plan = workdir.json("results/demo_v3/plan/000000.json")["subtasks"]
    assert "puck" in plan[0]["label"]
    assert plan[0]["end_s"] == 3.7
    before, after = by_words["systems"][0], judged["systems"][0]
    assert before["segment"] == after["segment"]
    assert before["end_to_end"]["0.75"]["recall"] == 0
    assert after["end_to_end"]["0.75"]["recall"] == 0.5
