"""The scores are those that a hand works out from their definitions in docs/evaluation.md."""

import csv
import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuesheet.app import cli
from cuesheet.artifacts.stage_files import VqaPair
from cuesheet.errors import CuesheetError
from cuesheet.evaluation.baselines import motion_split, uniform_split
from cuesheet.evaluation.granularity import Granularity
from cuesheet.evaluation.grounding import iou, score_grounding
from cuesheet.evaluation.metrics import nested_scores
from cuesheet.evaluation.references import Reference, read_reference
from cuesheet.evaluation.scores import System, evaluate, same_label, score_system, system_sums
from cuesheet.evaluation.segments import (
    Segment,
    align,
    boundaries,
    count_superfluous,
    edit_score,
    interval_iou,
    match_segments,
    pin_ends,
)
from cuesheet.evaluation.table import as_text
from cuesheet.text import is_exact, normalized, token_f1


def segmentation(*edges: float, texts: str = "") -> list[Segment]:
    """Segments between consecutive edges; labels are the letters of `texts`."""
    letters = texts or " " * (len(edges) - 1)
    return [Segment(a, b, t.strip()) for (a, b), t in zip(pairwise(edges), letters, strict=True)]


def scores(predicted, reference) -> dict:
    return pooled((predicted, reference))


def pooled(*episodes: tuple[list[Segment], list[Segment]]) -> dict:
    """Scores over episodes of (predicted, reference) segments."""
    system = System("run", {index: predicted for index, (predicted, _) in enumerate(episodes)})
    reference = Reference({index: parts for index, (_, parts) in enumerate(episodes)})
    sums = system_sums(system, reference, range(len(episodes)), same_label(0.5))
    return nested_scores(sums.sum())


def test_iou_of_segments():
    assert interval_iou(Segment(0, 4), Segment(2, 6)) == pytest.approx(2 / 6)
    assert interval_iou(Segment(0, 2), Segment(2, 4)) == 0
    assert interval_iou(Segment(0, 10), Segment(4, 6)) == pytest.approx(0.2)


def test_matching_is_one_to_one_and_as_large_as_can_be():
    # p0 overlaps both; greedy by IoU (p0-r1 0.5, then nothing) would find one pair at 0.3.
    predicted = [Segment(0, 6), Segment(6, 10)]
    reference = [Segment(0, 2), Segment(2, 8), Segment(8, 10)]
    # IoU: p0-r0 2/6, p0-r1 4/8, p1-r1 2/8, p1-r2 2/4
    assert match_segments(predicted, reference, 0.3) == [(0, 1), (1, 2)]
    assert match_segments(predicted, reference, 0.25) == [(0, 1), (1, 2)]
    assert match_segments(predicted, reference, 0.51) == []
    # One segment is never matched twice.
    assert len(match_segments([Segment(0, 10)], segmentation(0, 5, 10), 0.5)) == 1


def test_alignment_prefers_more_pairs_over_a_better_one():
    gains = {(0, 0): (1, 0.1), (0, 1): (1, 0.9), (1, 1): (1, 0.1)}
    assert align(2, 2, lambda r, c: gains.get((r, c))) == [(0, 0), (1, 1)]
    assert align(1, 2, lambda r, c: gains.get((r, c))) == [(0, 1)]
    assert align(0, 3, lambda r, c: (1.0,)) == []


def test_segment_f1_by_threshold():
    # IoU: 4/5 with [0, 5], 5/6 with [4, 10] -> [5, 10].
    result = scores(segmentation(0, 4, 10), segmentation(0, 5, 10))
    assert [result["segment"][t]["f1"] for t in ("0.1", "0.25", "0.5", "0.75")] == [1, 1, 1, 1]
    # [0, 2] in [0, 5]: 0.4; [2, 10] with [5, 10]: 5/8.
    result = scores(segmentation(0, 2, 10), segmentation(0, 5, 10))
    assert [result["segment"][t]["f1"] for t in ("0.25", "0.5", "0.75")] == [1, 0.5, 0]
    # One predicted segment, four true ones: at 0.25 one hit; P 1, R 1/4, F1 2/5.
    result = scores(segmentation(0, 8), segmentation(0, 2, 4, 6, 8))["segment"]["0.25"]
    assert result == {"precision": 1, "recall": 0.25, "f1": 0.4}


