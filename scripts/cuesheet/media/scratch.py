"""Pictures of keyframes on a node's own disk, while the job of a shard works there.

`keyframes/{episode}/` then holds keyframes.json and a link for each camera. The links end with the
job; what needs the pictures again has them decoded again.
"""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from cuesheet.artifacts.layout import KEYFRAMES_FILE, Layout
from cuesheet.errors import SurroundingsError

# Environment of the steps of a shard: the folder for its pictures.
SCRATCH_VARIABLE = "CUESHEET_SCRATCH"


def resolve(setting: str) -> Path:
    """The folder that the setting names on this node. Raises SurroundingsError without one."""
    named = os.path.expanduser(os.path.expandvars(setting))
    if not os.path.isdir(named):
        raise SurroundingsError(
            f"cluster.scratch: {setting} is {named} on this node, which is not a folder; name one "
            "that every node has, or null"
        )
    return Path(named)


def place_of_pictures(folder: Path | str, dataset: str) -> Path | None:
    """Where the keyframes folder of an episode is made instead; None if it is made in place."""
    scratch = os.environ.get(SCRATCH_VARIABLE)
    return Path(scratch) / dataset / Path(folder).name if scratch else None


def link_pictures(made: Path, folder: Path | str) -> None:
    """Put keyframes.json of `made` into `folder`, and links to its cameras; whole or not at all."""
    target = Path(folder)
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for entry in made.iterdir():
        if entry.is_dir():
            (partial / entry.name).symlink_to(entry.absolute(), target_is_directory=True)
        else:
            shutil.copyfile(entry, partial / entry.name)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)


def unlink_pictures(results: Path, episodes: Iterable[int]) -> None:
    """Remove the links of these episodes; keyframes.json stays."""
    for index in episodes:
        for link in _links(Layout(results).keyframes(index)):
            link.unlink()


def forget_without_pictures(results: Path, episodes: Iterable[int]) -> None:
    """Remove the keyframes folders whose pictures are gone, so that they are made again."""
    for index in episodes:
        folder = Layout(results).keyframes(index)
        if _links(folder) or not _has_pictures(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _has_pictures(folder: Path) -> bool:
    try:
        cameras = json.loads((folder / KEYFRAMES_FILE).read_bytes())["cameras"]
    except (OSError, ValueError, KeyError):
        return False
    return all((folder / camera).is_dir() for camera in cameras)


def _links(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_symlink()] if folder.is_dir() else []
