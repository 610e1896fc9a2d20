"""The causes of failed episodes, from the records of failed jobs (`cuesheet.job_log`)."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from cuesheet.artifacts.layout import Layout, episode_name
from cuesheet.files import read_json

# Last line of the log of a failed job, and of one that was interrupted.
ERROR_PREFIX = "ERROR: "
INTERRUPTED = f"{ERROR_PREFIX}interrupted"
# Rules without whose files an episode has no annotations. A failed clip does not count.
ANNOTATION_RULES = (
    "decode_keyframes",
    "extract_signals",
    "annotate_plan",
    "annotate_interjections",
    "annotate_vqa",
    "inspect_episode",
    "validate_episode",
)


def failed_episodes(results: Path, episodes: Collection[int]) -> set[int]:
    """Return the episodes whose last attempt at annotation failed.

    They are not annotated, even if the files of an earlier run still exist.
    """
    return set(episode_failures(results, episodes, rules=ANNOTATION_RULES))


def episode_failures(
    results: Path,
    episodes: Collection[int],
    since: float = 0.0,
    rules: Collection[str] | None = None,
) -> dict[int, dict[str, Any]]:
    """Return the failure record of each failed episode, from `failed/{rule}/…/{episode}.json`.

    Records older than `since` (Unix time, s) are ignored, and those of other rules than `rules`. A
    record has the keys `rule`, `error`, `log` and possibly `call`.
    """
    wanted = {episode_name(index): index for index in episodes}
    found: dict[int, dict[str, Any]] = {}
    folder = Layout(results).failed
    for path in sorted(folder.rglob("*.json")):
        index, rule = wanted.get(path.stem), path.relative_to(folder).parts[0]
        if index is None or index in found or (rules is not None and rule not in rules):
            continue
        record = read_json(path)
        if record and path.stat().st_mtime >= since:
            found[index] = {"rule": rule, **record}
    return dict(sorted(found.items()))


def job_errors(results: Path, since: float) -> dict[str, str]:
    """Return the cause of the last failed job of each rule, from logs since that Unix time (s).

    Unlike `episode_failures`, this includes jobs that failed because of their surroundings (server,
    key, disk), and jobs of a whole dataset. Interrupted jobs are not included.
    """
    logs = Layout(results).logs
    recent = ((path.stat().st_mtime, path) for path in logs.rglob("*.log"))
    found = {}
    for _, path in sorted(entry for entry in recent if entry[0] >= since):
        text = path.read_text(encoding="utf-8", errors="replace")
        # The cause ends the log, and may have several lines; the first one says what failed.
        _, prefix, cause = f"\n{text}".rpartition(f"\n{ERROR_PREFIX}")
        if prefix and f"{ERROR_PREFIX}{cause.rstrip()}" != INTERRUPTED:
            rule = path.relative_to(logs).parts[0].removesuffix(".log")
            found[rule] = cause.strip().partition("\n")[0].rstrip(":")
    return found