def test_counts_are_pooled_over_episodes():
    result = pooled(
        (segmentation(0, 5, 10), segmentation(0, 5, 10)),  # 2 of 2
        ([], segmentation(0, 1, 2, 3, 4)),  # 0 of 4
    )
    assert result["segment"]["0.5"] == {"precision": 1, "recall": 2 / 6, "f1": 4 / 8}
    assert (result["episodes"], result["episodes_without_prediction"]) == (2, 1)


def test_boundaries_are_the_changes_inside_the_episode():
    assert boundaries(segmentation(0, 2, 5, 9)) == [2, 5]
    assert boundaries([Segment(0, 2), Segment(2.5, 5)]) == [2, 2.5]
    assert boundaries([Segment(0, 9)]) == []


def test_boundary_scores_within_a_tolerance():
    # 2.0 and 5.0 against 2.4, 6.0 and 8.0. Within 0.5 s: one; within 1.0 s: two.
    result = scores(segmentation(0, 2, 5, 10), segmentation(0, 2.4, 6, 8, 10))
    half, whole = result["boundary"]["0.5"], result["boundary"]["1"]
    assert half == {"precision": 1 / 2, "recall": pytest.approx(1 / 3), "f1": 2 / 5}
    assert whole == {"precision": 1, "recall": pytest.approx(2 / 3), "f1": 4 / 5}
    # |2 - 2.4|, |5 - 6|; |2.4 - 2|, |6 - 5|, |8 - 5|
    errors = result["boundary_error_s"]
    assert errors["predicted_to_reference"] == pytest.approx(1.4 / 2)
    assert errors["reference_to_predicted"] == pytest.approx(4.4 / 3)


def test_one_boundary_does_not_hit_two():
    result = scores(segmentation(0, 5, 10), segmentation(0, 4.8, 5.2, 10))
    assert result["boundary"]["0.5"]["recall"] == 0.5


def test_edit_score_sees_the_order_alone():
    same = same_label(0.5)
    assert edit_score("xyz", "xyz", same) == 1
    assert edit_score("xz", "xyz", same) == pytest.approx(1 - 1 / 3)
    assert edit_score("yx", "xy", same) == 0
    assert edit_score([], "xy", same) == 0
    assert edit_score([], [], same) == 1


def test_over_and_under_segmentation():
    # [0, 5] is split in three, the rest is right: 2 of 4 predicted are needless.
    result = scores(segmentation(0, 1, 2, 5, 10), segmentation(0, 5, 10))
    assert (result["over_segmentation"], result["under_segmentation"]) == (2 / 4, 0)
    result = scores(segmentation(0, 5, 10), segmentation(0, 1, 2, 5, 10))
    assert (result["over_segmentation"], result["under_segmentation"]) == (0, 2 / 4)
    assert count_superfluous(segmentation(0, 5, 10), [Segment(20, 30)]) == 0


def test_frame_accuracy_is_the_share_of_time_in_the_right_segment():
    # [0, 4] in [0, 5], [4, 10] covers [5, 10]: 4 + 5 of 10 s.
    assert scores(segmentation(0, 4, 10), segmentation(0, 5, 10))[
        "frame_accuracy"
    ] == pytest.approx(0.9)
    # One segment may stand for one true one only: the longest, 6 of 10 s.
    assert scores(segmentation(0, 10), segmentation(0, 4, 10))["frame_accuracy"] == pytest.approx(
        0.6
    )


