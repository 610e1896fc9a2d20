"""What the requests for the labels of tasks would be (`plan.vocabulary: auto`)."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

from cuesheet.annotate import vocabulary
from cuesheet.annotate.rehearsal import Rehearsal, Request, make_rehearsal
from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.layout import task_id
from cuesheet.artifacts.vocabulary import DraftFile, VocabularyRequests
from cuesheet.config import prompt_files
from cuesheet.errors import CuesheetError
from cuesheet.vlm.prompts import Prompts
from cuesheet.workflow.run import Run
from cuesheet.workflow.run_dataset import RunDataset
from cuesheet.workflow.vocabulary import drafted_episodes

# Drafts and lists that are rehearsed; the others count as much as these do on average.
_MOST_REHEARSED = 8


def rehearse_vocabulary(
    run: Run, dataset: RunDataset, episode_of: Callable[[int], Episode], subtask_s: float
) -> Iterator[tuple[list[Request], float]]:
    """Yield requests of drafts and of lists that are not finished.

    Each comes with the factor by which there are more requests than these.

    Args:
        run: the run.
        dataset: the dataset.
        episode_of: returns an episode whose frames have no files.
        subtask_s: assumed length of a subtask (s).
    """
    names = prompt_files.of_stages(["vocabulary"])
    prompts = Prompts(dataset.prompts_dir / f"{name}.md" for name in names)

    def rehearsal(index: int) -> Rehearsal:
        return make_rehearsal("vocabulary", episode_of(index), prompts, run.config.vlm, subtask_s)

    def drafted(index: int) -> tuple[list[Request], DraftFile]:
        stage, camera = rehearsal(index), dataset.default_camera_of(index)
        parts = asyncio.run(vocabulary.draft(stage, run.plan, camera))
        return stage.vlm.requests, DraftFile(**stage.result(**parts))

    tasks = drafted_episodes(dataset, run.config)
    every = [index for episodes in tasks.values() for index in episodes]
    missing = [index for index in every if not _is_drafted(dataset, index, prompts)]
    sample = missing[:_MOST_REHEARSED]
    if sample:
        found = [request for index in sample for request in drafted(index)[0]]
        yield found, len(missing) / len(sample)
    unbuilt = [task for task in tasks if not _is_built(dataset, task, prompts)]
    requests = []
    for task in unbuilt[:_MOST_REHEARSED]:
        drafts = {str(index): drafted(index)[1] for index in tasks[task]}
        stage = rehearsal(tasks[task][0])
        stage.expect({"end_s": stage.episode.end_s})
        asyncio.run(vocabulary.build(stage.vlm, prompts, task, drafts))
        requests += stage.vlm.requests
    if requests:
        yield requests, len(unbuilt) / min(len(unbuilt), _MOST_REHEARSED)


def _is_drafted(dataset: RunDataset, index: int, prompts: Prompts) -> bool:
    path = dataset.layout.vocabulary_draft(index)
    return path.is_file() and _is_made_with(path, "vocabulary_draft", prompts)


def _is_built(dataset: RunDataset, task: str, prompts: Prompts) -> bool:
    path = dataset.layout.vocabulary_requests(task_id(task))
    return path.is_file() and _is_made_with(path, "vocabulary_build", prompts)


def _is_made_with(path: Path, prompt: str, prompts: Prompts) -> bool:
    read = DraftFile.read if prompt == "vocabulary_draft" else VocabularyRequests.read
    try:
        made = read(path).provenance
    except CuesheetError:
        return False
    return made.prompts.get(prompt) == prompts.hashes[prompt]
