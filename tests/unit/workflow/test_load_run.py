"""The checks of a configuration against its datasets."""

import shutil
from pathlib import Path

import pytest

from cuesheet.errors import CuesheetError
from cuesheet.workflow.load import load_run


def test_errors_of_several_settings_are_reported_together(repository: Path, demo_v3: Path):
    raw = {
        "dataset": {
            "first": {"path": str(demo_v3), "default_camera": "observation.images.top"},
            "second": {"path": str(demo_v3), "episodes": [9], "prompts_dir": "/no/prompts"},
            "third": {"path": "/no/such/folder", "prompts_dir": "/nor/here"},
        },
        "vlm": {"serve": "managed"},
        "evaluate": {"reference": {"first": "/no/truth.csv"}},
    }
    with pytest.raises(CuesheetError) as caught:
        load_run(raw, repository)
    text = str(caught.value)
    for part in (
        "the dataset has no camera observation.images.top",
        "second has no episode 9",
        "/no/prompts",
        "there is no folder /no/such/folder",
        "/nor/here",
        "serve is managed but model is not set",
        "/no/truth.csv does not exist",
    ):
        assert text.count(part) == 1, text


def test_an_unknown_dataset_names_the_nearest(repository: Path, demo_v3: Path):
    with pytest.raises(CuesheetError, match=r"did you mean demo_v3\?"):
        load_run({"dataset": str(demo_v3)}, repository).dataset("demo_v2")


def test_an_address_of_another_form_is_rejected_with_the_expected_one(repository: Path):
    with pytest.raises(CuesheetError, match="expected hf://datasets/user/name"):
        load_run({"dataset": "hf://someone/demo"}, repository)


def test_a_brace_in_the_path_of_a_dataset_is_one_line(
    repository: Path, demo_v3: Path, tmp_path: Path
):
    source = tmp_path / "{x}" / "demo"
    shutil.copytree(demo_v3, source)
    with pytest.raises(CuesheetError, match="contains a brace") as caught:
        load_run({"dataset": str(source)}, repository)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_spelling_of_a_dataset_in_the_working_directory_is_the_same(
    repository: Path, demo_v3: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(repository)
    roots = {
        load_run({"dataset": spelling}, repository).dataset("demo_v3").root
        for spelling in (str(demo_v3), "data/demo_v3", "./data/../data/demo_v3/")
    }
    assert roots == {Path("data/demo_v3")}


def test_a_dataset_elsewhere_keeps_its_absolute_path(
    repository: Path, demo_v3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert load_run({"dataset": str(demo_v3)}, repository).dataset("demo_v3").root == demo_v3
