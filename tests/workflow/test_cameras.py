"""Cameras of every kind through the whole workflow."""

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from dataset_variants import DATA, add_depth_images, copy, set_rate, store_images
from PIL import Image
from workflow_runs import contents

pytestmark = pytest.mark.workflow

FRONT, WRIST, DEPTH = "observation.images.front", "observation.images.wrist", "observation.depth"


def test_an_image_camera_is_annotated_a_depth_camera_is_left_out_and_the_source_is_not_changed(
    workdir, demo_v3, tmp_path, capsys
):
    source = copy(demo_v3, tmp_path / "images")
    store_images(source, WRIST)
    add_depth_images(source, DEPTH)
    unchanged = contents(source)
    workdir.configure(dataset=str(source), episodes=[1], default_camera=WRIST)
    workdir.run()
    assert contents(source) == unchanged
    results = workdir.path / "results/images"
    described = workdir.json("results/images/keyframes/000001/keyframes.json")
    assert list(described["cameras"]) == [FRONT, WRIST]
    with av.open(str(demo_v3 / f"videos/{WRIST}/chunk-000/file-000.mp4")) as container:
        truth = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    data = pq.read_table(source / DATA, columns=["episode_index"])
    first = data["episode_index"].to_pylist().index(1)
    for entry in described["keyframes"][WRIST]:
        with Image.open(results / "keyframes/000001" / entry["file"]) as image:
            assert np.array_equal(np.asarray(image), truth[first + entry["frame_index"]])
    with capsys.disabled():
        count = len(described["keyframes"][WRIST])
        print(f"\nimage camera, demo_v3, 1 episode: {count} frames compared, 0 differ")
    with av.open(str(results / f"clips/{WRIST}/episode_000001.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == described["length"]
    asked = {pair["camera"] for pair in workdir.json("results/images/vqa/000001.json")["pairs"]}
    assert asked == {FRONT, WRIST}
    assert workdir.json("results/images/plan/000001.json")["subtasks"]

    annotated = pq.read_table(results / "annotated" / DATA)
    before = pq.read_table(source / DATA)
    assert annotated.column_names == [
        *before.column_names, "language_persistent", "language_events"
    ]  # fmt: skip
    for camera in (WRIST, DEPTH):
        assert annotated[camera].to_pylist() == before[camera].to_pylist()
    assert f"{DEPTH} records depth" in (results / "summary.txt").read_text()


def test_a_dataset_at_25_frames_a_second_is_annotated(workdir, demo_v3, tmp_path):
    source = copy(demo_v3, tmp_path / "rate25")
    set_rate(source, 25)
    workdir.configure(dataset=str(source), episodes=[0, 1], interjections={"enabled": False})
    workdir.run("annotations")
    for episode in ("000000", "000001"):
        described = workdir.json(f"results/rate25/keyframes/{episode}/keyframes.json")
        assert 12 in described["grid"]  # 0.48 s and 0.52 s are equally near to 0.5 s
        assert workdir.json(f"results/rate25/validation/{episode}.json")["errors"] == []
    assert not (workdir.path / "results/rate25/failed").exists()