def test_labels_of_matched_segments_and_end_to_end():
    result = scores(segmentation(0, 5, 10, texts="xy"), segmentation(0, 5, 10, texts="xz"))
    assert result["labels"]["exact"] == 0.5
    assert result["labels"]["frame_accuracy"] == 0.5
    assert result["end_to_end"]["0.75"]["f1"] == 0.5
    assert result["edit"] == 0.5


def test_end_to_end_matches_by_label_if_that_finds_more():
    # The better overlap has the wrong label; the right label is still within IoU 0.25.
    predicted = [Segment(0, 6, "grasp cup")]
    reference = [Segment(0, 2, "grasp the cup"), Segment(2, 6, "lift cup high up")]
    result = scores(predicted, reference)
    assert result["labels"]["same"] == 0
    assert result["end_to_end"]["0.25"]["precision"] == 1


def test_label_agreement():
    assert normalized("Pick up the  Cup!") == "pick up cup"
    assert is_exact("Pick up the cup.", "pick up a cup")
    assert not is_exact("", "")
    # pick cup / pick red cup: 2 shared of 2 + 3
    assert token_f1("pick the cup", "pick a red cup") == pytest.approx(4 / 5)
    # a word counts as often as it occurs
    assert token_f1("cup cup", "cup") == pytest.approx(2 / 3)
    assert token_f1("cup", "") == 0


def test_a_verdict_counts_before_the_words():
    same = same_label(0.5, {("lift it", "raise it up"): True, ("open", "open"): False})
    assert same("lift it", "raise it up")
    assert not same("open", "open")
    assert same("close door", "close door")
    assert not same_label(0.0)("this", "that")


def test_box_iou_and_point_distances():
    assert iou([0, 0, 2, 2], [1, 1, 3, 3]) == pytest.approx(1 / 7)
    boxes = {0: {("cam", 3): {"cup": (10, 10, 30, 30), "hand": (60, 60, 80, 80)}}}
    pairs = {
        0: [
            pair("bbox", {"detections": [{"bbox": [10, 10, 30, 20]}]}),
            pair("keypoint", {"point": [20, 34]}),
            pair("bbox", {"detections": [{"bbox": [0, 0, 9, 9]}]}, frame=4),  # nothing there
        ]
    }
    result = score_grounding(pairs, boxes, {"cam": (100, 100)})
    assert result["boxes"]["left_out"] == 1
    row = result["boxes"]["by_camera"]["cam"]
    assert (row["count"], row["iou"]) == (1, 0.5)
    # Mean size 20 x 20: [40, 40, 60, 60] touches neither.
    assert row["iou_centered_mean_size"] == 0
    point = result["points"]["by_camera"]["all"]
    assert (point["to_center_px"], point["to_box_px"]) == (14, 4)
    assert point["middle_to_box_px"] == pytest.approx(200**0.5)  # to the hand's corner
    ignored = score_grounding(pairs, boxes, {"cam": (100, 100)}, ignored=["hand"])
    assert ignored["points"]["by_camera"]["all"]["middle_to_box_px"] == pytest.approx(800**0.5)


def pair(kind: str, answer: dict, frame: int = 3) -> VqaPair:
    return VqaPair(frame_index=frame, camera="cam", type=kind, question="?", answer=answer)


def test_a_uniform_split_has_equal_parts():
    assert uniform_split(segmentation(0, 1, 2, 9)) == segmentation(0, 3, 6, 9)


def test_a_motion_split_cuts_at_the_least_motion():
    energy = np.full(99, 10.0)  # 10 s at 10 fps
    energy[28:33] = 0  # stands still around 3 s
    energy[68:73] = 4  # slows down around 7 s
    two = motion_split(segmentation(0, 1, 10), energy, 10.0)
    assert [part.start_s for part in two] == [0, pytest.approx(3.1, abs=0.15)]
    three = motion_split(segmentation(0, 1, 2, 10), energy, 10.0)
    assert [part.start_s for part in three][1:] == [
        pytest.approx(3.1, abs=0.15),
        pytest.approx(7.1, abs=0.15),
    ]
    assert motion_split(segmentation(0, 10), energy, 10.0) == segmentation(0, 10)


