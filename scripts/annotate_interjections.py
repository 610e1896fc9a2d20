"""Requests the interjections of one episode.

In: the keyframes folder, the plan, the prompt files. Out: interjections/{episode}.json with the
interjections, the robot's speech, and plans if the plan stage wrote none. Times in seconds.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from cuesheet import files, job_log
from cuesheet.annotate import interjections
from cuesheet.annotate.stage import open_stage
from cuesheet.artifacts.stage_files import read_stage_file
from cuesheet.config.stages import FramesConfig, InterjectionsConfig
from cuesheet.text import counted


async def annotate(
    keyframes: str,
    plan: dict[str, Any],
    prompts: list[str],
    model_settings: Mapping[str, Any],
    settings: InterjectionsConfig,
    layout: FramesConfig,
    camera: str | None,
    seed: int,
    corrections: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the content of the interjections file; `plan` is that of the plan file."""
    async with open_stage(
        "interjections", keyframes=keyframes, prompts=prompts, model_settings=model_settings
    ) as stage:
        parts = await interjections.annotate(
            stage,
            settings,
            plan=plan,
            camera=camera,
            layout=layout,
            seed=seed,
            corrections=corrections,
        )
        return stage.result(**parts)


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]):
        result = asyncio.run(
            annotate(
                snakemake.input.keyframes,
                read_stage_file(snakemake.input.plan, "plan").model_dump(),
                list(snakemake.input.prompts),
                snakemake.params.model_settings,
                InterjectionsConfig(**snakemake.params.interjections),
                FramesConfig(**snakemake.params.frames),
                snakemake.params.camera,
                snakemake.params.seed,
                snakemake.params.corrections,
            )
        )
        files.write_json(snakemake.output.json, result)
        calls = result["provenance"]["calls"]
        print(f"{counted(len(result['events']), 'event')}, {counted(len(calls), 'call')}")


if "snakemake" in globals():
    main(snakemake)
