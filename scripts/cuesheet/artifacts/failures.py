"""Why episodes failed: the records that failed jobs leave (`cuesheet.job_log`)."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any


def episode_failures(
    results: Path, episodes: Collection[int], since: float = 0.0
) -> dict[int, dict[str, Any]]:
    """What made episodes fail, from `failed/{rule}/…/{episode}.json` written since a time (s)."""
    wanted = {f"{index:06d}": index for index in episodes}
    found: dict[int, dict[str, Any]] = {}
    for path in sorted((results / "failed").rglob("*.json")):
        index = wanted.get(path.stem)
        if index is None or index in found:
            continue
        try:
            if path.stat().st_mtime >= since:
                found[index] = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
    return dict(sorted(found.items()))
