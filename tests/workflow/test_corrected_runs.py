"""Corrections by people, from the file to the dataset, and the requests that they cause."""

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from workflow_runs import estimate_of

pytestmark = pytest.mark.workflow

RESULTS = "results/demo_v3"
DATA = f"{RESULTS}/annotated/data/chunk-000/file-000.parquet"
FRONT = "observation.images.front"


@pytest.fixture
def corrected(two_episodes, tmp_path, counting_server, demo_v3):
    """Two episodes of the demo, annotated, and a way to correct episode 1."""
    workdir = two_episodes.copy_to(tmp_path / "work")
    settings = {"dataset": str(demo_v3), "episodes": [0, 1], "prompts_dir": "prompts"}
    workdir.configure(**settings, vlm=counting_server.vlm)

    def correct(**values):
        folder = workdir.path / "corrections/demo_v3"
        folder.mkdir(parents=True, exist_ok=True)
        value = {"format": 1, "dataset": "demo_v3", "episode_index": 1, **values}
        (folder / "000001.json").write_text(json.dumps(value))

    workdir.correct = correct
    return workdir


def rows(work, episode_index):
    table = pq.read_table(work.path / DATA)
    frames = [f for f in table.to_pylist() if f["episode_index"] == episode_index]
    return frames[0]["language_persistent"], [e for f in frames for e in f["language_events"]]


def export(work, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "cuesheet.app.cli", "corrections", "export", RESULTS, *arguments],
        cwd=work.path,
        env={**os.environ, "PATH": ""},
        capture_output=True,
        text=True,
    )


def test_corrected_subtasks_are_followed_by_all_that_depends_on_them_and_can_be_withdrawn(
    corrected, counting_server
):
    other_before, before = rows(corrected, 0), rows(corrected, 1)
    corrected.correct(
        subtasks=[
            {"start_s": 0, "end_s": 1.2, "label": "move to the handle"},
            {"start_s": 1.2, "end_s": 2.8, "label": "hook the handle"},
            {"start_s": 2.8, "end_s": 4.6, "label": "pull the drawer open"},
        ]
    )
    estimate = estimate_of(corrected)
    done = corrected.run()
    assert {name: done.jobs.get(name) for name in ("annotate_plan", "annotate_vqa")} == {
        "annotate_plan": 1,
        "annotate_vqa": 1,
    }
    # Only what has other words now: two memories, one interjection (later than 2 s), and the visual
    # questions, which are about the objects of the subtasks.
    kinds = [kind for kind in counting_server.kinds() if not kind.endswith("QA")]
    assert sorted(kinds) == ["Interjection", "Memory", "Memory"]
    # The estimate counts the corrected episode again, without what is cached.
    assert estimate.episodes == 1
    expected = {name: amount.requests for name, amount in estimate.prompts.items()}
    assert (expected["plan_memory"], expected["interjections_interject"]) == (2, 1)
    assert expected["interjections_acknowledge"] == expected["plan_rephrase"] == 0
    asked = sum(kind.endswith("QA") for kind in counting_server.kinds())
    assert 0 < asked <= estimate.stages["vqa"].high.requests
    assert estimate_of(corrected).total.high.requests == 0
    assert "Ask about: handle" in str(counting_server.asked)
    persistent, events = rows(corrected, 1)
    by_style = {s: [r for r in persistent if r["style"] == s] for s in ("subtask", "plan")}
    assert [(r["timestamp"], r["content"]) for r in by_style["subtask"]] == [
        (0.0, "move to the handle"),
        (pytest.approx(1.2), "hook the handle"),
        (pytest.approx(2.8), "pull the drawer open"),
    ]
    assert by_style["plan"][1]["content"] == "1. hook the handle\n2. pull the drawer open"
    assert "pull the drawer open" in str([e for e in events if e["style"] == "interjection"])
    assert rows(corrected, 0) == other_before
    plan = corrected.json(f"{RESULTS}/plan/000001.json")
    assert plan["subtasks_from"] == "correction"
    assert corrected.json(f"{RESULTS}/summary.json")["people"]["corrected"] == [1]
    assert "Nothing to be done" in corrected.run("--dry-run").output

    counting_server.asked.clear()
    (corrected.path / "corrections/demo_v3/000001.json").unlink()
    assert estimate_of(corrected).episodes == 1
    corrected.run("datasets")
    assert counting_server.asked == []
    assert rows(corrected, 1) == before


