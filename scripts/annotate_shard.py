"""Annotates the episodes of one shard with its own model server.

In: the prompt files; what determines the shard's answers is in the params. Out: the shard's marker,
with the digest of every episode's validation. The workflow, which runs again inside this job,
creates the files of the episodes. An episode that fails is in the marker's list `failed`; the job
itself fails only if its environment failed: ended, out of time, no model server.
"""

from cuesheet import files, job_log
from cuesheet.cluster.job import ShardJob


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]):
        wildcards, work = snakemake.wildcards, snakemake.params.work
        log = snakemake.log[0]
        job = ShardJob(wildcards.dataset, wildcards.shard, work, snakemake.threads, log)
        job.run()
        files.write_json(snakemake.output.marker, job.marker())


if "snakemake" in globals():
    main(snakemake)
