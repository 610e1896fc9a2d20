"""Atomic writes, temporary files, and JSON files."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuesheet.errors import DiskFullError

# Names of temporary files contain the machine and the process that writes them: see
# `remove_leftovers`.
_OWNER = re.sub(r"[^A-Za-z0-9_]", "_", socket.gethostname())
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
LONGEST_END_BYTES = 256 * 1024
_OWNER_HASH = hashlib.sha256(_OWNER.encode()).hexdigest()[:8]
_FOLDER = re.compile(r"\.?cuesheet-(?P<owner>[0-9a-f]{8})-(?P<pid>\d+)-.{8}")
_TEMPORARY = re.compile(r"\..+\.(?P<owner>[A-Za-z0-9_]+)-(?P<pid>\d+)\.[a-z0-9_]{8}(\.[^.]+)?")


@contextmanager
def atomic_path(path: Path | str, mode: int = 0o644, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to `path`; on success it is synced and renamed onto `path`.

    On an exception the temporary file is removed and `path` is not changed. Without `sync`, a file
    may be empty after a power failure; use it only for files that are re-created then.
    """
    with _replacing(Path(path)) as (handle, temporary):
        os.close(handle)
        yield temporary
        os.chmod(temporary, mode)
        if sync:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())


@contextmanager
def _replacing(target: Path) -> Iterator[tuple[int, Path]]:
    """Yield an open new file next to `target`, and its path; afterwards it replaces `target`.

    On an exception it is removed. The folder is created if it does not exist.
    """
    handle, name = _make_temporary(target)
    try:
        with naming_full_disk(target):
            yield handle, Path(name)
            os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _make_temporary(target: Path) -> tuple[int, str]:
    """Create a file that `remove_leftovers` knows next to `target`; make the folder if needed."""
    prefix = f".{target.stem}.{_OWNER}-{os.getpid()}."
    try:
        return tempfile.mkstemp(target.suffix, prefix, target.parent)
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.mkstemp(target.suffix, prefix, target.parent)


@contextmanager
def temporary_file(target: Path) -> Iterator[tuple[int, Path]]:
    """Yield an open new file next to `target`, and its path; it is removed afterwards."""
    handle, name = _make_temporary(target)
    try:
        yield handle, Path(name)
    finally:
        os.close(handle)
        Path(name).unlink(missing_ok=True)


def private_path(target: Path) -> Path:
    """Return a path next to `target` for a file that `remove_leftovers` removes with its owner."""
    name = f".{target.stem}.{_OWNER}-{os.getpid()}.{secrets.token_hex(4)}{target.suffix}"
    return target.with_name(name)


def declare(written: Path | str, output: Path | str) -> None:
    """Make `written` the declared output `output`.

    They are the same file, unless the run has a storage provider: then `output` is a copy.
    """
    if Path(written).absolute() != Path(output).absolute():
        with atomic_path(output) as copy:
            shutil.copyfile(written, copy)


def write_text(path: Path | str, text: str, mode: int = 0o644) -> None:
    """Write `text` (UTF-8) atomically."""
    # `atomic_path` would open the file two more times, and the cache writes one file per reply.
    with _replacing(Path(path)) as (handle, _), open(handle, "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fchmod(handle, mode)
        os.fsync(handle)


@contextmanager
def naming_full_disk(path: Path | str) -> Iterator[None]:
    """Turn the error of a full disk, which names no path, into one that names `path`."""
    try:
        yield
    except DiskFullError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        full = DiskFullError(
            f"{path} cannot be written: {os.strerror(error.errno).lower()}. Free space on the disk "
            "of this folder and run again; finished files are reused"
        )
        full.errno = error.errno
        raise full from None


def remove_leftovers(folder: Path) -> int:
    """Remove temporary files of `atomic_path` whose process has ended; return their number.

    A killed process leaves them behind. Files of other machines are not removed, because their
    processes cannot be seen from here, and neither are files whose process id is in use again.
    """
    import psutil  # here, because every job imports this module

    removed = 0
    for directory, names, files in os.walk(folder):
        names[:] = [name for name in names if name != "keyframes"]  # large, and without such files
        for name in files:
            match = _TEMPORARY.fullmatch(name)
            if match and match["owner"] == _OWNER and not psutil.pid_exists(int(match["pid"])):
                (Path(directory) / name).unlink(missing_ok=True)
                removed += 1
    return removed


def make_temporary_folder(parent: Path | None = None, *, hidden: bool = False) -> Path:
    """Create a folder that `remove_temporary_folders` removes if this process is killed.

    The default of `parent` is the system's folder for temporary files. The name is short, because
    the path of a socket has at most 107 bytes.
    """
    prefix = f"{'.' * hidden}cuesheet-{_OWNER_HASH}-{os.getpid()}-"
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder next to `target`, which it replaces afterwards; removed on an exception.

    So `target` is either complete or absent.
    """
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def temporary_folder(parent: Path | None = None, *, hidden: bool = False) -> Iterator[Path]:
    """Yield a new folder (see `make_temporary_folder`), which is removed afterwards."""
    folder = make_temporary_folder(parent, hidden=hidden)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_temporary_folders(parent: Path | None = None) -> int:
    """Remove the temporary folders of this machine's killed processes; return their number."""
    import psutil

    removed = 0
    folder = parent or Path(tempfile.gettempdir())
    try:
        entries = list(folder.iterdir())
    except OSError:
        return 0
    for path in entries:
        match = _FOLDER.fullmatch(path.name)
        if not match or match["owner"] != _OWNER_HASH or psutil.pid_exists(int(match["pid"])):
            continue
        if path.is_symlink():
            continue
        shutil.rmtree(path, ignore_errors=True)  # does not remove another user's folder
        removed += not path.exists()
    return removed


def is_inside(root: Path, path: Path) -> bool:
    """Return whether `path`, with links followed, is inside `root`.

    If `root` is a snapshot in the cache of huggingface_hub, whose files are links to the folder
    `blobs` of the same repository, that folder counts as inside.
    """
    real_root, real = root.resolve(), path.resolve()
    folders = [real_root]
    if real_root.parent.name == "snapshots":
        folders.append(real_root.parents[1] / "blobs")
    return any(real.is_relative_to(folder) for folder in folders)


def read_end(path: Path, begin: int = 0) -> str:
    """Return the last 256 KB of a text file, from byte `begin` on at the earliest; "" if none."""
    try:
        with path.open("rb") as file:
            file.seek(max(begin, file.seek(0, os.SEEK_END) - LONGEST_END_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def read_json(path: Path | str) -> dict[str, Any]:
    """Return the JSON object in a file; {} if the file is missing, damaged or not an object.

    Use it for files that can be re-created or are only informative. A file on which the result
    depends is read through its pydantic model instead.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path | str, value: Any, mode: int = 0o644) -> None:
    """Write `value` as indented JSON atomically. Raises ValueError for NaN and infinity.

    Text with lone surrogates, which UTF-8 cannot encode, makes the file plain ASCII.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    if _LONE_SURROGATE.search(text):
        text = json.dumps(value, indent=2, allow_nan=False)
    write_text(path, text + "\n", mode)