ROWS = [
    {"episode": 0, "start_s": 0.0, "end_s": 2.0, "text": "reach"},
    {"episode": 0, "start_s": 2.0, "end_s": 5.0, "text": "grasp"},
    {"episode": 3, "start_s": 0.0, "end_s": 4.0, "text": "push"},
]
EXPECTED = {
    0: [Segment(0, 2, "reach"), Segment(2, 5, "grasp")],
    3: [Segment(0, 4, "push")],
}


def test_references_of_every_layout(tmp_path):
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    nested = [
        {"episode_index": 0, "segments": [{"phases": [r | {"name": r["text"]} for r in ROWS[:2]]}]},
        {"episode_index": 3, "segments": [{"start_sec": 0, "end_sec": 4, "subtask": "push"}]},
    ]
    (tmp_path / "nested.json").write_text(json.dumps({"episodes": nested}))
    for name in ("rows.csv", "rows.json", "rows.parquet", "nested.json"):
        assert read_reference(tmp_path / name).segments == EXPECTED, name


def test_wgo_bench_counts_its_rows(tmp_path):
    table = pa.table(
        {
            "id": ["x7", "a2"],
            "video": [b"mp4", b"mp4"],
            "instruction": ["reach and grasp", "push"],
            "segments": [
                [
                    {"start_sec": 0.0, "end_sec": 2.0, "subtask": "reach"},
                    {"start_sec": 2.0, "end_sec": 5.0, "subtask": "grasp"},
                ],
                [{"start_sec": 0.0, "end_sec": 4.0, "subtask": "push"}],
            ],
        }
    )
    pq.write_table(table, tmp_path / "bench.parquet")
    assert read_reference(tmp_path / "bench.parquet").segments == {0: EXPECTED[0], 1: EXPECTED[3]}


def test_boxes_come_as_rows_or_as_tracks(tmp_path):
    rows = [{"camera": "cam", "frame_index": 1, "label": "cup", "box": [1, 2, 3, 4]}]
    tracks = {"cam": {"cup": {"box": [None, [1, 2, 3, 4]]}}}
    for boxes in (rows, tracks):
        episode = {"episode_index": 5, "segments": [], "boxes": boxes}
        (tmp_path / "boxes.json").write_text(json.dumps({"episodes": [episode]}))
        found = read_reference(tmp_path / "boxes.json").boxes
        assert found == {5: {("cam", 1): {"cup": (1, 2, 3, 4)}}}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "episode,start_s,end_s,text\n0,3,2,x\n", "row 0: .*ends at 2 s, starts at 3 s"),
        ("a.csv", "episode,from,to\n0,3,2\n", "row 0: start_s: Field required"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "[]", "has no segments"),
        ("a.txt", "", "expected a file ending in .json"),
    ],
)
def test_a_reference_that_is_none_is_one_clear_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(CuesheetError, match=message):
        read_reference(tmp_path / name)


@pytest.fixture
def run(tmp_path):
    """Results of two episodes; the reference of `rows` has 0 and 3."""
    for index in (0, 1):
        plan = {
            **{"format": 1, "stage": "plan", "dataset": "d", "episode_index": index},
            **{"persistent": [], "events": []},
            "subtasks": [
                {"start_frame": 0, "end_frame": 20, "start_s": 0.0, "end_s": 2.0, "label": "Reach"},
                {"start_frame": 20, "end_frame": 50, "start_s": 2.0, "end_s": 5.0, "label": "lift"},
            ],
        }
        path = tmp_path / "results" / "d" / "plan" / f"{index:06d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plan))
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    return tmp_path / "results" / "d", tmp_path / "rows.json"


