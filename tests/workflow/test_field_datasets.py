"""Datasets as people have them, through the whole workflow."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_variants import DATA, EPISODES, copy

pytestmark = pytest.mark.workflow

FRONT, WRIST = "observation.images.front", "observation.images.wrist"


def test_an_episode_without_the_default_camera_uses_the_others(workdir, demo_v3, tmp_path):
    source = copy(demo_v3, tmp_path / "partial")
    table = pq.read_table(source / EPISODES)
    for name in [n for n in table.column_names if n.startswith(f"videos/{FRONT}/")]:
        values = table[name].to_pylist()
        values[1] = None
        column = pa.array(values, table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, source / EPISODES)
    workdir.configure(dataset=str(source), episodes=[0, 1])
    workdir.run("annotations", "media")
    for episode, cameras in (("000000", [FRONT, WRIST]), ("000001", [WRIST])):
        described = workdir.json(f"results/partial/keyframes/{episode}/keyframes.json")
        assert list(described["cameras"]) == cameras
        pairs = workdir.json(f"results/partial/vqa/{episode}.json")["pairs"]
        assert {pair["camera"] for pair in pairs} == set(cameras)
        assert workdir.json(f"results/partial/plan/{episode}.json")["subtasks"]
    clips = workdir.path / "results/partial/clips"
    assert not (clips / FRONT / "episode_000001.mp4").exists()
    assert (clips / WRIST / "episode_000001.mp4").exists()


def test_a_dataset_that_moved_keeps_its_media_and_annotations(workdir, demo_v3, tmp_path):
    source = copy(demo_v3, tmp_path / "before" / "robot")
    workdir.configure(dataset=str(source), episodes=[1])
    workdir.run("annotations", "media")
    (tmp_path / "after").mkdir()
    moved = shutil.move(source, tmp_path / "after" / "robot")
    workdir.configure(dataset=str(moved), episodes=[1])
    jobs = workdir.run("datasets", "media").jobs
    assert not {"extract_clip", "decode_keyframes", "annotate_plan", "annotate_vqa"} & set(jobs)
    annotated = pq.read_table(workdir.path / "results/robot/annotated" / DATA)
    assert any(annotated["language_persistent"].to_pylist())
