"""Files that appear whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path | str, mode: int = 0o644, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed onto `path`.

    On an exception the temporary file is removed and `path` stays as it was. Without `sync`, a file
    may be empty after a power failure: for what is made anew then.
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
    """Yield a new file beside `target`, open, and its path; in the end it takes that one's place.

    On an exception it is removed. The folder is made if it is not there.
    """
    where = {"prefix": f".{target.stem}.", "suffix": target.suffix, "dir": target.parent}
    try:
        handle, name = tempfile.mkstemp(**where)
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(**where)
    try:
        yield handle, Path(name)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def declare(written: Path | str, output: Path | str) -> None:
    """Make `written` the declared output `output`.

    They are one file, unless the run has a storage provider: that takes a copy from elsewhere.
    """
    if Path(written).absolute() != Path(output).absolute():
        with atomic_path(output) as copy:
            shutil.copyfile(written, copy)


def write_text(path: Path | str, text: str, mode: int = 0o644) -> None:
    """Write `text` (UTF-8) atomically."""
    # Not by `atomic_path`, which opens the file twice more: the cache writes one for every reply.
    with _replacing(Path(path)) as (handle, _), open(handle, "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fchmod(handle, mode)
        os.fsync(handle)


def read_json(path: Path | str, default: Any = None) -> Any:
    """Return the content of a JSON file, or `default` if the file is missing or damaged.

    For files that can be re-created or that only inform. A file that the result depends on is read
    through its pydantic model instead.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return default


def write_json(path: Path | str, value: Any, mode: int = 0o644) -> None:
    """Write `value` as indented JSON atomically. NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", mode)
