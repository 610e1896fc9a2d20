# Inputs:  keyframes/{episode}/ of a few episodes per task, the prompt files, the run's gateway
# Outputs: vocabulary/drafts/{episode}.json, vocabulary/{task}.json; only with plan.vocabulary: auto
# Steps:   list the steps of a few episodes, make one list of labels per task from them
#
# A draft does not depend on a plan, so all plans can depend on the labels. The episodes of a task are
# those with the lowest numbers, whatever is finished. The file of a task has no times and no record
# of requests: Snakemake compares its content, so plans are made again only if a label changes.


rule draft_vocabulary:
    input:
        keyframes="<results>/{dataset}/keyframes/{episode}",
        prompts=prompts_of(*prompt_files.DRAFT),
    output:
        json=update("<results>/{dataset}/vocabulary/drafts/{episode}.json"),
    log:
        "<results>/{dataset}/logs/draft_vocabulary/{episode}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/draft_vocabulary/{episode}.tsv"
    priority: 4
    conda:
        "../envs/annotate.yaml"
    threads: STAGE_THREADS
    resources:
        mem_mb=1000,
        vlm_jobs=1,
    params:
        model_settings=RUN.model_settings,
        plan=RUN.plan.model_dump(include={"frames", "granularity"}),
        camera=of_episode(RunDataset.default_camera_of),
    script:
        "../scripts/draft_vocabulary.py"


rule build_vocabulary:
    input:
        drafts=lambda wildcards: drafts_of(dataset_of(wildcards), CONFIG, wildcards.task),
        prompts=prompts_of(*prompt_files.BUILD),
    output:
        json=update("<results>/{dataset}/vocabulary/{task}.json"),
        requests=update("<results>/{dataset}/vocabulary/requests/{task}.json"),
    log:
        "<results>/{dataset}/logs/build_vocabulary/{task}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/build_vocabulary/{task}.tsv"
    priority: 4
    conda:
        "../envs/annotate.yaml"
    threads: STAGE_THREADS
    resources:
        mem_mb=500,
        vlm_jobs=1,
    params:
        model_settings=RUN.model_settings,
        task=lambda wildcards: task_called(dataset_of(wildcards), wildcards.task),
    script:
        "../scripts/build_vocabulary.py"
