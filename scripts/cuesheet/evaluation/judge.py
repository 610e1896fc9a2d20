"""Asks the model of the run whether two labels mean the same."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuesheet.errors import SurroundingsError
from cuesheet.evaluation.references import Reference
from cuesheet.evaluation.scores import Verdicts
from cuesheet.evaluation.segments import IOU_THRESHOLDS, interval_iou
from cuesheet.text import is_exact
from cuesheet.vlm.client import Vlm
from cuesheet.vlm.prompts import Prompts
from cuesheet.vlm.replies import Verdict
from cuesheet.vlm.run_environment import SERVER_FILE_VARIABLE, explain_missing_server, find

MAX_IN_FLIGHT = 64  # requests that wait at the gateway

Question = tuple[str, str, str]  # task, predicted label, reference label


def questions(
    predicted: Reference, reference: Reference, tasks: Mapping[int, str]
) -> list[Question]:
    """Return the label pairs to judge: different words, and segments that could be matched."""
    found: dict[Question, None] = {}
    for episode in sorted(predicted.segments.keys() & reference.segments.keys()):
        for segment in predicted.segments[episode]:
            for true in reference.segments[episode]:
                near = interval_iou(segment, true) >= min(IOU_THRESHOLDS)
                if near and segment.text and true.text and not is_exact(segment.text, true.text):
                    found[tasks.get(episode, ""), segment.text, true.text] = None
    return list(found)


async def judge(
    pending: Sequence[Question],
    *,
    prompts: Sequence[str],
    model_settings: Mapping[str, Any],
    results: Path,
    progress: Callable[[], object] = lambda: None,
) -> tuple[Verdicts, list[dict[str, Any]]]:
    """Return verdicts by (label, reference label), and the records of the calls.

    If the same labels are judged for several tasks, the majority decides. A question without a
    valid reply gets no verdict; `same_label` then compares the words.

    Args:
        pending: the result of `questions`.
        prompts: paths of the prompts `system` and `evaluate_judge`.
        model_settings: model and sampling settings, as for the stages.
        results: results folder of the dataset.
        progress: called after each question.

    Raises:
        CuesheetError: there is no model server, or it does not answer.
    """
    server_file = find(SERVER_FILE_VARIABLE, results)
    if not server_file:
        raise SurroundingsError(explain_missing_server(results))
    texts = Prompts(prompts)
    settings = {"model": model_settings["model"], **model_settings["sampling"]}
    slots = asyncio.Semaphore(MAX_IN_FLIGHT)
    votes: dict[tuple[str, str], list[bool]] = {}
    async with Vlm.connect(
        server_file, settings, group=f"{results.name}/judge", prompts=texts.hashes
    ) as vlm:

        async def ask(number: int, task: str, predicted: str, reference: str) -> None:
            async with slots:
                answer = await vlm.ask(
                    name=f"judge {number}",
                    prompt="evaluate_judge",
                    reply=Verdict,
                    system=texts.render("system"),
                    media=[],
                    text=texts.render(
                        "evaluate_judge", task=task, predicted=predicted, reference=reference
                    ),
                    needs_media=False,
                )
            if answer.value is not None:
                votes.setdefault((predicted, reference), []).append(answer.value.same)
            progress()

        await asyncio.gather(*(ask(number, *one) for number, one in enumerate(pending)))
        return {pair: sum(said) * 2 > len(said) for pair, said in votes.items()}, vlm.calls
