"""Requests the steps of one episode, from which the labels of its task are built.

In: the keyframes folder, the prompt files. Out: vocabulary/drafts/{episode}.json. Times in seconds.
"""

from typing import Any

from cuesheet.annotate.stage import Stage, run_stage
from cuesheet.annotate.vocabulary import draft
from cuesheet.config.stages import PlanConfig


def main(snakemake) -> None:
    async def annotate(stage: Stage) -> dict[str, Any]:
        return await draft(stage, PlanConfig(**snakemake.params.plan), snakemake.params.camera)

    run_stage("vocabulary", snakemake, annotate, counts="steps")


if "snakemake" in globals():
    main(snakemake)
