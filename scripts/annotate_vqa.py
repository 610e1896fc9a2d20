"""Requests questions and answers about single frames of one episode.

In: the keyframes folder, the plan if there is one, the prompt files. Out: vqa/{episode}.json with
question and answer events and the same pairs in typed form. Coordinates are pixels of the source
frame, times seconds.
"""

import sys
from typing import Any

from tqdm import tqdm

from cuesheet.annotate import vqa
from cuesheet.annotate.stage import Stage, run_stage, warm_up_stage
from cuesheet.artifacts.stage_files import read_stage_file
from cuesheet.config import prompt_files
from cuesheet.config.stages import VqaConfig
from cuesheet.vlm.coordinates import convention_of


def warm_up() -> None:
    warm_up_stage(prompt_files.VQA)


def main(snakemake) -> None:
    params = snakemake.params
    settings, cameras = VqaConfig(**params.vqa), list(params.cameras)

    async def annotate(stage: Stage) -> dict[str, Any]:
        total = vqa.count_requests(stage, settings, cameras)
        with tqdm(total=total, unit="call", mininterval=2, file=sys.stderr) as bar:
            return await vqa.annotate(
                stage,
                settings,
                cameras=cameras,
                convention=convention_of(
                    params.model_settings["model"], params.coordinates, stage.vlm.link.model_root
                ),
                seed=params.seed,
                plan=_facts(snakemake.input.plan) if snakemake.input.plan else None,
                corrections=params.corrections,
                progress=bar.update,
            )

    run_stage("vqa", snakemake, annotate, counts="pairs")


def _facts(path: str) -> vqa.PlanFacts:
    plan = read_stage_file(path, "plan")
    used = plan.vocabulary.labels if plan.vocabulary else []
    return vqa.PlanFacts(plan.task.text, [subtask.label for subtask in plan.subtasks], used)


if "snakemake" in globals():
    main(snakemake)
