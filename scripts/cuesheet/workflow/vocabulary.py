"""The drafted labels of tasks: which files there are, and which episodes they are made of."""

from cuesheet.artifacts.failures import episode_failures
from cuesheet.artifacts.layout import task_id
from cuesheet.config.models import Config
from cuesheet.errors import CuesheetError
from cuesheet.text import did_you_mean, is_placeholder
from cuesheet.workflow.run_dataset import RunDataset


def drafted_episodes(dataset: RunDataset, config: Config) -> dict[str, list[int]]:
    """Return the episodes that are drafted for each task of the selected episodes, by task.

    They have the lowest numbers of those that the run annotates. An episode that failed in another
    step is still drafted, so that it does not change the labels of the others; one whose frames
    could not be decoded is not. A task that says nothing has no labels, because its episodes may
    differ.
    """
    if not config.plan.drafts_vocabulary:
        return {}
    undecoded = episode_failures(dataset.results, dataset.left_out, rules={"decode_keyframes"})
    excluded = dataset.kept | undecoded.keys()
    found: dict[str, list[int]] = {}
    for index in sorted(set(dataset.selected) - excluded):
        task = dataset.episode(index).task
        if not is_placeholder(task):
            chosen = found.setdefault(task, [])
            if len(chosen) < config.plan.vocabulary_episodes:
                chosen.append(index)
    return found


def drafted_in(dataset: RunDataset, config: Config) -> list[int]:
    """Return the episodes of a dataset that are drafted for any task."""
    return sorted(
        index for episodes in drafted_episodes(dataset, config).values() for index in episodes
    )


def vocabulary_of(dataset: RunDataset, config: Config, episode: int) -> list[str]:
    """Return the file with the drafted labels of an episode's task; none if it needs none."""
    task = dataset.episode(episode).task
    if not config.plan.drafts_vocabulary or is_placeholder(task):
        return []
    if dataset.given_subtasks(episode) is not None or dataset.default_camera_of(episode) is None:
        return []
    return [str(dataset.layout.vocabulary(task_id(task)))]


def vocabularies(dataset: RunDataset, config: Config) -> list[str]:
    """Return the files with the drafted labels of all tasks of a dataset."""
    return [
        str(dataset.layout.vocabulary(task_id(task))) for task in drafted_episodes(dataset, config)
    ]


def drafts_of(dataset: RunDataset, config: Config, name: str) -> list[str]:
    """Return the drafts of the task called `name` in paths."""
    task = task_called(dataset, name)
    drafted = drafted_episodes(dataset, config).get(task)
    if not drafted:
        raise CuesheetError(
            f"{dataset.name}: no labels are drafted for the task {task!r}; set plan.vocabulary to "
            "auto and select an episode of the task"
        )
    return [str(dataset.layout.vocabulary_draft(index)) for index in drafted]


def task_called(dataset: RunDataset, name: str) -> str:
    """Return the task whose name in paths is `name`. Raises CuesheetError if there is none."""
    tasks = {task_id(task): task for task in dataset.tasks}
    if name not in tasks:
        near = did_you_mean(name, list(tasks))
        hint = f"; did you mean {near}?" if near else ""
        raise CuesheetError(f"{dataset.name} has no task called {name}{hint}")
    return tasks[name]


def notice_of(dataset: RunDataset, config: Config) -> str | None:
    """Return a notice about episodes whose task says nothing; None if there are none."""
    if not config.plan.drafts_vocabulary:
        return None
    count = sum(is_placeholder(dataset.episode(index).task) for index in dataset.worked_on)
    if not count:
        return None
    return (
        f"plan.vocabulary is auto, but {count} of {len(dataset.worked_on)} episodes have no task "
        "that says what is done; their labels are not limited"
    )
