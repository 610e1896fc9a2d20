"""Metadata files of v2.1: one JSON object per line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cuesheet.dataset.file_forms import found_instead
from cuesheet.errors import CuesheetError


def as_whole(value: Any) -> Any:
    """Return a number that is written as text or as a float as an int, anything else as it is."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_objects(path: Path, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the object of each line. Raises CuesheetError for any other line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise CuesheetError(
            f"{name}: {path} is missing; every dataset of format v2.1 has it. Is the copy complete?"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CuesheetError(f"{name}: {path} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = found_instead(path) or error
            raise CuesheetError(
                f"{name}: {path}, line {number}, is not valid JSON: {reason}"
            ) from None
        if not isinstance(row, dict):
            raise CuesheetError(f"{name}: {path}, line {number}: expected an object.")
        yield number, row
