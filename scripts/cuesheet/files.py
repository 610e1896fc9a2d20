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
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, mode)
        if sync:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def declare(written: Path | str, output: Path | str) -> None:
    """Make `written` the declared output `output`.

    They are one file, unless the run has a storage provider: that takes a copy from elsewhere.
    """
    if Path(written).absolute() != Path(output).absolute():
        with atomic_path(output) as copy:
            shutil.copyfile(written, copy)


def write_text(path: Path | str, text: str, mode: int = 0o644) -> None:
    """Write `text` (UTF-8) atomically."""
    with atomic_path(path, mode) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any, mode: int = 0o644) -> None:
    """Write `value` as indented JSON atomically. NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", mode)