def test_one_command_prints_and_plots_the_scores(run, tmp_path, capsys):
    results, reference = map(str, run)
    assert cli.main(["evaluate", results, "--reference", reference, "--baseline", "uniform"]) == 0
    text = capsys.readouterr().out
    assert "2 episodes, 3 reference segments" in text
    assert "1 annotated episode without a reference" in text
    # Episode 3 was not annotated: 2 hits of 2 predicted and 3 true.
    # Uniform: IoU 2 / 2.5 and 2.5 / 3, two hits as well.
    scores, _, differences = text.partition("Differences")
    (line,) = [line for line in scores.splitlines() if line.startswith("segment F1 at IoU 0.75 ")]
    # An episode is drawn twice, or both once: 0/1, 4/4 and 4/5 of the segments.
    assert line.split()[5:] == ["0.800", "[0.000,", "1.000]"] * 2
    (line,) = [line for line in scores.splitlines() if line.startswith("label exact")]
    assert line.split()[-1] == "–"
    assert "0.500" in line
    (line,) = [line for line in differences.splitlines() if "IoU 0.75 " in line][:1]
    assert line.split()[5:] == ["+0.000", "[+0.000,", "+0.000]", "within", "noise"]
    plot = tmp_path / "plot.svg"
    assert (
        cli.main(
            ["evaluate", results, "--reference", reference, "--json", "-", "--plot", str(plot)]
        )
        == 0
    )
    (system,) = json.loads(capsys.readouterr().out)["systems"]
    assert system["labels"] == {
        **{"pairs": 2, "exact": 0.5, "token_f1": 0.5, "same": 0.5},
        # The reference is reach and grasp, without objects; the run says reach and lift.
        **{"pairs_with_object": 0, "object": None, "verb": 0.5, "both": 0.5},
        "frame_accuracy": pytest.approx(2 / 9),
    }
    assert system["episodes_without_prediction"] == 1
    assert plot.read_text().startswith("<?xml")


def test_a_run_can_be_held_against_another_run(run, capsys):
    results = str(run[0])
    assert cli.main(["evaluate", results, "--reference", results, "--json", "-"]) == 0
    (system,) = json.loads(capsys.readouterr().out)["systems"]
    assert system["end_to_end"]["0.75"]["f1"] == 1
    assert system["edit"] == 1


def test_only_annotated_leaves_the_others_out(run, capsys):
    results, reference = map(str, run)
    arguments = [results, "--reference", reference, "--only-annotated", "--json", "-"]
    assert cli.main(["evaluate", *arguments]) == 0
    (system,) = json.loads(capsys.readouterr().out)["systems"]
    assert (system["episodes"], system["segment"]["0.75"]["f1"]) == (1, 1)


def test_a_reference_of_other_episodes_is_an_error(run, tmp_path, capsys):
    (tmp_path / "other.json").write_text(json.dumps([ROWS[2] | {"episode": 9}]))
    assert cli.main(["evaluate", str(run[0]), "--reference", str(tmp_path / "other.json")]) == 1
    assert "no episode number in common" in capsys.readouterr().err


def test_pinned_ends_are_those_of_the_reference():
    predicted, reference = segmentation(1, 4, 8), segmentation(0, 4, 10)
    assert pin_ends(predicted, reference) == segmentation(0, 4, 10)
    # Unpinned: 3/4 and 4/6, one hit of two at IoU 0.75. Pinned: both.
    result = scores(predicted, reference)
    assert result["segment"]["0.75"]["f1"] == 0.5
    assert result["segment_ends_pinned"]["0.75"]["f1"] == 1
    # A single segment gets both ends; a segment that ends before the reference starts is lost.
    assert pin_ends([Segment(3, 4)], reference) == [Segment(0, 10)]
    assert scores([Segment(0, 1), Segment(1, 9)], segmentation(2, 6, 9))["segment_ends_pinned"][
        "0.75"
    ] == {"precision": 0, "recall": 0, "f1": 0}
    assert pin_ends([], reference) == []


