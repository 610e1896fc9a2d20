"""Labels of the dataset instead of the model's, and the annotations as a table."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.workflow

DATA = "data/chunk-000/file-000.parquet"


@pytest.fixture
def labeled(demo_v3, tmp_path):
    """The demo whose episodes 0 and 1 have labels: "reach" up to frame 20, then "act"."""
    root = shutil.copytree(demo_v3, tmp_path / "labeled")
    table = pq.read_table(root / DATA)
    frames = zip(table["episode_index"].to_pylist(), table["frame_index"].to_pylist(), strict=True)
    numbers = [-1 if episode > 1 else int(frame >= 20) for episode, frame in frames]
    pq.write_table(table.append_column("subtask_index", pa.array(numbers)), root / DATA)
    names = pa.table({"subtask_index": [0, 1], "subtask": ["reach", "act"]})
    pq.write_table(names, root / "meta/subtasks.parquet")
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["subtask_index"] = {"dtype": "int64", "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def test_labels_of_the_dataset_are_used_and_the_export_tells_all(workdir, counting_server, labeled):
    vlm = counting_server.vlm
    workdir.configure(
        dataset=str(labeled), vlm=vlm, episodes=[0, 2], plan={"subtasks_from": "dataset"}
    )
    workdir.run("all", "exports")
    # Episode 2 has no label and is asked about.
    assert counting_server.kinds().count("Segmentation") == 1
    plan = workdir.json("results/labeled/plan/000000.json")
    assert plan["subtasks_from"] == "dataset"
    assert [(s["start_s"], s["label"]) for s in plan["subtasks"]] == [(0.0, "reach"), (2.0, "act")]
    unlabeled = workdir.json("results/labeled/plan/000002.json")
    assert unlabeled["subtasks_from"] == "model"
    assert "the model is asked instead" in unlabeled["warnings"][0]

    annotated = pq.read_table(workdir.path / "results/labeled/annotated" / DATA)
    assert "subtask_index" not in annotated.column_names
    frames = annotated.to_pylist()
    expected = sum(len(frame["language_events"]) for frame in frames)
    expected += sum(
        len(frame["language_persistent"]) for frame in frames if frame["frame_index"] == 0
    )
    table = pq.read_table(workdir.path / "results/labeled/annotations.parquet")
    names = "episode_index frame_index style role start_s end_s camera text json"
    assert table.column_names == names.split()
    rows = table.to_pylist()
    lines = (workdir.path / "results/labeled/annotations.jsonl").read_text().splitlines()
    assert len(rows) == len(lines) == expected
    for row, line in zip(rows, lines, strict=True):
        value = json.loads(line)
        assert {**row, "json": row["json"] and json.loads(row["json"])} == value
    of_first = [row for row in rows if row["episode_index"] == 0]
    length_s = len([f for f in frames if f["episode_index"] == 0]) / 10
    subtasks = [(r["start_s"], r["end_s"], r["text"]) for r in of_first if r["style"] == "subtask"]
    assert subtasks == [(0.0, 2.0, "reach"), (2.0, length_s, "act")]
    assert {r["end_s"] for r in of_first if r["style"] == "task_aug"} == {length_s}
    speech = [r for r in of_first if r["style"] == "speech"]
    assert speech[0]["text"] == json.loads(speech[0]["json"])[0]["function"]["arguments"]["text"]
    answers = [r for r in rows if r["style"] == "vqa" and r["role"] == "assistant"]
    assert answers
    assert all(json.loads(r["json"]) and r["camera"] and r["end_s"] > r["start_s"] for r in answers)


def test_a_column_that_is_not_there_ends_the_run_before_it_starts(workdir, demo_v3):
    workdir.configure(dataset=str(demo_v3), plan={"subtasks_from": "dataset"})
    done = workdir.run(check=False)
    assert done.returncode != 0
    assert "config: plan.subtask_column: demo_v3 has no column subtask_index" in done.output