def test_an_export_that_nobody_edits_changes_no_row_and_asks_nothing(corrected, counting_server):
    before = [rows(corrected, episode) for episode in (0, 1)]
    assert "2 files written" in export(corrected).stdout
    assert corrected.run().jobs["build_review"] == 1  # it shows these corrections as applied
    assert counting_server.asked == []
    assert [rows(corrected, episode) for episode in (0, 1)] == before
    assert "2 existing files" in export(corrected).stdout
    assert "1 file written" in export(corrected, "--csv", "--to", "t", "--episodes", "1").stdout
    lines = (corrected.path / "t/000001.csv").read_text().splitlines()
    assert lines[0] == "start,end,text"
    assert len(lines) == 1 + len(corrected.json(f"{RESULTS}/plan/000001.json")["subtasks"])


def test_an_export_keeps_the_rest_of_a_file(corrected):
    corrected.correct(verdict="good", note="fine")
    export(corrected, "--episodes", "1", "--overwrite")
    value = corrected.json("corrections/demo_v3/000001.json")
    assert (value["verdict"], value["note"]) == ("good", "fine")
    assert value["subtasks"]
    refused = export(corrected, "--csv", "--overwrite")
    assert refused.returncode == 1
    assert "which a CSV file cannot hold" in refused.stderr


def test_vqa_is_corrected_without_a_call(corrected, counting_server):
    plan_before = corrected.json(f"{RESULTS}/plan/000001.json")
    first, second, *_ = [
        p for p in corrected.json(f"{RESULTS}/vqa/000001.json")["pairs"] if p["camera"] == FRONT
    ]
    names = ("frame_index", "camera", "type")
    corrected.correct(
        vqa=[
            {**{name: first[name] for name in names}, "delete": True},
            {
                **{name: second[name] for name in names[:2]},
                "type": "bbox",
                "question": "Where is the handle?",
                "answer": {
                    "detections": [{"label": "handle", "bbox_format": "xyxy", "bbox": [1, 2, 9, 8]}]
                },
            },
        ]
    )
    done = corrected.run("datasets")
    assert counting_server.asked == []
    assert "annotate_plan" not in done.jobs
    assert corrected.json(f"{RESULTS}/plan/000001.json") == plan_before
    _, events = rows(corrected, 1)
    questions = [e["content"] for e in events if e["style"] == "vqa" and e["role"] == "user"]
    assert "Where is the handle?" in questions
    vqa = corrected.json(f"{RESULTS}/vqa/000001.json")
    assert [entry["action"] for entry in vqa["corrected"]] == ["deleted", "replaced"]
    assert (first["frame_index"], FRONT) not in {
        (p["frame_index"], p["camera"]) for p in vqa["pairs"]
    }


def test_a_box_outside_the_frame_is_refused_by_validation(corrected):
    pair = corrected.json(f"{RESULTS}/vqa/000001.json")["pairs"][0]
    box = {"label": "x", "bbox_format": "xyxy", "bbox": [1, 2, 900, 8]}
    corrected.correct(
        vqa=[
            {
                "frame_index": pair["frame_index"],
                "camera": pair["camera"],
                "type": "bbox",
                "question": "Where?",
                "answer": {"detections": [box]},
            }
        ]
    )
    done = corrected.run("datasets", check=False)
    assert done.returncode != 0
    assert "vqa_box_outside" in done.output


