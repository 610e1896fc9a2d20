# Needs  the source dataset
# Makes  results/{dataset}/episodes.parquet: what the metadata says of every episode, checked
# Steps  read the metadata, compare it with the data and video files


rule index_episodes:
    input:
        metadata=metadata_files,
        files=source_files,
    output:
        index="results/{dataset}/episodes.parquet",
    log:
        "results/{dataset}/logs/index_episodes.log",
    benchmark:
        "results/{dataset}/benchmarks/index_episodes.tsv"
    conda:
        "../envs/media.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        root=lambda wildcards: str(of(wildcards).root),
    script:
        "../scripts/index_episodes.py"
