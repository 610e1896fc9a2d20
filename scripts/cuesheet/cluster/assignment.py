"""The assignment of episodes to shards. New episodes never change the shard of older ones.

`results/{dataset}/shards/assignment.json` contains the shards by number, each as ranges of episode
indices, and the setting that limits their size. A run reads it during planning and writes it when
it starts. New episodes fill the last shard and then new ones. Episodes that no longer exist are
removed from their shards.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuesheet import files
from cuesheet.config.cluster import ClusterConfig
from cuesheet.errors import CuesheetError
from cuesheet.text import from_ranges, to_ranges

Assignment = list[list[int]]


def size_of(settings: ClusterConfig) -> dict[str, float]:
    """Return the limit of a shard: `episodes`, or `video_s`, seconds of video."""
    if settings.episodes_per_shard is not None:
        return {"episodes": settings.episodes_per_shard}
    return {"video_s": settings.shard_minutes * settings.video_speed * 60}


def assign(
    durations_s: Mapping[int, float], size: Mapping[str, float], before: Sequence[Sequence[int]]
) -> Assignment:
    """Assign consecutive episodes to shards. Return the episodes of each shard.

    Args:
        durations_s: seconds of video of every episode of the dataset, by episode index.
        size: the limit of a shard, see `size_of`.
        before: the shards of an earlier run. None of their episodes changes its shard.

    With `video_s`, the limit determines the number of shards, and each gets the same share of the
    video, as far as this is possible without splitting an episode.
    """
    limit = size.get("episodes") or size["video_s"]
    weights = dict.fromkeys(durations_s, 1.0) if "episodes" in size else durations_s
    shards = [[index for index in shard if index in durations_s] for shard in before]
    assigned = {index for shard in shards for index in shard}
    new = [index for index in sorted(durations_s) if index not in assigned]
    if shards:
        room = limit - sum(weights[index] for index in shards[-1])
        while new and weights[new[0]] <= room:
            room -= weights[new[0]]
            shards[-1].append(new.pop(0))
    if "episodes" in size:
        return shards + _by_count(new, int(limit))
    return shards + _even(new, weights, limit)


def _by_count(episodes: Sequence[int], count: int) -> Assignment:
    return [list(episodes[first : first + count]) for first in range(0, len(episodes), count)]


def _even(episodes: Sequence[int], weights: Mapping[int, float], limit: float) -> Assignment:
    total = sum(weights[index] for index in episodes)
    number = max(1, math.ceil(total / limit))
    shards: Assignment = [[] for _ in range(number)]
    start = 0.0
    for index in episodes:
        middle = start + weights[index] / 2
        shards[min(number - 1, int(middle * number / total))].append(index)
        start += weights[index]
    return [shard for shard in shards if shard]


def read_assignment(path: Path, size: Mapping[str, float]) -> Assignment:
    """Return the shards of an earlier run with the same `size`; none if there are none.

    Raises CuesheetError if the file is not valid.
    """
    try:
        content = json.loads(path.read_bytes())
        if content["size"] != dict(size):
            return []
        return [from_ranges(ranges) for ranges in content["shards"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CuesheetError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Delete it: the episodes "
            "are then assigned to shards again, and finished files and cached responses are reused."
        ) from None


def write_assignment(path: Path, size: Mapping[str, float], shards: Assignment) -> None:
    """Write the shards unless the file already contains them."""
    content: dict[str, Any] = {
        "format": 1,
        "size": dict(size),
        "shards": [to_ranges(shard) for shard in shards],
    }
    if files.read_json(path) != content:
        files.write_text(path, json.dumps(content) + "\n")
