"""Requests the labels of one task from the drafts of a few of its episodes.

In: the drafts, the prompt files. Out: vocabulary/{task}.json with the labels, and the record of the
request.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuesheet import files, job_log
from cuesheet.annotate.stage import connect
from cuesheet.annotate.vocabulary import build
from cuesheet.artifacts.vocabulary import DraftFile
from cuesheet.vlm.prompts import Prompts


async def make_vocabulary(
    task: str, drafts: Sequence[str], prompts: Sequence[str], model_settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content of both files. Raises CuesheetError if there is no model server."""
    found = {Path(path).stem: DraftFile.read(path) for path in drafts}
    dataset = next(iter(found.values())).dataset
    texts = Prompts(prompts)
    group = f"{dataset}/vocabulary"
    async with connect("vocabulary", drafts[0], group, texts, model_settings) as vlm:
        labels, warnings = await build(vlm, texts, task, found)
    for warning in warnings:
        print(f"WARNING: {warning}", flush=True)
    vocabulary = {
        "format": 1,
        "dataset": dataset,
        "task": task,
        "labels": labels,
        "drafts": {name: one.labels for name, one in found.items()},
        "warnings": warnings,
    }
    provenance = {
        "model": vlm.model,
        "served_by": model_settings["serve"],
        "prompts": texts.hashes,
        "sampling": dict(model_settings["sampling"]),
        "calls": vlm.calls,
    }
    return vocabulary, {"format": 1, "provenance": provenance}


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]):
        vocabulary, requests = asyncio.run(
            make_vocabulary(
                snakemake.params.task,
                list(snakemake.input.drafts),
                list(snakemake.input.prompts),
                snakemake.params.model_settings,
            )
        )
        files.write_json(snakemake.output.json, vocabulary)
        files.write_json(snakemake.output.requests, requests)
        print(f"{len(vocabulary['labels'])} labels from {len(vocabulary['drafts'])} drafts")


if "snakemake" in globals():
    main(snakemake)
