"""Keyframe images on a node's local disk while the job of a shard runs there.

`keyframes/{episode}/` then holds keyframes.json and one link per camera. The links are removed when
the job ends; later stages that need the images decode them again.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from cuesheet.artifacts.layout import KEYFRAMES_FILE, Layout
from cuesheet.errors import SurroundingsError
from cuesheet.files import read_json, replacing_folder

# Environment variable of the jobs of a shard: the folder for its images.
SCRATCH_VARIABLE = "CUESHEET_SCRATCH"


def resolve(setting: str) -> Path:
    """Return the folder of the setting on this node; raise SurroundingsError if it is missing."""
    named = os.path.expanduser(os.path.expandvars(setting))
    if not os.path.isdir(named):
        raise SurroundingsError(
            f"cluster.scratch: {setting} is {named} on this node, which is not a folder; name one "
            "that every node has, or null"
        )
    return Path(named)


def local_folder(folder: Path | str, dataset: str) -> Path | None:
    """Return the local folder for an episode's keyframes; None if there is no scratch disk."""
    scratch = os.environ.get(SCRATCH_VARIABLE)
    return Path(scratch) / dataset / Path(folder).name if scratch else None


def link_images(local: Path, folder: Path | str) -> None:
    """Create `folder` atomically with keyframes.json of `local` and links to its cameras."""
    with replacing_folder(Path(folder)) as partial:
        for entry in local.iterdir():
            if entry.is_dir():
                (partial / entry.name).symlink_to(entry.absolute(), target_is_directory=True)
            else:
                shutil.copyfile(entry, partial / entry.name)


def unlink_images(results: Path, episodes: Iterable[int]) -> None:
    """Remove the links of these episodes and keep keyframes.json."""
    for index in episodes:
        for link in _links(Layout(results).keyframes(index)):
            link.unlink()


def remove_without_images(results: Path, episodes: Iterable[int]) -> None:
    """Remove keyframes folders whose images are missing, so that they are decoded again."""
    for index in episodes:
        folder = Layout(results).keyframes(index)
        if _links(folder) or not _has_images(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _has_images(folder: Path) -> bool:
    cameras = read_json(folder / KEYFRAMES_FILE).get("cameras")
    return cameras is not None and all((folder / camera).is_dir() for camera in cameras)


def _links(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_symlink()] if folder.is_dir() else []