def test_a_bad_episode_has_no_rows_and_is_named(corrected, counting_server):
    before = rows(corrected, 1)
    corrected.correct(verdict="bad")
    done = corrected.run()
    assert set(done.jobs) == {
        *("validate_episode", "merge_language", "finalize_dataset"),
        *("summarize_dataset", "write_report", "build_review"),
    }
    assert rows(corrected, 1) == ([], [])
    assert rows(corrected, 0)[0]
    assert "bad 1 (1)" in (corrected.path / RESULTS / "summary.txt").read_text()
    corrected.correct(verdict="good")
    corrected.run("datasets")
    assert rows(corrected, 1) == before
    assert counting_server.asked == []


def test_a_wrong_file_ends_the_run_before_anything_starts(corrected):
    corrected.correct(subtasks=[{"start_s": 1.0, "label": "late"}])
    done = corrected.run(check=False)
    assert done.returncode != 0
    assert "000001.json: subtasks.0 starts at 1 s; expected 0" in done.output
    assert done.jobs == {}


def test_corrected_texts_replace_those_of_the_model(corrected, counting_server):
    """Rephrasings, interjections (one in the middle of a subtask) and memory, without a request."""
    before, _ = rows(corrected, 1)
    corrected.correct(
        rephrasings=["Pull out the drawer", "Get the drawer open"],
        interjections=[
            {"time_s": 0.0, "speech": "On it."},
            {"time_s": 3.22, "interjection": "Slower, please.", "speech": "Slowing down."},
        ],
    )
    done = corrected.run()
    assert (done.jobs["annotate_plan"], done.jobs["annotate_interjections"]) == (1, 1)
    assert counting_server.kinds() == []
    persistent, _ = rows(corrected, 1)
    task = corrected.json(f"{RESULTS}/plan/000001.json")["task"]["text"]
    assert [row["content"] for row in persistent if row["style"] == "task_aug"] == [
        *(task, "Pull out the drawer", "Get the drawer open")
    ]
    frames = pq.read_table(corrected.path / DATA).to_pylist()
    said = [
        (round(frame["timestamp"], 3), row["style"], row["content"] or spoken(row))
        for frame in frames
        if frame["episode_index"] == 1
        for row in frame["language_events"]
        if row["style"] != "vqa"
    ]
    assert sorted(said, key=lambda row: (row[0], row[2])) == [
        (0.0, None, "On it."),
        (3.2, "interjection", "Slower, please."),
        (3.2, None, "Slowing down."),
    ]
    # The interjection has a plan: the subtask that it interrupts, and what follows.
    plans = {round(r["timestamp"], 3): r["content"] for r in persistent if r["style"] == "plan"}
    subtasks = corrected.json(f"{RESULTS}/plan/000001.json")["subtasks"]
    left = [part["label"] for part in subtasks if part["end_s"] > 3.2]
    assert plans[3.2] == "\n".join(f"{i}. {label}" for i, label in enumerate(left, start=1))
    others = {"subtask", "memory"}
    assert [r for r in persistent if r["style"] in others] == [
        r for r in before if r["style"] in others
    ]
    assert corrected.json(f"{RESULTS}/summary.json")["people"]["corrected"] == [1]


def test_a_corrected_memory_is_the_one_that_later_memories_follow_from(corrected, counting_server):
    corrected.correct(
        subtasks=[
            {"start_s": 0, "label": "move to the handle"},
            {"start_s": 1.2, "label": "hook the handle", "memory": "I am at the handle."},
            {"start_s": 2.0, "label": "wait", "memory": ""},
            {"start_s": 2.8, "end_s": 4.6, "label": "pull the drawer open"},
        ]
    )
    corrected.run("datasets")
    persistent, _ = rows(corrected, 1)
    memories = {
        round(row["timestamp"], 3): row["content"] for row in persistent if row["style"] == "memory"
    }
    assert sorted(memories) == [1.2, 2.8]
    assert memories[1.2] == "I am at the handle."
    asked = [body for body in counting_server.asked if "Memory" in json.dumps(body)]
    assert counting_server.kinds().count("Memory") == 1
    assert any("I am at the handle." in json.dumps(body) for body in asked)


def spoken(row):
    (call,) = row["tool_calls"]
    return call["function"]["arguments"]["text"]
