"""`cuesheet retry DATASET [EPISODES]`: request responses of the model again in the next run.

Without EPISODES, these are the invalid replies and the stages that failed; with EPISODES, all
requests of these episodes. The cached responses are marked as invalid and the files that were made
from them are deleted, so the next run of the workflow re-creates both.
"""

import argparse
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cuesheet.artifacts.failures import ANNOTATION_RULES
from cuesheet.artifacts.layout import RESULTS, RUNS, Layout, is_episode_name
from cuesheet.artifacts.stage_files import STAGES, Call, Provenance, read_stage_file
from cuesheet.artifacts.vocabulary import DraftFile, VocabularyFile, VocabularyRequests
from cuesheet.config.types import parse_episodes
from cuesheet.errors import CuesheetError
from cuesheet.files import read_json
from cuesheet.serving.response_cache import ResponseCache
from cuesheet.text import as_ranges, describe_range

DEFAULT_CACHE = Path(".cache/vlm")


@dataclass
class Retried:
    """What will be requested again: episodes by stage, and keys of responses."""

    episodes: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    keys: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)  # whose labels are made again
    missing: int = 0  # responses that are not in the cache


def retry(layout: Layout, cache: ResponseCache, episodes: Collection[int] | None = None) -> Retried:
    """Mark responses as invalid and delete what was made from them.

    Args:
        layout: the results of a dataset.
        cache: the response cache of its runs.
        episodes: request everything of these episodes again; None: only invalid replies and failed
            stages, of all episodes.

    Raises:
        CuesheetError: a file cannot be read, or an episode has no files.
    """
    retried = Retried()
    records = list(_failure_records(layout, episodes))
    chosen: list[tuple[Path, list[Call]]] = []
    for stage in STAGES:
        for path in _stage_files(layout, stage, episodes):
            calls = read_stage_file(path, stage).provenance.calls
            if episodes is None:
                calls = [call for call in calls if call.outcome == "invalid"]
                if not calls:
                    continue
            chosen.append((path, calls))
            retried.episodes[stage].add(int(path.stem))
    for rule, path in records:
        call = read_json(path).get("call")
        keys = call if isinstance(call, dict) else {}
        names = ("key", "correction_key")
        known = {name: keys[name] for name in names if isinstance(keys.get(name), str)}
        chosen.append((path, [Call(**known)]))
        retried.episodes[rule.removeprefix("annotate_")].add(int(path.stem))
    if episodes is not None:
        _check_episodes(layout, episodes, retried)
    else:
        chosen += _unusable_vocabulary(layout, retried)
    # The responses first: a command that is interrupted is repeated, and finds the files again.
    for _, calls in chosen:
        for key in (key for call in calls for key in (call.key, call.correction_key) if key):
            retried.keys.append(key)
            retried.missing += not cache.invalidate(key)
    for path, _ in chosen:
        path.unlink(missing_ok=True)
    return retried


def _unusable_vocabulary(layout: Layout, retried: Retried) -> list[tuple[Path, list[Call]]]:
    """Return the files of drafted labels whose request has no usable reply, with its calls."""
    found: list[tuple[Path, list[Call]]] = []
    for path in sorted(layout.vocabulary_draft("").parent.glob("*.json")):
        if calls := _unusable(DraftFile.read(path).provenance):
            found.append((path, calls))
            retried.episodes["draft"].add(int(path.stem))
    for path in sorted(layout.vocabulary_requests("").parent.glob("*.json")):
        if calls := _unusable(VocabularyRequests.read(path).provenance):
            found += [(path, calls), (layout.vocabulary(path.stem), [])]
            retried.tasks.append(VocabularyFile.read(layout.vocabulary(path.stem)).task)
    return found


def _unusable(provenance: Provenance) -> list[Call]:
    return [call for call in provenance.calls if call.outcome in ("invalid", "failed")]


