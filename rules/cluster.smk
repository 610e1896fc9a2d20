# Needs  the prompt files, the index; the source and the settings through params
# Makes  shards/{shard}.json, shards/{shard}.media.json: markers of what a shard's episodes have
# Steps  run this same workflow for the shard's episodes, inside one job, with its own model server
#
# The episodes' files are no outputs here: they outlive a shard that was ended half-way. Where an
# earlier run finished a shard whose files are not all there any more, its marker does not count.


rule prepare_shard:
    input:
        index=ancient("<results>/{dataset}/episodes.parquet"),
    output:
        marker="<results>/{dataset}/shards/{shard}.media.json",
    log:
        "<results>/{dataset}/logs/prepare_shard/{shard}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/prepare_shard/{shard}.tsv"
    conda:
        "../envs/shard.yaml"
    threads: shard_threads
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=shard_runtime,
    params:
        episodes=shard_episodes,
        sources=shard_media_sources,
        media=MEDIA_DETERMINED_BY,
        work=lambda wildcards, input: shard_work(wildcards, ["media"]),
    script:
        "../scripts/prepare_shard.py"


rule annotate_shard:
    input:
        prompts=prompts_of(*ALL_PROMPTS),
        index=ancient("<results>/{dataset}/episodes.parquet"),
        media=prepared_media,
    output:
        marker="<results>/{dataset}/shards/{shard}.json",
    log:
        "<results>/{dataset}/logs/annotate_shard/{shard}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/annotate_shard/{shard}.tsv"
    conda:
        "../envs/shard.yaml"
    threads: shard_threads
    resources:
        mem_mb=lambda wildcards, attempt: (32000 if RUN.gpus else 8000) * attempt,
        runtime=shard_runtime,
        gpu=RUN.gpus,
    params:
        episodes=shard_episodes,
        sources=shard_sources,
        media=MEDIA_DETERMINED_BY,
        answers=ANSWERS_DETERMINED_BY,
        gaps=shard_gaps,
        work=lambda wildcards, input: shard_work(wildcards, shard_targets()),
    script:
        "../scripts/annotate_shard.py"
