"""One correction reaches the other episodes of its task, and motion rows are written."""

import json

import pytest
from workflow_runs import Workdir, estimate_of

pytestmark = pytest.mark.workflow

LABELS = ["pick up the puck", "place the puck on the goal", "move away"]


def correct(work: Workdir, labels: list[str]) -> None:
    """Correct episode 0 of the demo: picked up by 1.8 s, placed by 3.8 s."""
    spans = [
        {"start_s": start, "label": label}
        for start, label in zip((0, 1.8, 3.8), labels, strict=True)
    ]
    value = {"format": 1, "dataset": "demo_v3", "episode_index": 0, "subtasks": spans}
    path = work.path / "corrections/demo_v3/000000.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def test_a_correction_reaches_the_other_episode_of_its_task(workdir, counting_server, demo_v3):
    off = {"enabled": False}
    workdir.configure(
        dataset=str(demo_v3),
        episodes=[0, 3],  # of the same task
        vlm=counting_server.vlm,
        plan={"propagate": "apply", "memory": False, "rephrasings": {"mode": "off"}},
        signals={"motion": True},
        vqa=off,
        interjections=off,
    )
    correct(workdir, LABELS)
    workdir.run()
    plan = workdir.json("results/demo_v3/plan/000003.json")
    assert plan["subtasks_from"] == "propagation"
    assert [part["label"] for part in plan["subtasks"]] == LABELS
    # The reference begins to place at 1.7 s and to retreat at 4.1 s.
    starts = [part["start_s"] for part in plan["subtasks"]]
    assert starts == pytest.approx([0, 1.7, 4.1], abs=0.3)
    assert plan["propagation"]["source_episode"] == 0
    assert plan["propagation"]["confidence"] >= 0.4
    assert counting_server.asked == []

    motion = [row["content"] for row in plan["persistent"] if row["style"] == "motion"]
    assert "close the gripper" in motion
    counts = workdir.json("results/demo_v3/validation/000003.json")["counts"]
    assert counts["motion"] == len(motion) == len(plan["motion"])
    summary = (workdir.path / "results/demo_v3/summary.txt").read_text()
    assert "Pick and place a puck to a goal: 1 corrected episode covers 2 of 2" in summary
    assert "gripper (gripper_open, found by its name" in summary
    assert (
        "1 corrected episode covers 2 of 2"
        in (workdir.path / "results/demo_v3/review/data/site.js").read_text()
    )
    assert "Nothing to be done" in workdir.run().output
    assert estimate_of(workdir).episodes == 0

    correct(workdir, [*LABELS[:2], "withdraw"])
    again = estimate_of(workdir)
    assert (again.episodes, again.total.high.requests) == (2, 0)
    assert workdir.run().jobs["annotate_plan"] == 2
    plan = workdir.json("results/demo_v3/plan/000003.json")
    assert plan["subtasks"][-1]["label"] == "withdraw"
