"""Makes the lists of labels of all tasks before the shards start, with its own model server.

In: the prompt files; what determines the lists is in the params. Out: a marker with the digest of
each list, on which the shards depend. The workflow, which runs again inside this job for the
episodes that are drafted, creates the lists.
"""

from pathlib import Path

from cuesheet import files, job_log
from cuesheet.artifacts.layout import VOCABULARY_JOB
from cuesheet.artifacts.stage_files import digest
from cuesheet.cluster.job import ShardJob
from cuesheet.errors import SurroundingsError


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]):
        dataset, work = snakemake.wildcards.dataset, snakemake.params.work
        job = ShardJob(dataset, VOCABULARY_JOB, work, snakemake.threads, snakemake.log[0])
        job.run()
        found = {Path(path).name: digest(path) for path in work["files"]}
        missing = [name for name, value in found.items() if value is None]
        if missing:
            raise SurroundingsError(
                f"{job.name} are not complete: {', '.join(missing)} could not be made; the cause "
                "is above in this log"
            )
        files.write_json(snakemake.output.marker, {"format": 1, "lists": found})


if "snakemake" in globals():
    main(snakemake)
