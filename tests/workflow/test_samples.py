"""Segmentation samples: each is requested once, and their agreement is recorded."""

import json
import re
import shutil

import pytest
from chat_server import completion
from workflow_runs import CountingServer, Workdir

pytestmark = pytest.mark.workflow

PLANS = [f"results/demo_v3/plan/{number:06d}.json" for number in (1, 2)]


def varying(request: dict) -> tuple[int, bytes] | None:
    """Two subtasks, divided at 2.0 s and 0.2 s later with each seed; the last seed says "drop"."""
    if request["response_format"]["json_schema"]["name"] != "Segmentation":
        return None
    question = request["messages"][1]["content"][-1]["text"]
    start, end = map(float, re.search(r"Window: (\S+) to (\S+) s", question).groups())
    middle = 2.0 + 0.2 * request["seed"]
    parts = [(start, middle, "reach"), (middle, end, "drop" if request["seed"] == 2 else "lift")]
    reply = {"subtasks": [dict(zip(("start_s", "end_s", "label"), p, strict=True)) for p in parts]}
    return 200, json.dumps(completion(json.dumps(reply))).encode()


def test_samples_are_requested_once_and_their_agreement_is_in_the_files(
    workdir: Workdir, counting_server: CountingServer, demo_v3
):
    counting_server.answer_instead = varying
    settings = {
        "dataset": str(demo_v3),
        "episodes": [1, 2],
        "interjections": {"enabled": False},
        "vqa": {"enabled": False},
        "vlm": counting_server.vlm,
    }
    workdir.configure(**settings, plan={"samples": 3})
    workdir.run()
    asked = [
        (request["temperature"], request["seed"])
        for request in counting_server.asked
        if request["response_format"]["json_schema"]["name"] == "Segmentation"
    ]
    assert sorted(asked) == [(0.7, 0), (0.7, 0), (0.7, 1), (0.7, 1), (0.7, 2), (0.7, 2)]

    plan = workdir.json("results/demo_v3/plan/000001.json")
    length = workdir.json("results/demo_v3/keyframes/000001/keyframes.json")["length"]
    assert length == 46
    assert [(p["start_frame"], p["end_frame"], p["label"]) for p in plan["subtasks"]] == [
        (0, 22, "reach"),
        (22, 46, "lift"),
    ]
    # Frames 0-20, 0-22, 0-24; and 20-46, 22-46, and 24-46 that was called something else.
    first, second = round((20 / 22 + 1 + 22 / 24) / 3, 3), round((24 / 26 + 1 + 0) / 3, 3)
    assert [part["agreement"] for part in plan["subtasks"]] == [first, second]
    assert plan["agreement"] == round((22 * first + 24 * second) / 46, 3)
    assert [sample["seed"] for sample in plan["samples"]] == [0, 1, 2]
    called = [call for call in plan["provenance"]["calls"] if call["prompt"] == "plan_segment"]
    assert [call["sampling"] for call in called] == [
        {"temperature": 0.7, "seed": seed} for seed in range(3)
    ]
    report = (workdir.path / "results/demo_v3/report.html").read_text()
    assert "Agreement of samples, lowest first" in report
    listed = (workdir.path / "results/demo_v3/review/data/list/0000.js").read_text()
    assert f'"agreement":{plan["agreement"]}' in listed

    # Made again: every answer is kept.
    count = len(counting_server.asked)
    shutil.rmtree(workdir.path / "results/demo_v3/plan")
    workdir.run(*PLANS)
    assert len(counting_server.asked) == count
    again = workdir.json("results/demo_v3/plan/000001.json")
    assert (again["subtasks"], again["samples"]) == (plan["subtasks"], plan["samples"])

    # One sample more is one more question an episode.
    workdir.configure(**settings, plan={"samples": 4})
    workdir.run(*PLANS)
    new = counting_server.asked[count:]
    assert [
        request["seed"]
        for request in new
        if request["response_format"]["json_schema"]["name"] == "Segmentation"
    ] == [3, 3]
    assert len(workdir.json("results/demo_v3/plan/000001.json")["samples"]) == 4

    # Without samples, nothing is said of agreement, and the question is the usual one.
    workdir.configure(**settings)
    workdir.run(*PLANS)
    assert (counting_server.asked[-1]["temperature"], counting_server.asked[-1]["seed"]) == (0.2, 0)
    plan = workdir.json("results/demo_v3/plan/000001.json")
    assert not {"agreement", "samples"} & plan.keys()
    assert not any("agreement" in part for part in plan["subtasks"])
