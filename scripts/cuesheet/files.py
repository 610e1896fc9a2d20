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
    target = Path(path)
    handle, temporary = _open_beside(target)
    os.close(handle)
    try:
        yield temporary
        os.chmod(temporary, mode)
        if sync:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _open_beside(target: Path) -> tuple[int, Path]:
    """Open a new file in the folder of `target`, which is made if it is not there."""
    where = {"prefix": f".{target.stem}.", "suffix": target.suffix, "dir": target.parent}
    try:
        handle, name = tempfile.mkstemp(**where)
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(**where)
    return handle, Path(name)


def declare(written: Path | str, output: Path | str) -> None:
    """Make `written` the declared output `output`.

    They are one file, unless the run has a storage provider: that takes a copy from elsewhere.
    """
    if Path(written).absolute() != Path(output).absolute():
        with atomic_path(output) as copy:
            shutil.copyfile(written, copy)


def write_text(path: Path | str, text: str, mode: int = 0o644) -> None:
    """Write `text` (UTF-8) atomically."""
    # As `atomic_path`, with the file opened once: the cache writes one for every reply.
    target = Path(path)
    handle, temporary = _open_beside(target)
    try:
        with open(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fchmod(handle, mode)
            os.fsync(handle)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path | str, value: Any, mode: int = 0o644) -> None:
    """Write `value` as indented JSON atomically. NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", mode)
