# Needs  the stage files of every chosen episode, the source's data files and metadata
# Makes  validation/{episode}.json, annotated/data/..., annotated/meta, annotated/videos (where the
#        output has another format than the source, merged/data/... and then annotated/);
#        annotations.parquet and .jsonl (target `exports`)
# Steps  check each episode; write its rows beside its frames; complete the dataset; export


rule validate_episode:
    input:
        unpack(stage_files),
        keyframes="<results>/{dataset}/keyframes/{episode}",
    output:
        json="<results>/{dataset}/validation/{episode}.json",
        text="<results>/{dataset}/validation/{episode}.txt",
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
        cameras=lambda wildcards: of(wildcards).cameras,
        verdict=verdict,
    script:
        "../scripts/validate_episode.py"


rule merge_language:
    input:
        data=data_file_of,
        validation=validations_of_data_file,
        annotations=stage_files_of_data_file,
        shards=shards_of_data_file,
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
        root=lambda wildcards: str(of(wildcards).root),
        source=data_file_state,
        results=results_of,
        episodes=selected_in_data_file,
        others=others_in_data_file,
        replaced=replaced_styles(RUN.stages) if CONFIG.existing == "merge" else None,
        data_file=lambda wildcards: f"{wildcards.data_file}.parquet",
    script:
        "../scripts/merge_language.py"


rule finalize_dataset:
    input:
        metadata=metadata_files,
        data=merged_data_files,
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
        root=lambda wildcards: str(of(wildcards).root),
        source=metadata_state,
        results=results_of,
        videos=CONFIG.output.videos,
        extra_files=CONFIG.output.extra_files,
        convert=lambda wildcards: of(wildcards).is_laid_out_anew,
    script:
        "../scripts/finalize_dataset.py"


rule export_annotations:
    input:
        info="<results>/{dataset}/annotated/meta/info.json",
        data=merged_data_files,
    output:
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
    script:
        "../scripts/export_annotations.py"
