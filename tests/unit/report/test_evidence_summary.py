"""What the summary says about recorded signals and about what corrections reach."""

import json
from pathlib import Path
from typing import Any

import pytest

from cuesheet.artifacts.layout import Layout
from cuesheet.artifacts.stage_files import StageFile
from cuesheet.report.evidence import EvidenceSummary, evidence_entries


def plan(episode: int, task: str = "stack the cubes", **more: Any) -> StageFile:
    return StageFile.model_validate(
        {
            "format": 1,
            "stage": "plan",
            "dataset": "demo",
            "episode_index": episode,
            "persistent": [],
            "events": [],
            "task": {"text": task, "source": "dataset"},
            **more,
        }
    )


def propagated(episode: int, confidence: float, **more: Any) -> StageFile:
    used = {
        "source_episode": 0,
        "confidence": confidence,
        "is_confident": confidence >= 0.5,
        "applied": False,
    }
    return plan(episode, propagation=used, **more)


def corrected(episode: int, **more: Any) -> StageFile:
    return plan(episode, subtasks_from="correction", **more)


def lines(folder: Path, *plans: StageFile) -> list[tuple[str, str]]:
    summary = EvidenceSummary()
    for one in plans:
        summary.add(one)
    return evidence_entries(json.loads(json.dumps(summary.as_json(Layout(folder)))))


def test_the_least_confident_episode_is_to_be_corrected_next(tmp_path: Path) -> None:
    plans = [corrected(0), *(propagated(n, 0.9) for n in (1, 2)), propagated(3, 0.4)]
    text = "stack the cubes: 1 corrected episode covers 3 of 5; correct episode 4 next"
    assert lines(tmp_path, *plans, propagated(4, 0.2)) == [("Corrections", text)]


def test_tasks_are_separate_and_the_least_covered_comes_first(tmp_path: Path) -> None:
    found = lines(
        tmp_path,
        *(corrected(n) for n in (0, 1)),
        propagated(2, 0.8),
        corrected(3, task="pour tea"),
        propagated(4, 0.1, task="pour tea"),
        plan(5, task="sweep"),
    )
    assert [text for _, text in found] == [
        "pour tea: 1 corrected episode covers 1 of 2; correct episode 4 next",
        "stack the cubes: 2 corrected episodes cover 3 of 3",
    ]


def test_nothing_is_said_without_propagation(tmp_path: Path) -> None:
    assert lines(tmp_path, corrected(0), plan(1)) == []


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    gripper = {
        "name": "gripper",
        "arm": "arm",
        "state": 1,
        "action": None,
        "measured_in": "state",
        "found_by": "names",
        "low": 0.0,
        "high": 1.0,
        "open_is_high": True,
        "agreement": 0.957,
    }
    layout = {
        "dataset": "demo",
        "state": ["observation.state"],
        "action": [],
        "state_names": ["x", "claw"],
        "action_names": [],
        "center": [0.0, 0.0],
        "scale": [1.0, 1.0],
        "arms": [],
        "grippers": [gripper],
        "sampled_episodes": [0],
        "notices": ["wrist may be a gripper"],
    }
    path = Layout(tmp_path).signals_layout
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(layout))
    return tmp_path


def test_signals_are_told_with_the_share_of_boundaries_near_events(recorded: Path) -> None:
    used = {"strokes": {"gripper": 2}, "boundaries_near_events": 0.5, "snapped": True}
    unused = {"strokes": {"gripper": 3}, "boundaries_near_events": 0.1, "snapped": False}
    plans = [
        plan(0, signals=used),
        plan(1, signals=unused),
        corrected(2, signals={"strokes": {"gripper": 1}}),
    ]
    assert lines(recorded, *plans) == [
        (
            "Signals",
            "gripper (claw, found by its name, action and state agree 0.96) with 2.0 strokes per "
            "episode; 30% of the model's boundaries are near a recorded event; boundaries were "
            "moved to events in 1 of 2 episodes",
        ),
        ("Signals", "NOTICE: wrist may be a gripper"),
    ]
