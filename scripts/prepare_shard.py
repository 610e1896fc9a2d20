"""Creates the clips and keyframes of one shard's episodes in a job without a GPU.

In: the index; the sources are in the params. Out: a marker with the shard's episodes. The
workflow, which runs again inside this job, creates the files themselves.
"""

from cuesheet import files, job_log
from cuesheet.cluster.job import ShardJob


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]):
        wildcards, work = snakemake.wildcards, snakemake.params.work
        log = snakemake.log[0]
        job = ShardJob(wildcards.dataset, wildcards.shard, work, snakemake.threads, log)
        job.run()
        files.write_json(snakemake.output.marker, {"format": 1, "episodes": list(job.episodes)})


if "snakemake" in globals():
    main(snakemake)
