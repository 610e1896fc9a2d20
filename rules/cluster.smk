# Inputs:  the prompt files, the index; the source and the settings through params
# Outputs: shards/{shard}.json, shards/{shard}.media.json: markers of finished shards;
#          shards/vocabulary.json: marker of the labels that are drafted before the shards start
# Steps:   run this same workflow for the shard's episodes, inside one job, with its own model server
#
# The episodes' files are not outputs of these rules, so they survive if a shard's job is killed. If
# files of a finished shard were deleted, its marker is deleted when the next run is planned.

IS_MEDIA_SEPARATE = CONFIG.cluster.media == "separate"


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
        # Minutes: loading the model, and three times the estimate.
        runtime=lambda wildcards, attempt: round(
            (30 + 3 * shard_plan(wildcards).minutes(wildcards.shard)) * attempt
        ),
    params:
        episodes=lambda wildcards: shard_plan(wildcards).episodes(wildcards.shard),
        sources=lambda wildcards: shard_plan(wildcards).media_sources(wildcards.shard),
        media=RUN.media_settings,
        work=lambda wildcards, input: shard_params(wildcards, ["media"]),
    script:
        "../scripts/prepare_shard.py"


rule prepare_vocabulary:
    input:
        prompts=prompts_of(*prompt_files.of_stages(["vocabulary"])),
        index=ancient("<results>/{dataset}/episodes.parquet"),
        media=drafted_media,
        # No other job decodes keyframes while this one does.
        shared=lambda wildcards: shared_files(
            dataset_of(wildcards), CONFIG, dataset_of(wildcards).worked_on
        ),
    output:
        marker="<results>/{dataset}/shards/vocabulary.json",
    log:
        "<results>/{dataset}/logs/prepare_vocabulary.log",
    benchmark:
        "<results>/{dataset}/benchmarks/prepare_vocabulary.tsv"
    conda:
        "../envs/shard.yaml"
    threads: shard_threads
    resources:
        mem_mb=lambda wildcards, attempt: (32000 if RUN.gpus else 8000) * attempt,
        # Minutes: loading the model, and a few seconds per draft.
        runtime=lambda wildcards, attempt: round(
            (30 + len(drafted_in(dataset_of(wildcards), CONFIG)) / 4) * attempt
        ),
        gpu=RUN.gpus,
    params:
        tasks=lambda wildcards: drafted_episodes(dataset_of(wildcards), CONFIG),
        sources=lambda wildcards: SHARD_PLANS[wildcards.dataset].media_hash(
            drafted_in(dataset_of(wildcards), CONFIG)
        ),
        media=RUN.media_settings,
        model_settings=RUN.model_settings,
        plan=RUN.plan.model_dump(include={"frames", "granularity"}),
        work=lambda wildcards, input: vocabulary_params(wildcards),
    script:
        "../scripts/prepare_vocabulary.py"


rule annotate_shard:
    input:
        vocabulary=lambda wildcards: (
            str(dataset_of(wildcards).layout.shards_vocabulary)
            if drafted_episodes(dataset_of(wildcards), CONFIG)
            else []
        ),
        prompts=prompts_of(*prompt_files.of_stages(RUN.asking_stages)),
        index=ancient("<results>/{dataset}/episodes.parquet"),
        media=lambda wildcards: (
            shard_plan(wildcards).media_marker(wildcards.shard) if IS_MEDIA_SEPARATE else []
        ),
        shared=lambda wildcards: shared_files(
            dataset_of(wildcards), CONFIG, shard_plan(wildcards).episodes(wildcards.shard)
        ),
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
        # Minutes: loading the model, and three times the estimate.
        runtime=lambda wildcards, attempt: round(
            (30 + 3 * shard_plan(wildcards).minutes(wildcards.shard)) * attempt
        ),
        gpu=RUN.gpus,
    params:
        episodes=lambda wildcards: shard_plan(wildcards).episodes(wildcards.shard),
        sources=lambda wildcards: shard_plan(wildcards).sources(wildcards.shard),
        media=RUN.media_settings,
        model_settings=RUN.annotation_settings,
        references=lambda wildcards: shared_references(
            dataset_of(wildcards), CONFIG, shard_plan(wildcards).episodes(wildcards.shard)
        ),
        # Dry runs do not delete the marker of an incomplete shard. This param lists the shard anyway.
        gaps=lambda wildcards: (
            shard_plan(wildcards).gaps().get(wildcards.shard) if workflow.dryrun else None
        ),
        work=lambda wildcards, input: shard_params(
            wildcards, ["annotations"] if IS_MEDIA_SEPARATE else ["media", "annotations"]
        ),
    script:
        "../scripts/annotate_shard.py"
