"""`cuesheet corrections export`: files that a person can edit, and that lose nothing."""

import csv
import json
from pathlib import Path

import pytest
from keyframe_files import keyframes_json

from cuesheet.app import cli


def write(path: Path, data: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two episodes of 10 s with two subtasks each."""
    folder = tmp_path / "results" / "demo"
    for index in (0, 3):
        spans = [(0.0, 4.0, "reach"), (4.0, 10.0, "grasp the cup")]
        head = {"format": 1, "dataset": "demo", "episode_index": index, "stage": "plan"}
        subtasks = [
            {"start_frame": int(start), "end_frame": int(end), "label": label}
            | {"start_s": start, "end_s": end}
            for start, end, label in spans
        ]
        plan = {**head, "persistent": [], "events": [], "subtasks": subtasks, "provenance": {}}
        write(folder / f"plan/{index:06d}.json", plan)
        write(
            folder / f"keyframes/{index:06d}/keyframes.json",
            keyframes_json("demo", index, task="t", fps=1.0, length=10, cameras={}),
        )
    return folder


@pytest.fixture
def export(results: Path, tmp_path: Path):
    """Run the command; return its exit status and the folder that it writes to."""
    folder = tmp_path / "corrections"

    def run(*arguments: str) -> tuple[int, Path]:
        return cli.main(
            ["corrections", "export", str(results), "--to", str(folder), *arguments]
        ), folder

    return run


def test_every_episode_becomes_a_file_with_its_subtasks_and_length(export):
    status, folder = export()
    assert status == 0
    assert sorted(path.name for path in folder.iterdir()) == ["000000.json", "000003.json"]
    value = json.loads((folder / "000003.json").read_text())
    assert (value["dataset"], value["episode_index"], value["length"]) == ("demo", 3, 10)
    assert value["subtasks"] == [
        {"start_s": 0.0, "end_s": 4.0, "label": "reach"},
        {"start_s": 4.0, "end_s": 10.0, "label": "grasp the cup"},
    ]


def test_a_table_has_one_line_per_subtask(export):
    _, folder = export("--csv", "--episodes", "3")
    (path,) = folder.iterdir()
    assert path.name == "000003.csv"
    rows = list(csv.reader(path.open()))
    assert rows == [
        ["start", "end", "text"],
        ["0.0", "4.0", "reach"],
        ["4.0", "10.0", "grasp the cup"],
    ]


def test_existing_files_are_kept_unless_they_are_to_be_replaced(export, capsys):
    _, folder = export("--episodes", "0")
    edited = json.loads((folder / "000000.json").read_text())
    edited |= {"note": "look again", "verdict": "good", "subtasks": None}
    (folder / "000000.json").write_text(json.dumps(edited))
    export()
    assert json.loads((folder / "000000.json").read_text()) == edited
    assert "1 existing file was not changed" in capsys.readouterr().out
    export("--overwrite")
    replaced = json.loads((folder / "000000.json").read_text())
    assert len(replaced["subtasks"]) == 2
    assert (replaced["note"], replaced["verdict"]) == ("look again", "good")


def test_what_a_table_cannot_hold_is_not_lost(export, capsys):
    _, folder = export("--episodes", "0")
    edited = json.loads((folder / "000000.json").read_text()) | {"verdict": "good"}
    (folder / "000000.json").write_text(json.dumps(edited))
    status, _ = export("--csv", "--overwrite", "--episodes", "0")
    assert status == 1
    assert "verdict, which a CSV file cannot hold; remove --csv" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["000000.json"]
    # Without such keys, the table takes the place of the other file.
    del edited["verdict"]
    (folder / "000000.json").write_text(json.dumps(edited))
    export("--csv", "--overwrite", "--episodes", "0")
    assert [path.name for path in folder.iterdir()] == ["000000.csv"]


@pytest.mark.parametrize(
    ("episodes", "message"), [("7", "has no plan of episode 7"), ("x", "--episodes: 'x' is")]
)
def test_what_cannot_be_exported_is_an_error_in_one_line(export, capsys, episodes, message):
    status, folder = export("--episodes", episodes)
    assert status == 1
    assert message in capsys.readouterr().err
    assert not folder.exists()


def test_results_without_plans_are_an_error(tmp_path, capsys):
    assert cli.main(["corrections", "export", str(tmp_path)]) == 1
    assert "has no plan; run the workflow" in capsys.readouterr().err
