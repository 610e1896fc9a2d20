"""Puts the annotated dataset together around its data files, and checks it.

The source is only read. Metadata is copied, info.json extended, videos linked or copied. Files are
made under another name and renamed, so nothing is ever written through a link of an earlier run.
"""

import copy
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuesheet.artifacts.language import LANGUAGE_COLUMNS, LANGUAGE_FEATURE, SAY_TOOL, STALE_COLUMNS
from cuesheet.dataset.metadata import Dataset
from cuesheet.errors import CuesheetError
from cuesheet.files import atomic_path, write_json

# Of a download or a checkout, no part of the dataset.
_NOT_DATASET = frozenset({".git", ".cache", ".snakemake", "__pycache__"})
_WAYS = {"hardlink": ("hardlink", "symlink", "copy"), "symlink": ("symlink", "copy")}

Progress = Callable[[list[Path]], Iterator[Path]]


@dataclass
class Placed:
    """How many files were made in which way, and what the person should know."""

    counts: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def add(self, way: str) -> None:
        self.counts[way] = self.counts.get(way, 0) + 1


def finalize_dataset(
    dataset: Dataset, annotated: Path, videos: str, progress: Progress = iter
) -> Placed:
    """Completes `annotated`, whose data files are there, to a whole dataset.

    Args:
        dataset: the source.
        annotated: the folder of the annotated dataset.
        videos: "hardlink", "symlink" or "copy". A link that the file system refuses becomes a
            symlink, then a copy, with a notice.
        progress: wraps the video files to show progress, as `tqdm` does.

    Raises:
        CuesheetError: one folder lies in the other, or a file cannot be read or made.
    """
    source, target = prepare(dataset, annotated)
    placed = Placed()
    kept: set[Path] = {Path(data_file) for data_file in dataset.data_files}
    linked: list[Path] = []
    for path in _files(source):
        if path.parts[0] == "data":
            continue
        kept.add(path)
        if path.parts[0] == "meta" or len(path.parts) == 1:
            if path != Path("meta/info.json"):
                _place(source / path, target / path, "copy", placed)
        else:
            linked.append(path)
    for path in progress(linked):
        _place(source / path, target / path, videos, placed)
    publish(target, kept, extended_info(dataset.info))
    return placed


def prepare(dataset: Dataset, annotated: Path) -> tuple[Path, Path]:
    """The resolved folders of source and output, the latter without links to folders.

    Raises CuesheetError where one lies in the other.
    """
    source, target = dataset.root.resolve(), annotated.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise CuesheetError(
            f"The source {source} and the output {target} lie in one another; nothing may be "
            "written into the source. Choose another folder for the results."
        )
    _remove_linked_folders(target)
    return source, target


def copy_other_files(dataset: Dataset, annotated: Path, without: Collection[Path]) -> set[Path]:
    """Copies what is neither data nor video, `without` and info.json apart; returns the files."""
    source, target = dataset.root.resolve(), annotated.resolve()
    skipped = {*without, Path("meta/info.json")}
    copied = {
        path
        for path in _files(source)
        if path.parts[0] not in ("data", "videos") and path not in skipped
    }
    for path in sorted(copied):
        _place(source / path, target / path, "copy", Placed())
    return copied


def publish(target: Path, kept: set[Path], info: dict[str, Any]) -> None:
    """Removes what is not `kept`, and writes info.json last: its presence means a whole dataset."""
    _remove_others(target, kept)
    write_json(target / "meta" / "info.json", info)


