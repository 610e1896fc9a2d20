"""The larger dataset: several data and video files, twelve episodes, with ground truth."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from workflow_runs import Workdir

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def finished_dev(tmp_path_factory, dev_v3) -> Workdir:
    work = Workdir(tmp_path_factory.mktemp("dev") / "work")
    work.configure(dataset=str(dev_v3))
    work.run()
    return work


@pytest.fixture(scope="module")
def scores(finished_dev, ground_truth, tmp_path_factory) -> dict:
    """What the evaluation prints of the run, as JSON."""
    folder = tmp_path_factory.mktemp("scores")
    (folder / "truth.json").write_text(json.dumps(ground_truth("dev_v3")))
    subprocess.run(
        [
            *(sys.executable, "-m", "cuesheet.app.cli", "evaluate"),
            str(finished_dev.path / "results/dev_v3"),
            *("--reference", str(folder / "truth.json")),
            *("--baseline", "uniform", "--baseline", "motion"),
            *("--json", str(folder / "scores.json")),
        ],
        check=True,
    )
    return json.loads((folder / "scores.json").read_text())


def data_files(root: Path) -> list[Path]:
    return sorted((root / "data").rglob("*.parquet"))


def test_every_data_file_has_the_same_schema_and_the_rows_of_its_source(finished_dev, dev_v3):
    annotated = finished_dev.path / "results/dev_v3/annotated"
    sources, results = data_files(dev_v3), data_files(annotated)
    assert [p.relative_to(dev_v3) for p in sources] == [p.relative_to(annotated) for p in results]
    assert len({str(pq.read_schema(path).remove_metadata()) for path in results}) == 1
    for source, result in zip(sources, results, strict=True):
        before, after = pq.read_table(source), pq.read_table(result)
        assert after.select(before.column_names).equals(before)


def test_every_episode_is_annotated(finished_dev):
    subtasks: dict[int, set[str]] = {}
    for path in data_files(finished_dev.path / "results/dev_v3/annotated"):
        table = pq.read_table(path, columns=["episode_index", "language_persistent"])
        for frame in table.to_pylist():
            labels = {r["content"] for r in frame["language_persistent"] if r["style"] == "subtask"}
            subtasks.setdefault(frame["episode_index"], set()).update(labels)
    assert set(subtasks) == set(range(12))
    assert all(subtasks.values())


def test_validation_found_no_error_and_no_warning(finished_dev):
    for path in (finished_dev.path / "results/dev_v3/validation").glob("*.json"):
        report = json.loads(path.read_text())
        assert report["errors"] == []
        assert report["warnings"] == []


def test_clips_have_exactly_the_frames_of_their_episodes(finished_dev, ground_truth):
    import av

    lengths = {e["episode_index"]: e["n_frames"] for e in ground_truth("dev_v3")["episodes"]}
    clips = list((finished_dev.path / "results/dev_v3/clips").rglob("*.mp4"))
    assert len(clips) == 24
    for clip in clips:
        with av.open(str(clip)) as video:
            frames = sum(1 for _ in video.decode(video=0))
        assert frames == lengths[int(clip.stem.removeprefix("episode_"))]


def test_segments_of_the_demo_model_are_at_least_as_good_as_a_uniform_split(scores):
    demo, uniform, _ = scores["systems"]
    assert demo["segment"]["0.5"]["f1"] >= uniform["segment"]["0.5"]["f1"]


def test_boxes_of_the_demo_model_beat_a_centered_box(scores):
    (grounding,) = scores["grounding"]
    boxes = grounding["boxes"]["by_camera"]["all"]
    assert boxes["iou"] > 1.3 * boxes["iou_centered_mean_size"]
    assert boxes["iou"] > 1.3 * boxes["iou_centered_own_size"]
