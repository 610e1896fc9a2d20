"""Files of the source that a run needs, checked before its first job."""

import shutil
from pathlib import Path

import pytest

from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError
from cuesheet.workflow.run_dataset import RunDataset

FRONT, WRIST = "observation.images.front", "observation.images.wrist"


@pytest.fixture
def v21(demo_v21, tmp_path) -> Path:
    """Without the second camera's video of episode 3."""
    root = shutil.copytree(demo_v21, tmp_path / "demo_v21")
    (root / f"videos/chunk-000/{WRIST}/episode_000003.mp4").unlink()
    return root


def dataset_of(root: Path, episodes: list[int], cameras: list[str], output_format: str):
    source = read_dataset(root, "d").with_cameras(cameras)
    return RunDataset("d", source, episodes, FRONT, cameras, root, output_format=output_format)


@pytest.mark.parametrize(
    ("episodes", "cameras"), [([0, 1], [FRONT, WRIST]), ([0, 3], [FRONT])], ids=str
)
def test_files_of_other_episodes_and_cameras_may_be_missing(v21, episodes, cameras):
    dataset_of(v21, episodes, cameras, "source").check_files()


def test_a_missing_video_of_a_selected_episode_is_named(v21):
    with pytest.raises(CuesheetError, match=r"episode_000003.mp4, needed by episode 3"):
        dataset_of(v21, [0, 3], [FRONT, WRIST], "source").check_files()


def test_a_conversion_needs_the_files_of_all_episodes_and_cameras(v21):
    with pytest.raises(CuesheetError, match=r"episode_000003.mp4(.|\n)*set output.format to"):
        dataset_of(v21, [0], [FRONT], "v3.0").check_files()
