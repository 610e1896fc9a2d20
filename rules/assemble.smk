# Inputs:  the stage files of every selected episode, the source's data files and metadata
# Outputs: validation/{episode}.json, annotated/data/..., annotated/meta, annotated/videos (if the
#          output is converted to another format, merged/data/... first); subtasks.parquet (with
#          output.subtask_index); annotations.parquet and .jsonl (target `exports`)
# Steps:   check each episode; number the subtasks; write the rows next to the frames; complete the
#          dataset; export


rule validate_episode:
    input:
        unpack(stage_files),
        keyframes="<results>/{dataset}/keyframes/{episode}",
        inspection="<results>/{dataset}/inspection/{episode}.json" if CONFIG.inspect.enabled else [],
    output:
        json=update("<results>/{dataset}/validation/{episode}.json"),
        text=update("<results>/{dataset}/validation/{episode}.txt"),
    log:
        "<results>/{dataset}/logs/validate_episode/{episode}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/validate_episode/{episode}.tsv"
    priority: 3
    conda:
        "../envs/annotate.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        cameras=lambda wildcards: dataset_of(wildcards).cameras,
        verdict=of_episode(RunDataset.verdict),
        leave_out=CONFIG.output.leave_out,
    script:
        "../scripts/validate_episode.py"


rule number_subtasks:
    input:
        annotations=lambda wildcards: targets().annotations_of(dataset_of(wildcards)),
    output:
        table="<results>/{dataset}/subtasks.parquet",
    log:
        "<results>/{dataset}/logs/number_subtasks.log",
    benchmark:
        "<results>/{dataset}/benchmarks/number_subtasks.tsv"
    conda:
        "../envs/assemble.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        root=lambda wildcards: str(dataset_of(wildcards).root),
        results=results_of,
        episodes=lambda wildcards: dataset_of(wildcards).worked_on,
        others=lambda wildcards: dataset_of(wildcards).others,
    script:
        "../scripts/number_subtasks.py"


rule merge_language:
    input:
        data=data_file_of,
        annotations=lambda wildcards: targets().annotations_in(
            dataset_of(wildcards), f"{wildcards.data_file}.parquet"
        ),
        subtasks=subtask_table,
    output:
        data="<results>/{dataset}/{tree}/{data_file}.parquet",
    log:
        "<results>/{dataset}/logs/merge_language/{tree}/{data_file}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/merge_language/{tree}/{data_file}.tsv"
    wildcard_constraints:
        tree="annotated|merged",
        data_file=r"data/.+",
    conda:
        "../envs/assemble.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        root=lambda wildcards: str(dataset_of(wildcards).root),
        source=lambda wildcards: file_state(data_file_of(wildcards)),
        results=results_of,
        episodes=lambda wildcards: dataset_of(wildcards).selected_in(
            f"{wildcards.data_file}.parquet"
        ),
        others=lambda wildcards: dataset_of(wildcards).others_in(f"{wildcards.data_file}.parquet"),
        replaced=(
            replaced_styles(RUN.stages, motion=CONFIG.signals.motion)
            if CONFIG.existing == "merge"
            else None
        ),
        data_file=lambda wildcards: f"{wildcards.data_file}.parquet",
    script:
        "../scripts/merge_language.py"


rule finalize_dataset:
    input:
        metadata=lambda wildcards: dataset_of(wildcards).metadata_files,
        data=merged_data_files,
        subtasks=subtask_table,
    output:
        info="<results>/{dataset}/annotated/meta/info.json",
    log:
        "<results>/{dataset}/logs/finalize_dataset.log",
    benchmark:
        "<results>/{dataset}/benchmarks/finalize_dataset.tsv"
    conda:
        "../envs/assemble.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        root=lambda wildcards: str(dataset_of(wildcards).root),
        source=lambda wildcards: [file_state(path) for path in dataset_of(wildcards).metadata_files],
        results=results_of,
        videos=CONFIG.output.videos,
        extra_files=CONFIG.output.extra_files,
        convert=lambda wildcards: dataset_of(wildcards).is_converted,
        # Functions of the input: the check depends on them, its output does not.
        cameras=lambda wildcards, input: dataset_of(wildcards).cameras,
        selected=lambda wildcards, input: dataset_of(wildcards).worked_on,
    script:
        "../scripts/finalize_dataset.py"


rule export_annotations:
    input:
        info="<results>/{dataset}/annotated/meta/info.json",
        data=merged_data_files,
    output:
        **(
            {"inspections": "<results>/{dataset}/inspections.jsonl"}
            if CONFIG.inspect.enabled
            else {}
        ),
        parquet="<results>/{dataset}/annotations.parquet",
        jsonl="<results>/{dataset}/annotations.jsonl",
    log:
        "<results>/{dataset}/logs/export_annotations.log",
    benchmark:
        "<results>/{dataset}/benchmarks/export_annotations.tsv"
    conda:
        "../envs/assemble.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        results=results_of,
    script:
        "../scripts/export_annotations.py"
