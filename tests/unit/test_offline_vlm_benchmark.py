"""The comparison with ground truth: its numbers are those that a hand works out."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

CAMERA = "observation.images.front"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "offline_vlm.py"
    spec = importlib.util.spec_from_file_location("benchmark_offline_vlm", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Path]:
    """One episode of 10 s: true boundaries at 2 and 6 s, answered ones at 3 and 6 s."""
    truth = {
        "cameras": {CAMERA: {"width": 100, "height": 100}},
        "episodes": [
            {
                "episode_index": 0,
                "segments": [{"phases": [{"start_s": 0.0}, {"start_s": 2.0}, {"start_s": 6.0}]}],
                "boxes": {
                    CAMERA: {
                        "object": {"box": [[10, 10, 30, 30], None]},
                        "gripper": {"box": [[60, 60, 80, 80], [60, 60, 80, 80]]},
                    }
                },
            }
        ],
    }
    spans = [(0.0, 3.0), (3.0, 6.0), (6.0, 10.0)]
    plan = {"episode_index": 0, "subtasks": [{"start_s": a, "end_s": b} for a, b in spans]}
    box = {"detections": [{"bbox": [10, 10, 30, 20]}]}
    vqa = {
        "episode_index": 0,
        "pairs": [
            {"type": "bbox", "frame_index": 0, "camera": CAMERA, "answer": box},
            {
                "type": "keypoint",
                "frame_index": 0,
                "camera": CAMERA,
                "answer": {"point": [20, 34]},
            },
            {
                "type": "keypoint",
                "frame_index": 1,
                "camera": CAMERA,
                "answer": {"point": [70, 70]},
            },
        ],
    }
    for stage, document in (("plan", plan), ("vqa", vqa)):
        (tmp_path / "results" / stage).mkdir(parents=True)
        (tmp_path / "results" / stage / "000000.json").write_text(json.dumps(document))
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    return tmp_path / "results", tmp_path / "truth.json"


def test_boundaries_are_compared_with_a_uniform_split(benchmark, run):
    row = benchmark.compare(*run)["boundaries"]["mean"]
    # Answered: |3 - 2|, |6 - 6|; uniform: 10/3 and 20/3 s.
    assert row["predicted_to_true_s"] == pytest.approx((1 + 0) / 2)
    assert row["uniform_to_true_s"] == pytest.approx((4 / 3 + 2 / 3) / 2)
    assert row["true_to_predicted_s"] == pytest.approx((1 + 0) / 2)
    assert row["true_to_uniform_s"] == pytest.approx((4 / 3 + 2 / 3) / 2)


def test_boxes_are_compared_with_boxes_in_the_middle(benchmark, run):
    row = benchmark.compare(*run)["boxes"]["groups"]["all"]
    assert row["iou"] == pytest.approx(0.5)
    # All true boxes are 20 x 20: in the middle that is [40, 40, 60, 60], which touches neither.
    assert row["iou_centered_mean_size"] == 0
    assert row["iou_centered_own_size"] == 0
    assert benchmark.iou([0, 0, 2, 2], [1, 1, 3, 3]) == pytest.approx(1 / 7)


def test_points_are_compared_with_the_middle_and_the_gripper_does_not_count(benchmark, run):
    points = benchmark.compare(*run)["points"]
    row = points["groups"]["all"]
    assert points["left_out"] == 1
    assert (row["to_center_px"], row["to_box_px"]) == (14, 4)
    assert row["middle_to_center_px"] == pytest.approx(math.hypot(30, 30))
    assert row["middle_to_box_px"] == pytest.approx(math.hypot(20, 20))


def test_points_are_compared_with_the_gripper_as_well(benchmark, run):
    points = benchmark.compare(*run)["points_with_gripper"]
    row = points["groups"]["all"]
    assert (points["left_out"], row["count"]) == (0, 2)
    # The second point lies in the middle of the gripper's box, the first nearer to the object.
    assert (row["to_center_px"], row["to_box_px"]) == (7, 2)
    # From (50, 50): 10, 10 to the gripper's box, 20, 20 to its middle, in both frames.
    assert row["middle_to_center_px"] == pytest.approx(math.hypot(20, 20))
    assert row["middle_to_box_px"] == pytest.approx(math.hypot(10, 10))


def test_one_command_prints_all_comparisons(benchmark, run, capsys, monkeypatch):
    results, truth = map(str, run)
    monkeypatch.setattr(sys, "argv", ["x", "--results", results, "--ground-truth", truth])
    benchmark.main()
    text = capsys.readouterr().out
    assert "Subtask boundaries" in text
    assert "Boxes, IoU" in text
    assert "(gripper left out)" in text
    assert "(gripper included)" in text
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--json", "-"])
    benchmark.main()
    assert json.loads(capsys.readouterr().out)["boundaries"]["better_than_uniform"] == 1


def test_a_folder_without_results_is_one_clear_line(benchmark, run, tmp_path):
    with pytest.raises(SystemExit, match="expected the results of a finished run"):
        benchmark.compare(tmp_path / "nothing", run[1])
