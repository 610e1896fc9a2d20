"""Changes of a source dataset since it was indexed, for the terminal and the summary.

`source_changes.json` in the results folder lists every change that a run found, oldest first.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.layout import Layout
from cuesheet.files import read_json, write_json
from cuesheet.text import as_ranges


@dataclass(frozen=True)
class Changes:
    """Episode numbers. `renumbered` maps the old number to the new one."""

    added: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    replaced: list[int] = field(default_factory=list)
    renumbered: dict[int, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.replaced or self.renumbered)


def compare(before: Mapping[int, str], after: Mapping[int, str]) -> Changes:
    """Compare two states of a dataset, each given as the fingerprint of every episode number.

    If the fingerprint of an episode has moved from one number to another, the episode was
    renumbered, as when lerobot deletes episodes. Otherwise it was recorded again.
    """
    gone = {n: f for n, f in before.items() if after.get(n) != f}
    numbers: dict[str, list[int]] = {}
    for number in sorted(gone, reverse=True):
        numbers.setdefault(gone[number], []).append(number)
    renumbered: dict[int, int] = {}
    fresh = []
    for number in sorted(after):
        if before.get(number) == after[number]:
            continue
        old = numbers.get(after[number])
        if old:
            renumbered[old.pop()] = number
        else:
            fresh.append(number)
    moved_away = set(renumbered)
    return Changes(
        added=[n for n in fresh if n not in gone or n in moved_away],
        removed=[n for n in gone if n not in moved_away and n not in fresh],
        replaced=[n for n in fresh if n in gone and n not in moved_away],
        renumbered=renumbered,
    )


def read_fingerprints(index: Path) -> dict[int, str] | None:
    """Return the fingerprint of each episode of an index; None if the index has none."""
    try:
        table = pq.read_table(index, columns=["episode_index", "fingerprint"])
    except (OSError, pa.ArrowException):
        return None
    return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))


def record(results: Path, changes: Changes) -> None:
    """Append `changes` to the list in the results folder."""
    path = Layout(results).source_changes
    listed = read_changes(results)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(path, {"format": 1, "changes": [*listed, {"at": at, **asdict(changes)}]})


def read_changes(results: Path) -> list[dict[str, Any]]:
    """Return the recorded changes; none if the file is missing or damaged."""
    changes = read_json(Layout(results).source_changes).get("changes")
    return changes if isinstance(changes, list) else []


def describe(changes: Mapping[str, Any]) -> str:
    """Describe a change, such as "1 new (12), 2 removed (3, 4)"."""
    parts = [
        f"{len(changes[key])} {word} ({as_ranges(changes[key])})"
        for key, word in (("added", "new"), ("removed", "removed"), ("replaced", "recorded again"))
        if changes[key]
    ]
    moved = changes["renumbered"]
    if moved:
        some = ", ".join(f"{old} is now {new}" for old, new in list(moved.items())[:3])
        parts.append(f"{len(moved)} renumbered ({some}{', ...' if len(moved) > 3 else ''})")
    return ", ".join(parts)