@pytest.mark.parametrize(
    ("label", "reference", "verb", "thing", "same"),
    [
        ("open the drawer", "close the drawer", False, True, False),
        ("pick up the red block", "pick up the blue block", True, False, False),
        ("pick up the block", "pick up the red block", True, True, True),
        ("picks up a block", "picking the block up", True, True, True),
        ("turn on the lamp", "turn off the lamp", False, True, False),
        ("put the cup on the table", "put the cup on the shelf", True, False, False),
    ],
)
def test_labels_agree_in_verbs_and_objects(label, reference, verb, thing, same):
    result = scores([Segment(0, 5, label)], [Segment(0, 5, reference)])["labels"]
    assert (result["verb"], result["object"]) == (verb, thing)
    assert result["both"] == (verb and thing)
    assert result["same"] == same


def test_objects_are_scored_only_if_the_reference_names_one():
    predicted = [Segment(0, 5, "grasp the cup"), Segment(5, 9, "lift the cup")]
    reference = [Segment(0, 5, "grasp"), Segment(5, 9, "lift the bowl")]
    result = scores(predicted, reference)["labels"]
    assert (result["pairs"], result["pairs_with_object"]) == (2, 1)
    assert (result["verb"], result["object"], result["both"]) == (1, 0, 0.5)


def test_intervals_are_those_of_the_bootstrap_over_episodes():
    good, bad = (
        (segmentation(0, 5, 10), segmentation(0, 5, 10)),
        (segmentation(0, 1, 10), segmentation(0, 5, 10)),
    )
    episodes = [good] * 8 + [bad] * 8
    reference = Reference({index: parts for index, (_, parts) in enumerate(episodes)})
    system = System("run", {index: parts for index, (parts, _) in enumerate(episodes)})
    found = score_system(system, reference, range(16), same_label(0.5))
    # 2 hits of 2 in a good episode, 1 of 2 (5 / 9) in a bad one: F1 is 0.5 + the share of good
    # ones / 2, whose standard deviation is sqrt(0.5 * 0.5 / 16) / 2 = 0.0625.
    assert found["segment"]["0.5"]["f1"] == 0.75
    low, high = found["intervals"]["segment.0.5.f1"]
    assert low == pytest.approx(0.75 - 2 * 0.0625, abs=0.035)
    assert high == pytest.approx(0.75 + 2 * 0.0625, abs=0.035)
    single = score_system(system, reference, [0], same_label(0.5))
    assert single["intervals"]["segment.0.5.f1"] is None


def write_plans(folder, cuts):
    """A run of 10 s episodes with one boundary each."""
    for index, cut in enumerate(cuts):
        rows = [
            {"start_frame": 0, "end_frame": 1, "start_s": a, "end_s": b, "label": "x"}
            for a, b in ((0.0, cut), (cut, 10.0))
        ]
        plan = {
            **{"format": 1, "stage": "plan", "dataset": "d", "episode_index": index},
            **{"persistent": [], "events": [], "subtasks": rows},
        }
        path = folder / "plan" / f"{index:06d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plan))
    return folder


def test_a_difference_within_the_noise_is_called_so(tmp_path):
    right, wrong = 5.0, 1.0
    reference = Reference({index: segmentation(0, 5, 10, texts="xx") for index in range(12)})
    runs = [
        write_plans(tmp_path / "wrong", [wrong] * 12),
        write_plans(tmp_path / "one_right", [right] + [wrong] * 11),
        write_plans(tmp_path / "right", [right] * 11 + [wrong]),
    ]
    report = evaluate(runs, reference)
    found = [part["scores"]["boundary.0.5.f1"] for part in report["differences"]]
    # One of twelve episodes differs: a third of the resamples do not contain it.
    assert found[0]["difference"] == pytest.approx(1 / 12)
    assert found[0]["within_noise"]
    assert found[1]["difference"] == pytest.approx(11 / 12)
    assert not found[1]["within_noise"]
    assert found[1]["interval"][0] > 0.6
    text = as_text(report)
    assert "+0.083 [+0.000, +0.250] within noise" in text
    assert "right − wrong" in text


