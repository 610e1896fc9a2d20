"""Requests questions and answers about single frames of one episode.

In: the keyframes folder, the plan if there is one, the prompt files. Out: vqa/{episode}.json with
question and answer events and the same pairs in typed form. Coordinates are pixels of the source
frame, times seconds.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from cuesheet import files, job_log
from cuesheet.annotate import vqa
from cuesheet.annotate.stage import open_stage
from cuesheet.artifacts.stage_files import StageFile, read_stage_file
from cuesheet.config.stages import VqaConfig
from cuesheet.text import counted
from cuesheet.vlm.coordinates import convention_of


async def annotate(
    keyframes: str,
    prompts: list[str],
    model_settings: Mapping[str, Any],
    settings: VqaConfig,
    cameras: Sequence[str],
    coordinates: str,
    seed: int,
    plan: StageFile | None = None,
    corrections: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the content of the VQA file."""
    async with open_stage(
        "vqa", keyframes=keyframes, prompts=prompts, model_settings=model_settings
    ) as stage:
        total = vqa.count_requests(stage, settings, cameras)
        with tqdm(total=total, unit="call", mininterval=2, file=sys.stderr) as bar:
            pairs = await vqa.annotate(
                stage,
                settings,
                cameras=cameras,
                convention=convention_of(
                    model_settings["model"], coordinates, stage.vlm.link.model_root
                ),
                seed=seed,
                plan=_facts(plan) if plan else None,
                corrections=corrections,
                progress=bar.update,
            )
        return stage.result(**pairs)


def _facts(plan: StageFile) -> vqa.PlanFacts:
    used = plan.vocabulary.labels if plan.vocabulary else []
    return vqa.PlanFacts(plan.task.text, [subtask.label for subtask in plan.subtasks], used)


def main(snakemake) -> None:
    plan = snakemake.input.plan
    with job_log.to_file(snakemake.log[0]):
        result = asyncio.run(
            annotate(
                snakemake.input.keyframes,
                list(snakemake.input.prompts),
                snakemake.params.model_settings,
                VqaConfig(**snakemake.params.vqa),
                list(snakemake.params.cameras),
                snakemake.params.coordinates,
                snakemake.params.seed,
                read_stage_file(plan, "plan") if plan else None,
                snakemake.params.corrections,
            )
        )
        files.write_json(snakemake.output.json, result)
        calls = result["provenance"]["calls"]
        print(f"{counted(len(result['pairs']), 'pair')}, {counted(len(calls), 'call')}")


if "snakemake" in globals():
    main(snakemake)
