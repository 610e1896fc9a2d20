"""Requests the interjections of one episode.

In: the keyframes folder, the plan, the prompt files. Out: interjections/{episode}.json with the
interjections, the robot's speech, and plans if the plan stage wrote none. Times in seconds.
"""

from typing import Any

from cuesheet.annotate import interjections
from cuesheet.annotate.stage import Stage, run_stage, warm_up_stage
from cuesheet.artifacts.stage_files import read_stage_file
from cuesheet.config import prompt_files
from cuesheet.config.stages import FramesConfig, InterjectionsConfig


def warm_up() -> None:
    warm_up_stage(prompt_files.INTERJECTIONS)


def main(snakemake) -> None:
    params = snakemake.params

    async def annotate(stage: Stage) -> dict[str, Any]:
        return await interjections.annotate(
            stage,
            InterjectionsConfig(**params.interjections),
            plan=read_stage_file(snakemake.input.plan, "plan").model_dump(),
            camera=params.camera,
            layout=FramesConfig(**params.frames),
            seed=params.seed,
            corrections=params.corrections,
        )

    run_stage("interjections", snakemake, annotate, counts="events")


if "snakemake" in globals():
    main(snakemake)
