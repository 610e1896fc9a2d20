"""Completes the annotated dataset around its data files.

The source is only read. Metadata is copied, info.json extended, videos linked or copied.
Invariants: every file is created under another name and renamed, so nothing is ever written through
a link of an earlier run; info.json is written last, so its presence means that the dataset is
complete.
"""

import copy
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuesheet.artifacts.language import (
    LANGUAGE_COLUMNS,
    LANGUAGE_FEATURE,
    SAY_TOOL,
    STALE_COLUMNS,
    SUBTASK_COLUMN,
    SUBTASK_FEATURE,
)
from cuesheet.assemble import subtask_numbers
from cuesheet.dataset.metadata import Dataset
from cuesheet.dataset.source_files import find_source_files
from cuesheet.errors import CuesheetError
from cuesheet.files import atomic_path, private_path, write_json

_WAYS = {"hardlink": ("hardlink", "symlink", "copy"), "symlink": ("symlink", "copy")}

Progress = Callable[[list[Path]], Iterator[Path]]


@dataclass
class Placed:
    """How many files were created in which way, and notices for the user."""

    counts: Counter[str] = field(default_factory=Counter)
    notices: list[str] = field(default_factory=list)


def finalize_dataset(
    dataset: Dataset,
    annotated: Path,
    videos: str,
    extra_files: Sequence[str] = (),
    progress: Progress = iter,
    subtasks: Path | None = None,
) -> Placed:
    """Add everything but the data files, which exist already, to the annotated dataset.

    If the file system does not support the links that `videos` names ("hardlink", "symlink" or
    "copy"), a symlink is tried next, then a copy, with a notice. `extra_files` are patterns of
    files to take over that the LeRobot format does not define, `subtasks` is the table of the
    column subtask_index, if the data files have it. `progress` wraps the linked files, as `tqdm`
    does.

    Raises CuesheetError if one folder is inside the other, a link leads out of the source, or a
    file cannot be read or created.
    """
    source, target = prepare(dataset, annotated)
    placed = Placed()
    kept: set[Path] = {Path(data_file) for data_file in dataset.data_files}
    linked: list[Path] = []
    if subtasks is not None:
        kept.add(Path(subtask_numbers.TABLE))
        _place(subtasks, target / subtask_numbers.TABLE, "copy", placed)
    for path in find_source_files(source, extra_files).taken_over:
        if path in kept:
            continue
        kept.add(path)
        if path.parts[0] == "meta" or len(path.parts) == 1:
            if path != Path("meta/info.json"):
                _place(source / path, target / path, "copy", placed)
        else:
            linked.append(path)
    for path in progress(linked):
        _place(source / path, target / path, videos, placed)
    publish(target, kept, annotated_info(dataset, subtasks is not None))
    return placed


def check_source(dataset: Dataset, extra_files: Sequence[str] = ()) -> list[str]:
    """Check what `finalize_dataset` will take over, before any other work; return notices.

    Raises CuesheetError as `find_source_files` and `annotated_info` do.
    """
    annotated_info(dataset)
    left_out = find_source_files(dataset.root, extra_files).left_out
    if not left_out:
        return []
    shown = ", ".join(path.as_posix() for path in left_out[:3])
    more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    return [
        f"{shown}{more} will not be in the annotated dataset, because the LeRobot format does not "
        "define such files; name them in output.extra_files to copy them."
    ]


def prepare(dataset: Dataset, annotated: Path) -> tuple[Path, Path]:
    """Return the resolved folders of source and output; remove links to folders in the output.

    Raises CuesheetError if one is inside the other.
    """
    source, target = dataset.root.resolve(), annotated.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise CuesheetError(
            f"The source {source} and the output {target} contain one another, but nothing may be "
            "written into the source. Choose another folder for the results."
        )
    _remove_linked_folders(target)
    return source, target


def copy_other_files(
    dataset: Dataset, annotated: Path, excluded: Collection[Path], extra_files: Sequence[str]
) -> set[Path]:
    """Copy all files but data, videos, info.json and `excluded`; return the paths of the copies."""
    source, target = dataset.root.resolve(), annotated.resolve()
    skipped = {*excluded, Path("meta/info.json")}
    copied = {
        path
        for path in find_source_files(source, extra_files).taken_over
        if path.parts[0] != "videos" and path not in skipped
    }
    for path in sorted(copied):
        _place(source / path, target / path, "copy", Placed())
    return copied


