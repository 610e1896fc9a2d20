"""References of a plan: corrected episodes of its task, and a few episodes of other tasks."""

from collections.abc import Iterable
from typing import Any

from cuesheet.config.models import Config
from cuesheet.workflow.run_dataset import RunDataset

# Episodes of other tasks that an alignment is compared with.
UNRELATED_EPISODES = 3


def has_recording(dataset: RunDataset, config: Config) -> bool:
    """Tell whether signals are enabled and the dataset has a state or an action."""
    columns = [*config.signals.state, *config.signals.action]
    return config.signals.enabled and any(
        column in dataset.source.info["features"] for column in columns
    )


def recording_of(dataset: RunDataset, config: Config, episode: int) -> list[str]:
    """Return the signals file of an episode; none for a dataset without a recording."""
    return [str(dataset.layout.signals(episode))] if has_recording(dataset, config) else []


def references_of(dataset: RunDataset, config: Config, episode: int) -> list[dict[str, Any]]:
    """Return corrected episodes of the same task with their spans, then episodes of other tasks.

    The list is empty if nothing is propagated to this episode. It depends on corrections and
    metadata only, not on what is finished.
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
    """Return the file to align each reference by: its signals, or without a state its keyframes."""
    references = references_of(dataset, config, episode)
    if has_recording(dataset, config):
        return [str(dataset.layout.signals(one["episode"])) for one in references]
    if dataset.default_camera is None:
        return []
    return [str(dataset.layout.keyframes(one["episode"])) for one in references]


def shared_files(dataset: RunDataset, config: Config, episodes: Iterable[int]) -> list[str]:
    """Return the files that several shards read. They are created before any shard starts."""
    files = [str(dataset.layout.signals_layout)] if has_recording(dataset, config) else []
    for episode in episodes:
        files += reference_files(dataset, config, episode)
    return list(dict.fromkeys(files))


def shared_references(
    dataset: RunDataset, config: Config, episodes: Iterable[int]
) -> list[dict[str, Any]]:
    """Return the distinct references of some episodes."""
    found: dict[tuple[int, bool], dict[str, Any]] = {}
    for episode in episodes:
        for one in references_of(dataset, config, episode):
            found.setdefault((one["episode"], bool(one["spans"])), one)
    return list(found.values())