def extended_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """info.json of the annotated dataset: every key kept in its place, known or not.

    The language columns are added to `features`, `say` to `tools`; features of columns that the
    merge drops go.
    """
    extended = copy.deepcopy(dict(info))
    dropped = {*LANGUAGE_COLUMNS, *STALE_COLUMNS}
    features = {k: v for k, v in extended["features"].items() if k not in dropped}
    features |= {name: copy.deepcopy(dict(LANGUAGE_FEATURE)) for name in LANGUAGE_COLUMNS}
    extended["features"] = features
    tools = extended.get("tools")
    if tools is None:
        tools = []
    if not isinstance(tools, list):
        raise CuesheetError(
            f"meta/info.json has 'tools' of type {type(tools).__name__}; expected a list of "
            "function tools."
        )
    if not any(_tool_name(tool) == "say" for tool in tools):
        tools = [*tools, copy.deepcopy(dict(SAY_TOOL))]
    extended["tools"] = tools
    return extended


def _tool_name(tool: Any) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _files(folder: Path) -> list[Path]:
    """Every file below a folder, relative to it, in order; links to folders are followed."""
    found: list[Path] = []
    visited: set[Path] = set()
    for directory, names, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = Path(directory).resolve()
        if real in visited:  # a link that leads back up
            names.clear()
            continue
        visited.add(real)
        names[:] = [name for name in names if name not in _NOT_DATASET]
        relative = Path(directory).relative_to(folder)
        found += [relative / name for name in files if name not in _NOT_DATASET]
    return sorted(found)


def _raise(error: OSError) -> None:
    raise CuesheetError(f"{error.filename} cannot be read: {error.strerror}.")


def _place(source: Path, target: Path, way: str, placed: Placed) -> None:
    """Makes `target` a link to, or a copy of, the file that `source` is or leads to."""
    real = source.resolve()
    if not real.is_file():
        raise CuesheetError(
            f"{source} is a broken link (to {real}); download or restore the file, then run again."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    ways = _WAYS.get(way, ("copy",))
    for number, attempt in enumerate(ways):
        try:
            if not _is_placed(real, target, attempt):
                _make(real, target, attempt)
        except OSError as error:
            if attempt == ways[-1]:
                raise CuesheetError(f"{target} cannot be made: {error.strerror}.") from None
            notice = (
                f"No {attempt} from {target.parent} to {real.parent} ({error.strerror}): "
                f"{ways[number + 1]} instead."
            )
            if notice not in placed.notices:
                placed.notices.append(notice)
        else:
            placed.add(attempt)
            return


def _is_placed(real: Path, target: Path, way: str) -> bool:
    if way == "symlink":
        return target.is_symlink() and os.readlink(target) == str(real)
    if target.is_symlink() or not target.is_file():
        return False
    if way == "hardlink":
        return target.samefile(real)
    ours, theirs = target.stat(), real.stat()
    same = (ours.st_size, ours.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns)
    return same and not target.samefile(real)


def _make(real: Path, target: Path, way: str) -> None:
    """Makes the file under another name and renames it; on an error nothing is left."""
    if way == "copy":
        with atomic_path(target) as temporary:
            shutil.copyfile(real, temporary)
            status = real.stat()
            os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.link")
    temporary.unlink(missing_ok=True)
    try:
        if way == "hardlink":
            os.link(real, temporary)
        else:
            os.symlink(real, temporary)
        os.replace(temporary, target)
    finally:
        # Renaming a hard link onto another name of the same file does nothing and leaves it.
        temporary.unlink(missing_ok=True)


def _remove_linked_folders(target: Path) -> None:
    """Removes links to folders, below which a file made here would lie somewhere else."""
    for directory, names, _ in os.walk(target):
        for name in names:
            path = Path(directory) / name
            if path.is_symlink():
                path.unlink()


def _remove_others(target: Path, kept: set[Path]) -> None:
    """Removes files of earlier runs that the dataset no longer has, and folders left empty."""
    for directory, _, files in os.walk(target, topdown=False):
        for name in files:
            path = Path(directory) / name
            is_marker = name.startswith(".snakemake")
            if path.relative_to(target) not in kept and not is_marker:
                path.unlink()
        if Path(directory) != target and not os.listdir(directory):
            os.rmdir(directory)
