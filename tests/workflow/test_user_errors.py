"""User errors and broken input lead to one clear, early message, and nothing is lost."""

import json
import shutil

import pytest
from dataset_variants import copy, remove_cameras, truncate_video
from workflow_runs import REPOSITORY

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (
            ["datset=/nowhere", "plan={max_subtask: 4}", "vlm={serve: external}"],
            ["did you mean dataset?", "did you mean max_subtasks?", "base_urls"],
        ),
        (
            ["default_camera=observation.images.frnt", "prompts_dir=/no/prompts"],
            ["did you mean observation.images.front?", "/no/prompts"],
        ),
    ],
    ids=["settings", "dataset"],
)
def test_wrong_settings_are_said_before_anything_starts(workdir, demo_v3, arguments, messages):
    workdir.configure(dataset=str(demo_v3))
    done = workdir.run("--config", *arguments, check=False)
    assert done.returncode != 0
    for message in messages:
        assert message in done.output
    assert "Traceback" not in done.output
    assert not (workdir.path / "results").exists()
    assert not (workdir.path / ".cuesheet").exists()


def test_a_dry_run_prints_an_estimate_makes_nothing_and_starts_no_server(workdir, demo_v3):
    workdir.configure(dataset=str(demo_v3))
    assert "demo_v3: estimated " in workdir.run("--dry-run", "--quiet", "all").output
    assert not (workdir.path / "results").exists()
    assert not (workdir.path / ".cuesheet").exists()


def test_a_truncated_video_names_its_file_and_leaves_no_half_output(workdir, demo_v3, tmp_path):
    source = copy(demo_v3, tmp_path / "broken")
    broken = truncate_video(source, "observation.images.front")
    workdir.configure(dataset=str(source), episodes=[3])
    done = workdir.run(check=False)
    assert done.returncode != 0
    assert str(source) in done.output
    assert str(broken.relative_to(source)) in done.output
    assert "episode 3" in done.output
    results = workdir.path / "results/broken"
    assert not (results / "annotated").exists()
    assert not list(results.rglob("*.partial"))


def test_an_unknown_variable_in_a_prompt_is_rejected_in_a_dry_run(workdir, demo_v3, tmp_path):
    prompts = tmp_path / "prompts"
    shutil.copytree(REPOSITORY / "config" / "prompts", prompts)
    file = prompts / "plan_segment.md"
    file.write_text(file.read_text() + "\n{{ taks }}\n")
    workdir.configure(dataset=str(demo_v3), prompts_dir=str(prompts))
    done = workdir.run("-n", check=False)
    assert done.returncode != 0
    assert f"prompt file {file}: the variable taks is unknown; did you mean task?" in done.output


def test_without_a_camera_nothing_is_invented(workdir, demo_v3, tmp_path):
    source = copy(demo_v3, tmp_path / "blind")
    remove_cameras(source)
    workdir.configure(dataset=str(source), episodes=[0])
    workdir.run()
    plan = workdir.json("results/blind/plan/000000.json")
    assert plan["subtasks"] == []
    assert {row["style"] for row in plan["persistent"]} == {"task_aug"}
    assert any("no camera" in warning for warning in plan["warnings"])
    assert workdir.json("results/blind/vqa/000000.json")["events"] == []
    events = workdir.json("results/blind/interjections/000000.json")["events"]
    assert [event["style"] for event in events] == [None]
    text = (workdir.path / "results/blind/summary.txt").read_text()
    assert "no camera" in text


def reply(content: str) -> tuple[int, bytes]:
    message = {"role": "assistant", "content": content}
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "cuesheet-demo-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    return 200, json.dumps(body).encode()


@pytest.fixture
def external(workdir, counting_server, demo_v3):
    def configure(**values):
        workdir.configure(
            dataset=str(demo_v3),
            **values,
            vlm={
                **counting_server.vlm,
                "max_attempts": 2,
            },
        )

    workdir.configure_external = configure
    return workdir


def test_garbage_for_one_episode_fails_that_episode_alone(external, counting_server):
    def garbage(request):
        spoiled = request["response_format"]["json_schema"]["name"] == "Segmentation"
        return reply("the robot dances") if spoiled and "drawer" in str(request) else None

    counting_server.answer_instead = garbage
    off = {"enabled": False}
    settings = {"episodes": [0, 1], "vqa": off, "interjections": off}
    external.configure_external(**settings)
    done = external.run(check=False)
    assert done.returncode != 0
    assert "demo_v3/000001" in done.output
    assert "no usable segmentation" in done.output
    results = external.path / "results/demo_v3"
    assert [path.stem for path in (results / "plan").iterdir()] == ["000000"]
    assert len(list((results / "validation").glob("*.json"))) == 1
    assert not (results / "annotated/data").exists()

    external.configure_external(**settings, output={"on_missing": "leave_unannotated"})
    external.run()
    summary = external.json("results/demo_v3/summary.json")
    assert summary["episodes"]["annotated"] == 1
    assert summary["episodes"]["left_out"] == [1]

    # A stage that failed is requested again once the server is repaired.
    counting_server.answer_instead = lambda request: None
    external.configure_external(**settings)
    asked = len(counting_server.asked)
    external.run("annotations")
    assert len(counting_server.asked) > asked
    assert {path.stem for path in (results / "plan").iterdir()} == {"000000", "000001"}


def test_one_reply_that_cannot_be_used_is_corrected(external, counting_server):
    spoiled = []

    def once(request):
        name = request["response_format"]["json_schema"]["name"]
        if name == "Segmentation" and not spoiled:
            spoiled.append(name)
            return reply('<think>hm</think> ```json\n{"subtasks": "none"}\n```')
        return None

    counting_server.answer_instead = once
    external.configure_external(episodes=[1])
    external.run("results/demo_v3/plan/000001.json")
    calls = external.json("results/demo_v3/plan/000001.json")["provenance"]["calls"]
    outcomes = {call["name"].split()[0]: call["outcome"] for call in calls}
    assert outcomes["segment"] == "retried"


def test_an_invalid_vqa_reply_only_costs_its_pair(external, counting_server):
    def garbage(request):
        name = request["response_format"]["json_schema"]["name"]
        return reply("no") if name == "CountQA" else None

    counting_server.answer_instead = garbage
    off = {"enabled": False}
    external.configure_external(episodes=[0], vqa={"max_invalid": 1}, plan=off, interjections=off)
    external.run("annotations")
    data = external.json("results/demo_v3/vqa/000000.json")
    invalid = [c for c in data["provenance"]["calls"] if c["outcome"] == "invalid"]
    assert invalid
    assert len(data["pairs"]) == len(data["provenance"]["calls"]) - len(invalid)
    assert "count" not in {pair["type"] for pair in data["pairs"]}
    assert len(data["warnings"]) == len(invalid)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("results/demo_v3/plan/000099.json", "no episode 99"),
        ("results/demo_v3/clips/front/episode_000000.mp4", "observation.images.front"),
    ],
)
def test_a_wrong_target_names_the_nearest(workdir, demo_v3, target, message):
    workdir.configure(dataset=str(demo_v3))
    done = workdir.run("-n", target, check=False)
    assert done.returncode != 0
    assert message in done.output
    assert "KeyError" not in done.output
