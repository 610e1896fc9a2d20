"""A grid of settings is run, scored and compared; variants share frames and requests."""

import json
import subprocess
import sys

import pytest
import yaml
from workflow_runs import REPOSITORY

pytestmark = pytest.mark.workflow


def test_the_best_of_two_variants_is_printed_and_only_new_requests_are_sent(tmp_path, demo_v3):
    spans = [
        {"start_s": 0, "end_s": 2.4, "label": "pick up the puck"},
        {"start_s": 2.4, "end_s": 7.5, "label": "move the puck to the goal"},
    ]
    corrections = tmp_path / "corrections" / "demo_v3"
    corrections.mkdir(parents=True)
    value = {"format": 1, "dataset": "demo_v3", "episode_index": 0, "subtasks": spans}
    (corrections / "000000.json").write_text(json.dumps(value))
    (tmp_path / "tune.yaml").write_text(
        yaml.safe_dump(
            {
                "dataset": str(demo_v3),
                "report": {"price_prompt": 1},
                "tune": {
                    "reference": "corrections",
                    "grid": {"plan.max_subtasks": [2, 8]},
                },
            }
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "cuesheet.app.cli", "tune", "tune.yaml", "--cores", "2"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY / "scripts"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 episode; score: segment.0.5.f1" in done.stdout
    table = [line.split() for line in done.stdout.splitlines() if line.startswith("00")]
    assert [row[1] for row in table] == ["2", "8"]
    first, second = (
        json.loads((tmp_path / f"tune/variants/00{n}/demo_v3/plan/000000.json").read_text())
        for n in (1, 2)
    )
    # A run does not apply the corrections that it is scored with.
    assert {plan["subtasks_from"] for plan in (first, second)} == {"model"}
    assert len(first["subtasks"]) <= 2
    cached = {call["name"]: call["cache_hit"] for call in second["provenance"]["calls"]}
    assert cached["describe 0.00"]
    assert cached["rephrase"]
    assert not cached["segment 0.00"]
    settings = yaml.safe_load(done.stdout.partition("Its settings:")[2])
    assert settings["plan"]["max_subtasks"] in (2, 8)
