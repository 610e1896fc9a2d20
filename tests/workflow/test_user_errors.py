"""User errors and broken input lead to one clear, early message, and nothing is lost."""

import json
import os
import shutil

import pytest
from dataset_variants import copy, edit_info, remove_cameras, truncate_video
from workflow_runs import REPOSITORY

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["datset=/nowhere"], "did you mean dataset?"),
        (["dataset=/nowhere"], "/nowhere"),
        (["cameras=[observation.images.top]"], "cameras: the dataset has no camera"),
        (["default_camera=observation.images.frnt"], "did you mean observation.images.front?"),
        (["plan={max_subtask: 4}"], "did you mean max_subtasks?"),
        (["vlm={serve: external}"], "base_urls"),
        (["prompts_dir=/no/prompts"], "/no/prompts"),
    ],
)
def test_a_wrong_setting_is_said_before_anything_starts(workdir, demo_v3, arguments, message):
    workdir.configure(dataset=str(demo_v3))
    done = workdir.run("--config", *arguments, check=False)
    assert done.returncode != 0
    assert message in done.output
    assert "Traceback" not in done.output
    assert not (workdir.path / "results").exists()
    assert not (workdir.path / ".cuesheet").exists()


def test_a_dry_run_makes_nothing_and_starts_no_server(workdir, demo_v3):
    workdir.configure(dataset=str(demo_v3))
    done = workdir.run("-n")
    assert done.jobs["annotate_plan"] == 4
    assert not (workdir.path / "results").exists()
    assert not (workdir.path / ".cuesheet").exists()


def test_a_truncated_video_names_its_file_and_leaves_no_half_output(workdir, demo_v3, tmp_path):
    source = copy(demo_v3, tmp_path / "broken")
    broken = truncate_video(source, "observation.images.front")
    workdir.configure(dataset=str(source))
    done = workdir.run(check=False)
    assert done.returncode != 0
    assert str(source) in done.output
    assert str(broken.relative_to(source)) in done.output
    assert "episode 3" in done.output
    results = workdir.path / "results/broken"
    assert not (results / "annotated").exists()
    assert not list(results.rglob("*.partial"))


def test_a_dataset_of_an_old_version_is_rejected_in_a_dry_run(workdir, demo_v3, tmp_path):
    source = copy(demo_v3, tmp_path / "old")
    edit_info(source, codebase_version="v1.6")
    workdir.configure(dataset=str(source))
    done = workdir.run("-n", check=False)
    assert done.returncode != 0
    assert "v1.6" in done.output


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
    workdir.configure(dataset=str(source))
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
    external.configure_external(episodes=[0, 1, 2], vqa={"enabled": False})
    done = external.run(check=False)
    assert done.returncode != 0
    assert "demo_v3/000001" in done.output
    assert "no usable segmentation" in done.output
    results = external.path / "results/demo_v3"
    assert {path.stem for path in (results / "plan").iterdir()} == {"000000", "000002"}
    assert len(list((results / "validation").glob("*.json"))) == 2
    assert not (results / "annotated/data").exists()

    external.configure_external(
        episodes=[0, 1, 2], vqa={"enabled": False}, output={"on_missing": "leave_unannotated"}
    )
    external.run()
    summary = external.json("results/demo_v3/summary.json")
    assert summary["episodes"]["annotated"] == 2
    assert summary["episodes"]["left_out"] == [1]

    # A stage that failed is requested again once the server is repaired.
    counting_server.answer_instead = lambda request: None
    external.configure_external(episodes=[0, 1, 2], vqa={"enabled": False})
    asked = len(counting_server.asked)
    external.run()
    assert len(counting_server.asked) > asked
    assert external.json("results/demo_v3/summary.json")["episodes"]["annotated"] == 3


def test_one_reply_that_cannot_be_used_is_corrected(external, counting_server):
    spoiled = []

    def once(request):
        name = request["response_format"]["json_schema"]["name"]
        if name == "Segmentation" and not spoiled:
            spoiled.append(name)
            return reply('<think>hm</think> ```json\n{"subtasks": "none"}\n```')
        return None

    counting_server.answer_instead = once
    external.configure_external(episodes=[1], vqa={"enabled": False})
    external.run("annotations")
    calls = external.json("results/demo_v3/plan/000001.json")["provenance"]["calls"]
    outcomes = {call["name"].split()[0]: call["outcome"] for call in calls}
    assert outcomes["segment"] == "retried"


def test_an_invalid_vqa_reply_only_costs_its_pair(external, counting_server):
    def garbage(request):
        name = request["response_format"]["json_schema"]["name"]
        return reply("no") if name == "CountQA" else None

    counting_server.answer_instead = garbage
    external.configure_external(episodes=[0], vqa={"max_invalid": 1})
    external.run("annotations")
    data = external.json("results/demo_v3/vqa/000000.json")
    invalid = [c for c in data["provenance"]["calls"] if c["outcome"] == "invalid"]
    assert invalid
    assert len(data["pairs"]) == len(data["provenance"]["calls"]) - len(invalid)
    assert "count" not in {pair["type"] for pair in data["pairs"]}
    assert len(data["warnings"]) == len(invalid)


def test_an_outage_marks_no_episode_as_bad(external, counting_server):
    counting_server.answer_instead = lambda request: (503, b'{"error": {"message": "away"}}')
    external.configure_external(episodes=[0, 1], vqa={"enabled": False})
    done = external.run(check=False)
    assert done.returncode != 0
    assert "away" in done.output
    counting_server.answer_instead = lambda request: None
    external.configure_external(
        episodes=[0, 1], vqa={"enabled": False}, output={"on_missing": "leave_unannotated"}
    )
    external.run()
    summary = external.json("results/demo_v3/summary.json")
    assert summary["episodes"]["annotated"] == 2
    assert summary["episodes"]["left_out"] == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("results/demo_v2/plan/000003.json", "did you mean demo_v3?"),
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


def test_the_log_of_a_failed_job_ends_with_the_cause(external, counting_server):
    counting_server.answer_instead = lambda request: (401, b'{"error": {"message": "bad key"}}')
    external.configure_external(episodes=[1], vqa={"enabled": False})
    done = external.run(check=False)
    assert done.returncode != 0
    log = external.path / "results/demo_v3/logs/annotate_plan/000001.log"
    last = log.read_text().strip().splitlines()[-1]
    assert last.startswith("ERROR: ")
    assert "bad key" in last
    assert f"annotate_plan failed: {last.removeprefix('ERROR: ')}" in done.output


def test_progress_is_said_while_a_run_goes(external, monkeypatch):
    monkeypatch.setattr(external, "environment", lambda: {**os.environ, "CUESHEET_PROGRESS": "0.2"})
    external.configure_external(episodes=[0, 1])
    output = external.run("--quiet", "all").output
    lines = [line for line in output.splitlines() if line.startswith("cuesheet: episodes")]
    assert len(lines) > 2
    stages = "keyframes 2/2 plan 2/2 interjections 2/2 vqa 2/2"
    assert lines[-1].startswith(f"cuesheet: episodes 2/2 | {stages}")
    assert "calls/s" in lines[-1]
    assert "tokens" in lines[-1]
