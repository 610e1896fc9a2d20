"""A comparison puts what differs first and says how far runs agree."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from keyframe_files import keyframes_json

from cuesheet.app import cli
from cuesheet.artifacts.layout import Layout
from cuesheet.errors import CuesheetError
from cuesheet.evaluation.references import read_reference
from cuesheet.report.compare import compare


def write(path: Path, data: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def run(folder: Path, cuts: dict[int, float], tokens: int) -> Path:
    """A run of 10 s episodes with one boundary each; a call of `tokens` tokens per episode."""
    for index, cut in cuts.items():
        head = {"format": 1, "dataset": folder.name, "episode_index": index}
        name = f"{index:06d}"
        spans = [(0.0, cut, "reach"), (cut, 10.0, "grasp the cup")]
        call = {"prompt": "plan_segment", "prompt_tokens": tokens, "completion_tokens": 1}
        write(
            folder / f"plan/{name}.json",
            {
                **{**head, "stage": "plan", "persistent": [], "events": []},
                "subtasks": [
                    {"start_frame": 0, "end_frame": 1, "start_s": a, "end_s": b, "label": label}
                    for a, b, label in spans
                ],
                "provenance": {"model": f"model-{tokens}", "served_by": "x", "calls": [call]},
            },
        )
        write(
            folder / f"keyframes/{name}/keyframes.json",
            keyframes_json(
                head["dataset"], index, task=f"task <{index}>", fps=1.0, length=10, cameras={}
            ),
        )
        write(
            folder / f"validation/{name}.json",
            {
                **{"format": 1, "episode_index": index, "errors": [], "warnings": []},
                **{"counts": {}, "stage_files": {}},
            },
        )
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """They agree on episode 0, differ by 1 s in episode 2 and by 4 s in episode 1."""
    first = run(tmp_path / "first", {0: 5.0, 1: 5.0, 2: 5.0}, tokens=100)
    second = run(tmp_path / "second", {0: 5.0, 1: 9.0, 2: 6.0, 7: 5.0}, tokens=40)
    return [first, second]


def test_what_they_agree_least_on_comes_first(runs):
    page = compare(runs)
    places = [page.index(f"task &lt;{index}&gt;") for index in (1, 2, 0)]
    assert places == sorted(places)
    # Episode 1: 5 of the first 9 s and 1 of the last 5: 6 of 10 s are in matching segments.
    assert "60 %" in page[places[0] : places[1]]
    assert "90 %" in page[places[1] : places[2]]
    assert "Episodes that all runs have: 3; left out: 1" in page


def test_it_says_what_each_took_and_how_far_they_agree(runs):
    page = " ".join(compare(runs).split())
    assert '<td>tokens in</td><td class="num">300</td><td class="num">160</td>' in page
    assert '<td class="num">model-100</td><td class="num">model-40</td>' in page
    # At IoU 0.5 of 6 and 6: 0 both, 2 both, 1: 5/9 and 1/5. Boundaries within 0.5 s: 1 of 3 and 3.
    row = page[page.index("<td>first</td><td>second</td>") :].partition("</tr>")[0]
    cells = re.findall(r'<td class="num">(\S+) \[\S+, \S+\]</td>', row)
    assert cells == ["0.833", "0.333", "0.833", "1.000"]


def test_scores_of_all_runs_are_in_one_table(runs, tmp_path):
    rows = [
        {"episode": 1, "start_s": 0, "end_s": 9, "text": "reach"},
        {"episode": 1, "start_s": 9, "end_s": 10, "text": "grasp a cup"},
    ]
    (tmp_path / "truth.json").write_text(json.dumps(rows))
    page = " ".join(compare(runs, read_reference(tmp_path / "truth.json")).split())
    # A single episode has no confidence interval.
    scores = '<td class="num">0.500</td><td class="num">1.000</td>'
    assert f"<td>end-to-end F1 at IoU 0.5</td>{scores}" in page
    assert '<td class="num">+0.500 within noise</td>' in page


def test_one_command_writes_the_page(runs, tmp_path, capsys):
    target = tmp_path / "compare.html"
    assert cli.main(["compare", *map(str, runs), "--to", str(target)]) == 0
    assert target.read_text().startswith("<!doctype html>")
    assert capsys.readouterr().err == ""  # no progress bars
    assert cli.main(["compare", str(runs[0]), "--to", str(target)]) == 1
    assert "two result folders" in capsys.readouterr().err


def test_runs_without_a_common_episode_are_an_error(runs, tmp_path):
    other = run(tmp_path / "other", {8: 5.0}, tokens=1)
    with pytest.raises(CuesheetError, match="no annotated episode in common"):
        compare([runs[0], other])


def use_prompt(run: Path, text: str, *, stored: bool = True) -> None:
    """Say that the run used `text` as the prompt plan_segment."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    for path in (run / "plan").glob("*.json"):
        plan = json.loads(path.read_text())
        plan["provenance"]["prompts"] = {"plan_segment": digest}
        path.write_text(json.dumps(plan))
    if stored:
        Layout(run).prompt(digest).parent.mkdir(exist_ok=True)
        Layout(run).prompt(digest).write_text(text)


def test_the_page_shows_how_the_prompts_differ(runs):
    same = "You see a robot.\n"
    use_prompt(runs[0], f"{same}List its subtasks.\n")
    use_prompt(runs[1], f"{same}List <all> its subtasks.\n")
    page = compare(runs)
    assert "<del>-List its subtasks.</del>" in page
    assert "<ins>+List &lt;all&gt; its subtasks.</ins>" in page
    assert "plan_segment: first → second" in page


def test_equal_prompts_have_no_difference_and_missing_texts_are_said(runs):
    for folder in runs:
        use_prompt(folder, "List its subtasks.")
    assert "All runs used the same prompts." in compare(runs)
    use_prompt(runs[1], "List them.", stored=False)
    page = compare(runs)
    assert "not all of them are stored" in page
    assert "<ins>" not in page
