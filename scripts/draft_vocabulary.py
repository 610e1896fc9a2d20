"""Requests the steps of one episode, from which the labels of its task are built.

In: the keyframes folder, the prompt files. Out: vocabulary/drafts/{episode}.json. Times in seconds.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from cuesheet import files, job_log
from cuesheet.annotate.stage import open_stage
from cuesheet.annotate.vocabulary import draft
from cuesheet.config.stages import PlanConfig


async def make_draft(
    keyframes: str,
    prompts: list[str],
    model_settings: Mapping[str, Any],
    settings: PlanConfig,
    camera: str | None,
) -> dict[str, Any]:
    """Return the content of the draft."""
    async with open_stage(
        "vocabulary", keyframes=keyframes, prompts=prompts, model_settings=model_settings
    ) as stage:
        return stage.result(**await draft(stage, settings, camera))


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]):
        result = asyncio.run(
            make_draft(
                snakemake.input.keyframes,
                list(snakemake.input.prompts),
                snakemake.params.model_settings,
                PlanConfig(**snakemake.params.plan),
                snakemake.params.camera,
            )
        )
        files.write_json(snakemake.output.json, result)
        print(f"{len(result['steps'])} steps")


if "snakemake" in globals():
    main(snakemake)