PHASES = [
    *(Segment(0, 1, "approach"), Segment(1, 2, "grasp"), Segment(2, 4, "transport")),
    *(Segment(4, 5, "Release"), Segment(5, 6, "retreat"), Segment(6, 9, "idle")),
]


def test_phases_become_events():
    rules = Granularity(
        fold={"idle": "previous", "retreat": "previous", "approach": "next"},
        mapping={"grasp": "pick", "transport": "place", "release": "place"},
    )
    assert rules.apply(PHASES) == [Segment(0, 2, "pick"), Segment(2, 9, "place")]


def test_folding_keeps_all_of_the_time():
    fold = Granularity(fold={"idle": "previous", "wait": "next"})
    # At the start, there is no previous segment; at the end, there is no next one.
    assert fold.apply([Segment(0, 1, "idle"), Segment(1, 3, "lift"), Segment(3, 4, "wait")]) == [
        Segment(0, 4, "lift")
    ]
    # A segment that waits for the next one takes those behind it along.
    mixed = [Segment(0, 1, "a"), Segment(1, 2, "wait"), Segment(2, 3, "idle"), Segment(3, 4, "b")]
    assert fold.apply(mixed) == [Segment(0, 1, "a"), Segment(1, 4, "b")]
    only = [Segment(0, 1, "idle"), Segment(1, 2, "wait")]
    assert fold.apply(only) == only


def test_only_segments_with_a_new_name_are_merged():
    rules = Granularity(mapping={"grasp": "pick"})
    parts = segmentation(0, 1, 2, 3, 4, texts="aabb")
    assert rules.apply(parts) == parts
    twice = [Segment(0, 1, "grasp"), Segment(1, 2, "pick"), Segment(2, 3, "grasp")]
    assert [part.text for part in rules.apply(twice)] == ["pick", "pick", "pick"]


def test_a_reference_file_names_its_own_granularity(tmp_path):
    rows = [{"episode": 0, "start_s": p.start_s, "end_s": p.end_s, "text": p.text} for p in PHASES]
    content = {"segments": rows, "fold": ["idle", "retreat"], "mapping": {"approach": "pick"}}
    (tmp_path / "a.json").write_text(json.dumps(content))
    changed = read_reference(tmp_path / "a.json").changed(Granularity(mapping={"grasp": "pick"}))
    assert [(p.start_s, p.end_s, p.text) for p in changed.segments[0]] == [
        *((0, 2, "pick"), (2, 4, "transport"), (4, 9, "Release")),
    ]
    (tmp_path / "a.json").write_text(json.dumps({**content, "fold": {"idle": "left"}}))
    with pytest.raises(CuesheetError, match="fold"):
        read_reference(tmp_path / "a.json")


def test_events_are_scored_against_folded_phases(run, tmp_path, capsys):
    rows = [{"episode": 0, "start_s": 0, "end_s": 2, "text": "Reach"}]
    rows += [{"episode": 0, "start_s": 2, "end_s": 3, "text": "hoist"}]
    rows += [{"episode": 0, "start_s": 3, "end_s": 5, "text": "idle"}]
    (tmp_path / "phases.json").write_text(json.dumps(rows))
    command = [str(run[0]), "--reference", str(tmp_path / "phases.json"), "--json", "-"]
    assert cli.main(["evaluate", *command]) == 0
    (system,) = json.loads(capsys.readouterr().out)["systems"]
    assert system["segments"] == {"predicted": 2, "reference": 3}
    assert cli.main(["evaluate", *command, "--fold", "idle", "--map", "hoist=lift"]) == 0
    (system,) = json.loads(capsys.readouterr().out)["systems"]
    assert system["segments"] == {"predicted": 2, "reference": 2}
    assert system["end_to_end"]["0.75"]["f1"] == 1
    for wrong in (["--fold", "idle=left"], ["--map", "hoist"]):
        assert cli.main(["evaluate", *command, *wrong]) == 1
        assert wrong[0] in capsys.readouterr().err
