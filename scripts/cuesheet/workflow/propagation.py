"""Which episodes a plan may learn from: corrected ones of its task, and a few of other tasks."""

from collections.abc import Iterable
from typing import Any

from cuesheet.config.models import Config
from cuesheet.workflow.run_dataset import RunDataset

# Episodes of other tasks that an alignment is compared with.
UNRELATED_EPISODES = 3


def has_recording(dataset: RunDataset, config: Config) -> bool:
    """Whether signals are enabled and the dataset has a state or an action."""
    columns = [*config.signals.state, *config.signals.action]
    return config.signals.enabled and any(
        column in dataset.source.info["features"] for column in columns
    )


def recording_of(dataset: RunDataset, config: Config, episode: int) -> list[str]:
    """The signals file of an episode; none for a dataset without a recording."""
    return [str(dataset.layout.signals(episode))] if has_recording(dataset, config) else []


def references_of(dataset: RunDataset, config: Config, episode: int) -> list[dict[str, Any]]:
    """Corrected episodes of the same task with their spans, then episodes of other tasks.

    Empty if nothing is to be carried over to this episode. Depends on corrections and metadata
    alone, not on what is done.
    """
    if config.plan.propagate == "off" or dataset.given_subtasks(episode) is not None:
        return []
    task = dataset.episode(episode).task
    same = [
        {"episode": index, "spans": [span.model_dump() for span in correction.subtasks]}
        for index, correction in sorted(dataset.corrections.items())
        if correction.subtasks and dataset.episode(index).task == task
    ]
    if not same:
        return []
    others: dict[str, int] = {}
    for other in dataset.source.episodes:
        if other.task != task and dataset.source.has_file(other.data_file):
            others.setdefault(other.task, other.episode_index)
    chosen = sorted(others.values())[:UNRELATED_EPISODES]
    return [*same, *({"episode": index, "spans": []} for index in chosen)]


def reference_files(dataset: RunDataset, config: Config, episode: int) -> list[str]:
    """What each reference is aligned by: its signals, or its keyframes without a state."""
    references = references_of(dataset, config, episode)
    if has_recording(dataset, config):
        return [str(dataset.layout.signals(one["episode"])) for one in references]
    if dataset.default_camera is None:
        return []
    return [str(dataset.layout.keyframes(one["episode"])) for one in references]


def shared_files(dataset: RunDataset, config: Config, episodes: Iterable[int]) -> list[str]:
    """Files that several shards read: made before any shard starts, so that no two make them."""
    files = [str(dataset.layout.signals_layout)] if has_recording(dataset, config) else []
    for episode in episodes:
        files += reference_files(dataset, config, episode)
    return list(dict.fromkeys(files))


def shared_references(
    dataset: RunDataset, config: Config, episodes: Iterable[int]
) -> list[dict[str, Any]]:
    """The distinct references of some episodes."""
    found: dict[tuple[int, bool], dict[str, Any]] = {}
    for episode in episodes:
        for one in references_of(dataset, config, episode):
            found.setdefault((one["episode"], bool(one["spans"])), one)
    return list(found.values())
