"""Which arms and grippers a dataset has, and when that is decided again."""

from pathlib import Path

import pytest
from dataset_variants import copy, edit_info, keep_episodes

from cuesheet.app import cli
from cuesheet.artifacts.signals_file import SignalsLayout
from cuesheet.config.signals import SignalsConfig
from cuesheet.dataset.index import make_index
from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError
from cuesheet.files import write_json
from cuesheet.signals.detect import detect
from cuesheet.workflow.run_dataset import RunDataset


def run_dataset(root: Path, results: Path) -> RunDataset:
    source = read_dataset(root, "robot")
    selected = [episode.episode_index for episode in source.episodes]
    return RunDataset("robot", source, selected, None, [], results, results_root=results)


def start(root: Path, results: Path, settings: SignalsConfig) -> RunDataset:
    """The first run of a dataset: index and layout are made."""
    dataset = run_dataset(root, results)
    make_index(dataset.layout.index, dataset.source, dataset.selected)
    found = detect(root, dataset.layout.index, "robot", **settings.detection)
    write_json(dataset.layout.signals_layout, found.model_dump())
    return dataset


def test_a_layout_is_kept_when_episodes_are_added(demo_v3: Path, tmp_path: Path) -> None:
    source = copy(demo_v3, tmp_path / "grows")
    keep_episodes(source, 2)
    settings = SignalsConfig()
    path = start(source, tmp_path / "results", settings).layout.signals_layout
    before = path.read_bytes()
    grown = run_dataset(demo_v3, tmp_path / "results")
    assert grown.refresh_index()
    grown.refresh_signals_layout(settings, source_changed=True)
    assert path.read_bytes() == before
    assert SignalsLayout.read(path).sampled_episodes == [0, 1]


def test_another_gripper_setting_is_detected_at_once(demo_v3: Path, tmp_path: Path) -> None:
    dataset = start(demo_v3, tmp_path, SignalsConfig())
    path = dataset.layout.signals_layout
    assert [one.found_by for one in SignalsLayout.read(path).grippers] == ["names"]
    none = SignalsConfig(gripper="none")
    dataset.refresh_signals_layout(none, source_changed=False)
    assert SignalsLayout.read(path).grippers == []
    before = path.stat().st_mtime_ns
    dataset.refresh_signals_layout(none, source_changed=False)
    assert path.stat().st_mtime_ns == before


def test_a_gripper_that_only_new_episodes_show_is_reported(
    demo_v3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = SignalsConfig()
    dataset = start(demo_v3, tmp_path, settings)
    path = dataset.layout.signals_layout
    without_grippers = SignalsLayout.read(path).model_copy(update={"grippers": []})
    write_json(path, without_grippers.model_dump())
    dataset.refresh_signals_layout(settings, source_changed=True)
    assert [one.name for one in SignalsLayout.read(path).grippers] == ["gripper"]
    assert "The next run measures all episodes again" in capsys.readouterr().err


def test_a_gripper_that_does_not_exist_names_the_dimensions(demo_v3: Path, tmp_path: Path) -> None:
    with pytest.raises(CuesheetError, match=r"no dimension 'griper'; did you mean 'gripper'"):
        start(demo_v3, tmp_path, SignalsConfig(gripper=["griper"]))


def test_an_unreadable_state_is_a_notice(demo_v3: Path, tmp_path: Path) -> None:
    """The metadata names a column that the data files do not have."""
    source = copy(demo_v3, tmp_path / "broken")
    info = read_dataset(source, "robot").info
    extra = {"dtype": "float32", "shape": [3], "names": None}
    edit_info(source, features={**info["features"], "observation.extra": extra})
    dataset = start(source, tmp_path, SignalsConfig(state=["observation.extra"]))
    layout = SignalsLayout.read(dataset.layout.signals_layout)
    assert (layout.state, layout.action, layout.grippers, layout.arms) == ([], [], [], [])
    assert "no column observation.extra" in layout.notices[0]


def test_the_command_shows_what_was_found(
    demo_v3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["signals", str(demo_v3)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "demo_v3: 11 dimensions of state, 4 of action, 4 episodes sampled"
    assert lines[1].startswith("  gripper: state gripper_open, action gripper, found by its name")
    assert lines[1].endswith("(3, 0, 1, 3)")
    assert cli.main(["signals", str(demo_v3), "--gripper", "claw"]) == 1
    assert "the dataset has no dimension 'claw'" in capsys.readouterr().err
