"""A file with the layout of WGO-Bench is converted, annotated, and used as the reference."""

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workflow_runs import Workdir

from cuesheet.app.cli import main
from cuesheet.dataset.metadata import read_dataset
from cuesheet.evaluation.wgo_bench import CAMERA

pytestmark = pytest.mark.workflow


@pytest.fixture
def bench(finished_demo: Workdir, tmp_path):
    """Two clips of the demo, with two segments each that a hand made up."""
    rows = []
    for index, task in ((1, "Open a drawer"), (2, "Press a button from the top")):
        clip = (
            finished_demo.path
            / f"results/demo_v3/clips/observation.images.front/episode_{index:06d}.mp4"
        )
        segments = [
            {"start_sec": 0.0, "end_sec": 2.0, "subtask": "reach for it"},
            {"start_sec": 2.0, "end_sec": 4.5, "subtask": "do it"},
        ]
        rows.append(
            {
                **{"id": f"clip-{index}", "video": {"bytes": clip.read_bytes(), "path": None}},
                **{"instruction": task, "segments": segments},
            }
        )
    path = tmp_path / "bench.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_a_benchmark_file_is_converted_annotated_and_scored(bench, workdir, tmp_path):
    target = tmp_path / "wgo"
    assert main(["wgo-bench", str(bench), str(target), "--width", "160", "--height", "120"]) == 0
    dataset = read_dataset(target, "wgo")
    assert [episode.task for episode in dataset.episodes] == [
        "Open a drawer",
        "Press a button from the top",
    ]
    # The demo's clips have 46 and 76 frames at 10 fps.
    assert [episode.length for episode in dataset.episodes] == [46, 76]
    with av.open(str(target / dataset.episodes[0].videos[CAMERA].file)) as video:
        frame = next(video.decode(video=0)).to_ndarray(format="rgb24")
    assert frame.shape == (120, 160, 3)
    assert frame[:, :18].max() < 20 < frame[:, 40:120].mean()  # a square between black borders
    workdir.configure(
        dataset=str(target), evaluate={"reference": str(bench)}, vqa={"enabled": False}
    )
    done = workdir.run()
    assert done.jobs["score_annotations"] == 1
    scores = workdir.json("results/wgo/evaluation.json")
    assert [system["name"] for system in scores["systems"]] == [
        "wgo",
        "uniform split",
        "motion split",
    ]
    assert scores["systems"][0]["segments"]["reference"] == 4
    assert scores["systems"][0]["episodes_without_prediction"] == 0
    assert "Scores against the reference" in (workdir.path / "results/wgo/report.html").read_text()


def test_nothing_is_written_over_and_no_half_dataset_stays(bench, tmp_path, capsys):
    target = tmp_path / "wgo"
    broken = pq.read_table(bench).to_pylist()
    broken[1]["video"]["bytes"] = b"no video"
    pq.write_table(pa.Table.from_pylist(broken), tmp_path / "broken.parquet")
    assert main(["wgo-bench", str(tmp_path / "broken.parquet"), str(target)]) == 1
    assert "row 1 (clip-2)" in capsys.readouterr().err
    assert not target.exists()
    target.mkdir()
    assert main(["wgo-bench", str(bench), str(target)]) == 1
    assert "already exists" in capsys.readouterr().err
