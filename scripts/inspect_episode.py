"""Inspects one episode: was each subtask completed, was the task achieved, are cameras defective?

In: the keyframes folder, the plan, the prompt files. Out: inspection/{episode}.json. Times in
seconds.
"""

from typing import Any

from cuesheet.annotate.inspection import inspect
from cuesheet.annotate.stage import Stage, run_stage
from cuesheet.artifacts.stage_files import read_stage_file
from cuesheet.config.stages import FramesConfig


def main(snakemake) -> None:
    async def annotate(stage: Stage) -> dict[str, Any]:
        return await inspect(
            stage,
            plan=read_stage_file(snakemake.input.plan, "plan"),
            camera=snakemake.params.camera,
            layout=FramesConfig(**snakemake.params.frames),
        )

    run_stage("inspection", snakemake, annotate, counts="subtasks")


if "snakemake" in globals():
    main(snakemake)
