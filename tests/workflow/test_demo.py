"""The demo from end to end, with the demo model."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from workflow_runs import contents

pytestmark = pytest.mark.workflow

CAMERAS = ("observation.images.front", "observation.images.wrist")


@pytest.fixture(scope="module")
def frames(finished_demo) -> list[dict]:
    """Every frame of the annotated dataset."""
    path = finished_demo.path / "results/demo_v3/annotated/data/chunk-000/file-000.parquet"
    return pq.read_table(path).to_pylist()


def test_every_column_of_the_source_is_there_unchanged(finished_demo, demo_v3):
    relative = "data/chunk-000/file-000.parquet"
    source = pq.read_table(demo_v3 / relative)
    annotated = pq.read_table(finished_demo.path / "results/demo_v3/annotated" / relative)
    assert annotated.column_names == [
        *source.column_names,
        "language_persistent",
        "language_events",
    ]
    assert annotated.select(source.column_names).equals(source)


def test_one_row_group_an_episode(finished_demo):
    path = finished_demo.path / "results/demo_v3/annotated/data/chunk-000/file-000.parquet"
    file = pq.ParquetFile(path)
    lengths = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert lengths == [75, 46, 76, 72]


def test_every_style_is_written(frames):
    persistent = {row["style"] for frame in frames for row in frame["language_persistent"]}
    events = {row["style"] for frame in frames for row in frame["language_events"]}
    assert persistent == {"subtask", "plan", "memory", "task_aug"}
    assert events == {"interjection", "vqa", None}


def test_at_every_frame_exactly_one_subtask_is_active(frames):
    for frame in frames:
        starts = [
            row["timestamp"] for row in frame["language_persistent"] if row["style"] == "subtask"
        ]
        assert len(set(starts)) == len(starts)
        assert min(starts) == 0.0
        assert [start for start in starts if start <= frame["timestamp"]]


def test_the_persistent_rows_are_the_same_on_every_frame_of_an_episode(frames):
    for episode in range(4):
        rows = [f["language_persistent"] for f in frames if f["episode_index"] == episode]
        assert rows.count(rows[0]) == len(rows)


def test_every_second_has_questions_about_both_cameras(frames):
    for frame in frames:
        asked = [row for row in frame["language_events"] if row["style"] == "vqa"]
        if frame["frame_index"] % 10:
            assert not asked
        else:
            questions = [row["camera"] for row in asked if row["role"] == "user"]
            assert sorted(questions) == sorted(CAMERAS)


def test_answers_are_json_with_sorted_keys_inside_the_frame(frames):
    for frame in frames:
        for row in frame["language_events"]:
            if row["style"] != "vqa" or row["role"] != "assistant":
                continue
            answer = json.loads(row["content"])
            assert list(answer) == sorted(answer)
            for detection in answer.get("detections", []):
                x0, y0, x1, y1 = detection["bbox"]
                assert 0 <= x0 < x1 <= 224
                assert 0 <= y0 < y1 <= 224


def test_the_robot_speaks_first_and_after_every_interjection(frames):
    for frame in frames:
        rows = frame["language_events"]
        speech = [row for row in rows if row["style"] is None]
        asked = [row for row in rows if row["style"] == "interjection"]
        assert len(speech) == (1 if asked or frame["frame_index"] == 0 else 0)
        for row in speech:
            assert row["tool_calls"][0]["function"]["arguments"]["text"]


def test_info_names_the_columns_and_the_tool_and_keeps_the_rest(finished_demo, demo_v3):
    source = json.loads((demo_v3 / "meta/info.json").read_text())
    info = finished_demo.json("results/demo_v3/annotated/meta/info.json")
    language = {"dtype": "language", "shape": [1], "names": None}
    for column in ("language_persistent", "language_events"):
        assert info["features"].pop(column) == language
    assert [tool["function"]["name"] for tool in info.pop("tools")] == ["say"]
    assert info == source


def test_the_annotated_dataset_has_every_file_of_the_source(finished_demo, demo_v3):
    annotated = finished_demo.path / "results/demo_v3/annotated"
    assert set(contents(demo_v3)) == set(contents(annotated))
    for path in (demo_v3 / "videos").rglob("*.mp4"):
        assert (annotated / path.relative_to(demo_v3)).read_bytes() == path.read_bytes()


def test_provenance_tells_how_every_answer_came_about(finished_demo):
    for stage in ("plan", "interjections", "vqa"):
        data = finished_demo.json(f"results/demo_v3/{stage}/000000.json")
        provenance = data["provenance"]
        assert provenance["model"] == "cuesheet-demo-1"
        assert provenance["served_by"] == "demo"
        assert provenance["calls"]
        assert {call["prompt"] for call in provenance["calls"]} <= set(provenance["prompts"])
        for call in provenance["calls"]:
            assert call["outcome"] == "ok"
            key = call["key"]
            assert (finished_demo.path / ".cache/vlm" / key[:2] / f"{key}.json").is_file()


def test_the_summary_adds_up_and_is_that_of_the_readme(finished_demo, frames, repository):
    summary = finished_demo.json("results/demo_v3/summary.json")
    pairs = sum(
        row["style"] == "vqa" and row["role"] == "user"
        for frame in frames
        for row in frame["language_events"]
    )
    assert summary["rows"]["vqa"] == 2 * pairs
    assert summary["episodes"]["annotated"] == 4
    text = (finished_demo.path / "results/demo_v3/summary.txt").read_text()
    assert "not a language model" in text
    (shown,) = re.findall(r"^  Rows: .+$", (repository / "README.md").read_text(), re.MULTILINE)
    assert shown in text


def test_a_second_run_has_nothing_to_do_and_starts_no_server(finished_demo, tmp_path):
    work = finished_demo.copy_to(tmp_path / "work")
    runs = sorted((work.path / ".cuesheet/runs").iterdir())
    assert "Nothing to be done" in work.run().output
    assert sorted((work.path / ".cuesheet/runs").iterdir()) == runs


def test_no_process_is_left_after_a_run(finished_demo):
    (run,) = (finished_demo.path / ".cuesheet/runs").iterdir()
    server = json.loads((run / "server.json").read_text())
    assert server["state"] == "stopped"
    assert not Path(f"/proc/{server['pid']}").exists()


def test_the_default_runs_write_no_key_anywhere_else(finished_demo):
    (run,) = (finished_demo.path / ".cuesheet/runs").iterdir()
    key = json.loads((run / "server.json").read_text()).get("api_key")
    assert key
    for path in finished_demo.path.rglob("*"):
        if path.is_file() and path.name != "server.json":
            assert key.encode() not in path.read_bytes()


def test_clips_have_every_frame_of_their_episode(finished_demo):
    import av

    for camera in CAMERAS:
        for episode, length in enumerate((75, 46, 76, 72)):
            path = finished_demo.path / f"results/demo_v3/clips/{camera}/episode_{episode:06d}.mp4"
            with av.open(str(path)) as clip:
                assert sum(1 for _ in clip.decode(video=0)) == length
