"""Datasets that have annotations already, and sources that change between runs."""

import pyarrow.parquet as pq
import pytest
from dataset_variants import copy, keep_episodes, set_task

pytestmark = pytest.mark.workflow

DATA = "data/chunk-000/file-000.parquet"
FRONT, WRIST = "observation.images.front", "observation.images.wrist"


@pytest.fixture
def external(workdir, counting_server):
    vlm = counting_server.vlm
    workdir.set = lambda **values: workdir.configure(**{"vlm": vlm, "seed": 0, **values})
    return workdir


def rows_of(path, episode):
    table = pq.read_table(path, columns=["episode_index", "language_persistent", "language_events"])
    return [row for row in table.to_pylist() if row["episode_index"] == episode]


def styles_of(path, episode):
    frames = rows_of(path, episode)
    events = {row["style"] for frame in frames for row in frame["language_events"]}
    return {row["style"] for row in frames[0]["language_persistent"]} | events


def test_annotating_what_cuesheet_annotated_before(external, counting_server, demo_v3):
    first = external.path / "results/demo_v3/annotated"
    external.set(dataset=str(demo_v3), episodes=[0, 1], interjections={"enabled": False})
    external.run("datasets")
    before = {episode: rows_of(first / DATA, episode) for episode in (0, 1)}
    counting_server.asked.clear()

    source = copy(first, external.path.parent / "source")
    external.set(dataset=str(source), existing="keep", vqa={"enabled": False})
    done = external.run()
    assert done.jobs["annotate_plan"] == 2
    kept = external.path / "results/source/annotated" / DATA
    assert {episode: rows_of(kept, episode) for episode in (0, 1)} == before
    assert "subtask" in styles_of(kept, 2)
    summary = external.json("results/source/summary.json")
    assert summary["episodes"] == {
        "total": 4, "annotated": 2, "left_out": [], "kept": [0, 1], "not_selected": 0
    }  # fmt: skip

    off = {"enabled": False}
    counts_alone = {"plan": off, "interjections": off, "vqa": {"types": ["count"]}}
    external.set(dataset=str(source), existing="merge", episodes=[0], **counts_alone)
    external.run("datasets")
    merged = rows_of(kept, 0)
    assert [f["language_persistent"] for f in merged] == [
        f["language_persistent"] for f in before[0]
    ]
    answers = [r["content"] for f in merged for r in f["language_events"] if r["role"] != "user"]
    assert answers
    assert all('"count"' in answer for answer in answers)

    external.set(dataset=str(source), existing="replace", episodes=[0], **counts_alone)
    external.run("datasets")
    assert styles_of(kept, 0) == {"vqa"}


def test_a_source_that_lost_and_replaced_episodes_says_so(
    external, counting_server, demo_v3, tmp_path
):
    source = copy(demo_v3, tmp_path / "shrinks")
    external.set(dataset=str(source), vqa={"enabled": False}, cameras=[WRIST])
    external.run()
    results = external.path / "results/shrinks"
    assert [clips.name for clips in (results / "clips").iterdir()] == [WRIST]
    assert sorted(p.name for p in (results / "annotated/videos").iterdir()) == [FRONT, WRIST]
    path = results / "annotated" / DATA
    before = rows_of(path, 0)
    counting_server.asked.clear()
    keep_episodes(source, 2)
    set_task(source, 1, "Pull the drawer out all the way")
    done = external.run()
    assert "episodes: 2 removed (2-3), 1 recorded again (1)" in done.output
    assert done.jobs["annotate_plan"] == 1
    assert external.json("results/shrinks/plan/000001.json")["task"]["text"] == (
        "Pull the drawer out all the way"
    )
    assert "Pull the drawer out all the way" in str(counting_server.asked)
    assert "Open a drawer" not in str(counting_server.asked)
    assert set(pq.read_table(path)["episode_index"].to_pylist()) == {0, 1}
    assert rows_of(path, 0) == before
    report = (results / "report.html").read_text()
    assert "2 removed (2-3), 1 recorded again (1)" in report
    assert "2 of 2" in report
    assert len(list((results / "review/data/episodes").iterdir())) == 2
    text = (results / "summary.txt").read_text()
    assert "Source changed:    2 removed (2-3), 1 recorded again (1), found 20" in text
    assert "Episodes:          2 of 2 annotated" in text
    assert "Nothing to be done" in external.run("--dry-run").output
