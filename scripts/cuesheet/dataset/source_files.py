"""The files of a source dataset, other than data files, that the annotated dataset contains too.

A dataset is not trusted, and the annotated dataset may be uploaded: only files that the LeRobot
format defines and files that the user names are copied, and no link may lead out of the dataset.
"""

import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuesheet.errors import CuesheetError
from cuesheet.files import is_inside

# Folders of a download, a checkout or a run, which are not part of the dataset.
_IGNORED = frozenset({".git", ".cache", ".snakemake", "__pycache__", ".gitattributes"})
_TOP_LEVEL = ("README.md", "LICENSE*")
_SUFFIXES = {
    "data": {".parquet"},
    "meta": {".json", ".jsonl", ".parquet"},
    "videos": {".mp4", ".mov", ".mkv", ".webm", ".avi"},
    "images": {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"},
}


@dataclass(frozen=True)
class SourceFiles:
    """Paths relative to the dataset's root, sorted."""

    taken_over: tuple[Path, ...]  # without data files
    left_out: tuple[Path, ...]


def find_source_files(root: Path, extra_files: Sequence[str] = ()) -> SourceFiles:
    """Find the files of a dataset that the annotated dataset contains too.

    `extra_files` are patterns of further files, relative to `root`; `*` also matches `/`. Raises
    CuesheetError if an entry is a broken link, a link out of the dataset, a loop of links, or
    neither a file nor a folder, or if a folder cannot be read.
    """
    taken_over: list[Path] = []
    left_out: list[Path] = []
    for path in _walk(root):
        if path.parts[0] == "data" and is_format_file(path):
            continue
        named = any(fnmatch.fnmatchcase(path.as_posix(), pattern) for pattern in extra_files)
        (taken_over if named or is_format_file(path) else left_out).append(path)
    return SourceFiles(tuple(sorted(taken_over)), tuple(sorted(left_out)))


def is_format_file(path: Path) -> bool:
    """Return whether the LeRobot format defines a file; `path` is relative to the root."""
    if len(path.parts) == 1:
        return any(fnmatch.fnmatchcase(path.name, pattern) for pattern in _TOP_LEVEL)
    return path.suffix.lower() in _SUFFIXES.get(path.parts[0], ())


def _walk(root: Path) -> Iterator[Path]:
    """Yield every file below `root`, relative to it. Links to folders inside are followed."""
    folders = [(Path(), frozenset((root.resolve(),)))]
    while folders:
        folder, above = folders.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError as error:
            raise CuesheetError(f"{error.filename} cannot be read: {error.strerror}.") from None
        for entry in entries:
            if entry.name in _IGNORED:
                continue
            path = folder / entry.name
            if _is_folder(entry, root):
                real = Path(entry.path).resolve()
                if real in above:
                    raise CuesheetError(f"{root / path} is a link to a folder that contains it.")
                folders.append((path, above | {real}))
            else:
                yield path


def _is_folder(entry: os.DirEntry[str], root: Path) -> bool:
    """Return whether an entry is a folder and not a file; raise CuesheetError for anything else."""
    if entry.is_symlink():
        try:
            target = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):
            raise CuesheetError(
                f"{entry.path} is a broken link (to {os.readlink(entry.path)}); download or "
                "restore the file, then run again."
            ) from None
        if not is_inside(root, target):
            raise CuesheetError(
                f"{entry.path} is a link to {target}, outside the dataset {root}. Links out of a "
                "dataset are not followed; replace it by the file or folder itself, or remove it."
            )
    mode = entry.stat().st_mode
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise CuesheetError(
            f"{entry.path} is neither a file nor a folder (a pipe, socket or device); remove it."
        )
    return stat.S_ISDIR(mode)