def _stage_files(layout: Layout, stage: str, episodes: Collection[int] | None) -> list[Path]:
    if episodes is not None:
        paths = [layout.stage_file(stage, episode) for episode in sorted(episodes)]
        return [path for path in paths if path.is_file()]
    found = layout.stage_folder(stage).glob("*.json")
    return sorted(path for path in found if is_episode_name(path.stem))


def _failure_records(
    layout: Layout, episodes: Collection[int] | None
) -> Iterator[tuple[str, Path]]:
    """Yield the rules of failed annotation jobs, and their records."""
    for rule in ANNOTATION_RULES:
        for path in sorted((layout.failed / rule).rglob("*.json")):
            if is_episode_name(path.stem) and (episodes is None or int(path.stem) in episodes):
                yield rule, path


def _check_episodes(layout: Layout, episodes: Collection[int], retried: Retried) -> None:
    known = set().union(*retried.episodes.values())
    unknown = sorted(set(episodes) - known)
    if unknown:
        raise CuesheetError(
            f"{layout.folder} has no annotations of {describe_range(unknown)}; nothing was "
            "changed. The next run requests all selected episodes that have none"
        )


def _layout_of(dataset: str) -> Layout:
    """Return the results of a dataset, which is given by name or by its results folder.

    Raises CuesheetError if there are none.
    """
    given = Path(dataset)
    for folder in (RESULTS / dataset, given):
        layout = Layout(folder)
        if layout.failed.is_dir() or any(layout.stage_folder(s).is_dir() for s in STAGES):
            return layout
    names = sorted(path.name for path in RESULTS.glob("*") if Layout(path).index.is_file())
    hint = f"; {RESULTS} has {', '.join(names)}" if names else ""
    raise CuesheetError(f"there are no results of {dataset}{hint}. Name a dataset of a run")


def cache_of(dataset: str, runs: Path = RUNS) -> Path:
    """Return the response cache that the newest run of a dataset used; the default if unknown."""
    for path in sorted(runs.glob("*/config.json"), reverse=True):
        config = read_json(path)
        if dataset in (config.get("totals") or {}):
            return Path(config.get("cache_dir") or DEFAULT_CACHE)
    return DEFAULT_CACHE


def describe(retried: Retried, cache: Path) -> str:
    """Return what the next run will do, for the terminal."""
    if not retried.episodes and not retried.tasks:
        return "No invalid replies and no failed stages: there is nothing to request again."
    stages = "; ".join(
        f"{stage} of {'episodes' if len(found) > 1 else 'episode'} {as_ranges(sorted(found))}"
        for stage, found in retried.episodes.items()
    )
    if retried.tasks:
        labels = f"labels of {len(retried.tasks)} {'tasks' if len(retried.tasks) > 1 else 'task'}"
        stages = "; ".join(filter(None, [stages, labels]))
    text = f"The next run re-creates: {stages}. "
    text += f"{len(retried.keys) - retried.missing} cached responses will be requested again."
    if retried.missing:
        text += (
            f" {retried.missing} responses are not in {cache}; if the run used another cache "
            "(vlm.cache_dir), name it with --cache."
        )
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="cuesheet retry",
        description=(
            "Have the next run request responses of the model again: invalid replies and failed "
            "stages, or everything of the given episodes."
        ),
    )
    parser.add_argument("dataset", help="name of a dataset, or its results folder")
    parser.add_argument(
        "episodes",
        nargs="*",
        help="request everything of these episodes again, such as 0,3-5 (default: only invalid "
        "replies and failed stages, of all episodes)",
    )
    parser.add_argument(
        "--cache", type=Path, help="response cache (default: that of the dataset's newest run)"
    )
    given = parser.parse_args(arguments)
    layout = _layout_of(given.dataset)
    cache = given.cache or cache_of(layout.dataset)
    try:
        episodes = parse_episodes(",".join(given.episodes)) if given.episodes else None
    except ValueError as error:
        raise CuesheetError(f"EPISODES: {error}") from None
    print(describe(retry(layout, ResponseCache(cache), episodes), cache))
