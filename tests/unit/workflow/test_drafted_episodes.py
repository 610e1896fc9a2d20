"""Which episodes the labels of a task are drafted from, and which plans use them."""

import json

import pytest

from cuesheet.artifacts.layout import task_id
from cuesheet.errors import CuesheetError
from cuesheet.workflow.load import load_run
from cuesheet.workflow.vocabulary import (
    drafted_episodes,
    drafts_of,
    notice_of,
    task_called,
    vocabularies,
    vocabulary_of,
)

PUCK = "Pick and place a puck to a goal"


def load(demo_v3, repository, tmp_path, plan=None, **settings):
    raw = {"dataset": str(demo_v3), "plan": {"vocabulary": "auto", **(plan or {})}, **settings}
    raw.setdefault("corrections_dir", str(tmp_path / "corrections"))
    run = load_run(raw, repository, results_root=tmp_path / "results")
    return run.dataset("demo_v3"), run.config


def test_the_lowest_selected_episodes_of_each_task_are_drafted(demo_v3, repository, tmp_path):
    dataset, config = load(demo_v3, repository, tmp_path)
    tasks = drafted_episodes(dataset, config)
    assert tasks == {PUCK: [0, 3], "Open a drawer": [1], "Press a button from the top": [2]}
    dataset, config = load(demo_v3, repository, tmp_path, plan={"vocabulary_episodes": 1})
    assert drafted_episodes(dataset, config)[PUCK] == [0]
    dataset, config = load(demo_v3, repository, tmp_path, episodes=[3, 2])
    assert drafted_episodes(dataset, config) == {"Press a button from the top": [2], PUCK: [3]}


def test_all_plans_of_a_task_depend_on_one_file_and_its_drafts_on_no_plan(
    demo_v3, repository, tmp_path
):
    dataset, config = load(demo_v3, repository, tmp_path)
    (first,), (other,) = vocabulary_of(dataset, config, 0), vocabulary_of(dataset, config, 3)
    assert first == other == str(dataset.layout.vocabulary(task_id(PUCK)))
    assert first in vocabularies(dataset, config)
    assert len(vocabularies(dataset, config)) == 3
    drafts = drafts_of(dataset, config, task_id(PUCK))
    assert drafts == [str(dataset.layout.vocabulary_draft(index)) for index in (0, 3)]


def test_nothing_is_drafted_unless_it_is_asked_for(demo_v3, repository, tmp_path):
    for plan in ({"vocabulary": "off"}, {"enabled": False}, {"vocabulary": ["wave"]}):
        dataset, config = load(
            demo_v3, repository, tmp_path, plan=plan, interjections={"enabled": False}
        )
        assert drafted_episodes(dataset, config) == {}
        assert vocabulary_of(dataset, config, 0) == []


def test_a_corrected_plan_does_not_depend_on_the_labels_but_is_drafted(
    demo_v3, repository, tmp_path
):
    folder = tmp_path / "corrections/demo_v3"
    folder.mkdir(parents=True)
    spans = [{"start_s": 0.0, "end_s": 7.5, "label": "do what a person wrote"}]
    content = {"format": 1, "dataset": "demo_v3", "episode_index": 0, "subtasks": spans}
    (folder / "000000.json").write_text(json.dumps(content))
    dataset, config = load(demo_v3, repository, tmp_path)
    assert vocabulary_of(dataset, config, 0) == []
    assert vocabulary_of(dataset, config, 3) != []
    assert drafted_episodes(dataset, config)[PUCK] == [0, 3]


@pytest.mark.parametrize(
    ("rule", "expected"), [("decode_keyframes", [3]), ("annotate_vqa", [0, 3])]
)
def test_only_an_episode_without_frames_is_not_drafted(
    demo_v3, repository, tmp_path, rule, expected
):
    record = tmp_path / f"results/demo_v3/failed/{rule}/000000.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"error": "broken", "log": "x.log"}))
    dataset, config = load(
        demo_v3, repository, tmp_path, output={"on_missing": "leave_unannotated"}
    )
    assert dataset.left_out == {0}
    assert drafted_episodes(dataset, config)[PUCK] == expected


def test_an_unknown_task_is_one_line(demo_v3, repository, tmp_path):
    dataset, config = load(demo_v3, repository, tmp_path)
    assert task_called(dataset, task_id(PUCK)) == PUCK
    with pytest.raises(CuesheetError, match="has no task called open-a-drawer; did you mean"):
        task_called(dataset, "open-a-drawer")
    dataset, config = load(demo_v3, repository, tmp_path, episodes=[1])
    with pytest.raises(CuesheetError, match="no labels are drafted for the task 'Pick and"):
        drafts_of(dataset, config, task_id(PUCK))


def test_a_notice_counts_the_episodes_without_a_task(demo_v3, repository, tmp_path, monkeypatch):
    dataset, config = load(demo_v3, repository, tmp_path)
    assert notice_of(dataset, config) is None
    monkeypatch.setattr("cuesheet.workflow.vocabulary.is_placeholder", lambda task: task == PUCK)
    assert notice_of(dataset, config).startswith("plan.vocabulary is auto, but 2 of 4 episodes")
    assert PUCK not in drafted_episodes(dataset, config)
    assert vocabulary_of(dataset, config, 0) == []
