"""A real `transformers serve` with a tiny model, started and ended by the run.

It keeps no reply to a form. So this model knows one reply by heart, which fits every question: the
layers between are zero, but the processor, the images and the HTTP are what they are with others.
"""

import json

import pytest
from processes import processes_in
from real_servers import (
    EPISODE,
    PYTHON,
    assert_complete,
    calls_of,
    make_model,
    run_folder,
)

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.workflow,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-vllm; run: make vllm"),
]

# Keys that a question did not ask for are left out of what is read.
REPLY = {
    "scene": "A robot arm and a cup.",
    "events": [{"at_s": 0.5, "what": "the gripper closes"}],
    "subtasks": [
        {"start_s": 0, "end_s": 2, "label": "reach for the cup"},
        {"start_s": 2, "end_s": 60, "label": "lift the cup"},
    ],
    "memory": "I reached for the cup.",
    "rephrasings": ["Lift a cup."],
    "task": "Lift the cup.",
    "interjection": "Please lift the cup.",
    "speech": "Sure.",
    "question": "Where is the cup?",
    "answer": {
        "detections": [{"label": "cup", "bbox_format": "xyxy", "bbox": [10, 10, 40, 40]}],
        "label": "cup",
        "point_format": "xy",
        "point": [20, 20],
        "count": 1,
        "note": None,
        "attribute": "color",
        "value": "red",
        "subject": "cup",
        "relation": "on",
        "object": "table",
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-qwen2.5-vl"
    return make_model(folder, json.dumps(REPLY))


def configure(work, model, dataset):
    work.configure(
        dataset=str(dataset),
        episodes=[EPISODE],
        plan={"second_look": False, "relabel": "off"},
        vlm={
            "serve": "managed",
            "model": str(model),
            "managed": {
                "server": "transformers",
                "python": str(PYTHON),
                "extra_args": ["--device", "cpu"],
                "env": {"HF_HUB_OFFLINE": 1, "CUDA_VISIBLE_DEVICES": ""},
            },
        },
    )


def test_an_episode_is_annotated_by_transformers_serve(work, model, demo_v3):
    configure(work, model, demo_v3)
    work.run()
    assert_complete(work, demo_v3, [EPISODE])
    assert processes_in(work.path) == []
    calls = calls_of(work)
    assert {call["prompt"] for call in calls} >= {"plan_describe", "plan_segment", "vqa_bbox"}
    assert {(call["outcome"], call["attempts"]) for call in calls} == {("ok", 1)}
    subtasks = work.json(f"results/demo_v3/plan/{EPISODE:06d}.json")["subtasks"]
    assert [span["label"] for span in subtasks] == ["reach for the cup", "lift the cup"]
    # It saw images, several at once too: tokens that no text of ours needs.
    assert max(call["prompt_tokens"] for call in calls) > 1000
    # The form was asked for in words, as it takes response_format and does not keep to it.
    log = (run_folder(work) / "replica-0.log").read_text()
    assert "POST /v1/chat/completions" in log
    assert "Ignoring unsupported fields" not in log
    print((run_folder(work) / "supervisor.log").read_text())