def publish(target: Path, kept: set[Path], info: dict[str, Any]) -> None:
    """Remove all files that are not in `kept`, then write info.json."""
    _remove_others(target, kept)
    write_json(target / "meta" / "info.json", info)


def annotated_info(dataset: Dataset, has_subtask_index: bool = False) -> dict[str, Any]:
    """Return info.json of the annotated dataset, as `extended_info` does, with correct totals.

    A recorder that crashed leaves totals and splits that count episodes without metadata.
    """
    info = extended_info(dataset.info, has_subtask_index)
    totals = {
        "total_episodes": len(dataset.episodes),
        "total_frames": sum(episode.length for episode in dataset.episodes),
    }
    splits = info.get("splits")
    if isinstance(splits, dict) and splits.get("train") == f"0:{info.get('total_episodes')}":
        info["splits"] = {**splits, "train": f"0:{totals['total_episodes']}"}
    return info | {key: value for key, value in totals.items() if key in info}


def extended_info(info: Mapping[str, Any], has_subtask_index: bool = False) -> dict[str, Any]:
    """Return info.json of the annotated dataset: every key stays in its place, known or not.

    The language columns are added to `features` and `say` to `tools`; features of columns that the
    merge drops are removed. Raises CuesheetError if `tools` is not a list.
    """
    extended = copy.deepcopy(dict(info))
    dropped = {*LANGUAGE_COLUMNS, *STALE_COLUMNS}
    features = {k: v for k, v in extended["features"].items() if k not in dropped}
    if has_subtask_index:
        features[SUBTASK_COLUMN] = dict(SUBTASK_FEATURE)
    features |= {name: copy.deepcopy(dict(LANGUAGE_FEATURE)) for name in LANGUAGE_COLUMNS}
    extended["features"] = features
    tools = extended.get("tools")
    if tools is None:
        tools = []
    if not isinstance(tools, list):
        raise CuesheetError(
            f"meta/info.json has 'tools' of the type {type(tools).__name__}; expected a list of "
            "function tools."
        )
    if not any(_tool_name(tool) == "say" for tool in tools):
        tools = [*tools, copy.deepcopy(dict(SAY_TOOL))]
    extended["tools"] = tools
    return extended


def _tool_name(tool: Any) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _place(source: Path, target: Path, way: str, placed: Placed) -> None:
    """Make `target` a link to or a copy of the file `source`, which may be a link itself."""
    real = source.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    ways = _WAYS.get(way, ("copy",))
    for number, attempt in enumerate(ways):
        try:
            if not _is_placed(real, target, attempt):
                _make(real, target, attempt)
        except OSError as error:
            if attempt == ways[-1]:
                raise CuesheetError(f"{target} cannot be created: {error.strerror}.") from None
            notice = (
                f"{target.parent} cannot have a {attempt} to {real.parent} ({error.strerror}): a "
                f"{ways[number + 1]} is used instead."
            )
            if notice not in placed.notices:
                placed.notices.append(notice)
        else:
            placed.counts[attempt] += 1
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
    """Create the file under another name and rename it; nothing remains after an error."""
    if way == "copy":
        with atomic_path(target) as temporary:
            shutil.copyfile(real, temporary)
            status = real.stat()
            os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
        return
    temporary = private_path(target)
    try:
        if way == "hardlink":
            os.link(real, temporary)
        else:
            os.symlink(real, temporary)
        os.replace(temporary, target)
    finally:
        # Renaming a hard link onto another name of the same file does nothing.
        temporary.unlink(missing_ok=True)


def _remove_linked_folders(target: Path) -> None:
    """Remove links to folders: a file created below one would be in another folder."""
    for directory, names, _ in os.walk(target):
        for name in names:
            path = Path(directory) / name
            if path.is_symlink():
                path.unlink()


def _remove_others(target: Path, kept: set[Path]) -> None:
    """Remove files that are not in `kept` (of earlier runs), and empty folders."""
    for directory, _, files in os.walk(target, topdown=False):
        for name in files:
            path = Path(directory) / name
            is_marker = name.startswith(".snakemake")
            if path.relative_to(target) not in kept and not is_marker:
                path.unlink()
        if Path(directory) != target and not os.listdir(directory):
            os.rmdir(directory)
