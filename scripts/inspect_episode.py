"""Inspects one episode: was each subtask completed, was the task achieved, are cameras defective?

In: the keyframes folder, the plan, the prompt files. Out: inspection/{episode}.json. Times in
seconds.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from cuesheet import files, job_log
from cuesheet.annotate.inspection import inspect
from cuesheet.annotate.stage import open_stage
from cuesheet.artifacts.stage_files import StageFile, read_stage_file
from cuesheet.config.stages import FramesConfig
from cuesheet.text import counted


async def make_inspection(
    keyframes: str,
    plan: StageFile,
    prompts: list[str],
    model_settings: Mapping[str, Any],
    layout: FramesConfig,
    camera: str | None,
) -> dict[str, Any]:
    """Return the content of the inspection file."""
    async with open_stage(
        "inspection", keyframes=keyframes, prompts=prompts, model_settings=model_settings
    ) as stage:
        return stage.result(**await inspect(stage, plan=plan, camera=camera, layout=layout))


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]):
        result = asyncio.run(
            make_inspection(
                snakemake.input.keyframes,
                read_stage_file(snakemake.input.plan, "plan"),
                list(snakemake.input.prompts),
                snakemake.params.model_settings,
                FramesConfig(**snakemake.params.frames),
                snakemake.params.camera,
            )
        )
        files.write_json(snakemake.output.json, result)
        calls = result["provenance"]["calls"]
        print(f"{counted(len(result['subtasks']), 'subtask')}, {counted(len(calls), 'call')}")


if "snakemake" in globals():
    main(snakemake)
