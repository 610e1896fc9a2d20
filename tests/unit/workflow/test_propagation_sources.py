"""Which files a plan may learn from: corrections and metadata decide, not what is finished."""

from dataclasses import replace
from pathlib import Path

import pytest
from dataset_variants import copy, edit_info

from cuesheet.artifacts.corrections import Correction
from cuesheet.config.models import Config
from cuesheet.dataset.metadata import read_dataset
from cuesheet.workflow.propagation import (
    has_recording,
    recording_of,
    reference_files,
    references_of,
    shared_files,
    shared_references,
)
from cuesheet.workflow.run import RunDataset


def config(**plan: object) -> Config:
    return Config.model_validate({"dataset": "demo_v3", "plan": plan})


@pytest.fixture
def dataset(demo_v3: Path, tmp_path: Path) -> RunDataset:
    """The demo, whose episodes 0 and 3 have the same task; episode 0 is corrected."""
    correction = Correction.model_validate(
        {
            "format": 1,
            "dataset": "demo_v3",
            "episode_index": 0,
            "subtasks": [{"start_s": 0.0, "label": "pick up the puck"}],
        }
    )
    source = read_dataset(demo_v3, "demo_v3")
    found = RunDataset("demo_v3", source, [0, 1, 2, 3], "front", [], tmp_path)
    return replace(found, corrections={0: correction}, results_root=Path("results"))


def test_an_episode_learns_from_corrected_ones_of_its_task(dataset: RunDataset) -> None:
    found = references_of(dataset, config(propagate="apply"), 3)
    assert [(one["episode"], bool(one["spans"])) for one in found] == [
        (0, True), (1, False), (2, False)
    ]  # fmt: skip
    assert reference_files(dataset, config(propagate="apply"), 3) == [
        f"results/demo_v3/signals/00000{number}.json" for number in (0, 1, 2)
    ]


@pytest.mark.parametrize("episode", [0, 1, 2])
def test_corrected_episodes_and_other_tasks_learn_nothing(
    dataset: RunDataset, episode: int
) -> None:
    assert references_of(dataset, config(propagate="suggest"), episode) == []


def test_nothing_is_carried_over_unless_it_is_on(dataset: RunDataset) -> None:
    assert references_of(dataset, config(), 3) == []
    assert shared_files(dataset, config(), [0, 3]) == ["results/demo_v3/signals/layout.json"]


def test_shards_share_the_layout_and_the_references(dataset: RunDataset) -> None:
    settings = config(propagate="apply")
    assert shared_files(dataset, settings, [1, 3]) == [
        "results/demo_v3/signals/layout.json",
        *(f"results/demo_v3/signals/00000{number}.json" for number in (0, 1, 2)),
    ]
    assert [one["episode"] for one in shared_references(dataset, settings, [3])] == [0, 1, 2]
    assert shared_references(dataset, settings, [0, 1, 2]) == []


def test_without_a_state_keyframes_take_its_place(
    dataset: RunDataset, demo_v3: Path, tmp_path: Path
) -> None:
    source = copy(demo_v3, tmp_path / "blind")
    features = dataset.source.info["features"]
    kept = {name: one for name, one in features.items() if "images" in name or "_" in name}
    kept.pop("observation.state", None)
    edit_info(source, features={**kept, "timestamp": features["timestamp"]})
    blind = replace(dataset, source=read_dataset(source, "demo_v3"))
    settings = config(propagate="apply")
    assert not has_recording(blind, settings)
    assert recording_of(blind, settings, 3) == []
    assert reference_files(blind, settings, 3)[0] == "results/demo_v3/keyframes/000000"
