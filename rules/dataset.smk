# Inputs:  the source dataset
# Outputs: episodes.parquet: the metadata of every episode, checked
# Steps:   read the metadata, compare it with the data and video files
#
# This rule runs only if there is no index. If an index no longer matches its source, it is re-created
# when a run starts (`RunDataset.refresh_index`): a planned job hides from Snakemake (9.27) what else
# changed for the jobs that depend on it, even behind ancient(). So the rule has no input, and its
# params are functions of the input, which do not trigger reruns.


rule index_episodes:
    output:
        index="<results>/{dataset}/episodes.parquet",
    log:
        "<results>/{dataset}/logs/index_episodes.log",
    benchmark:
        "<results>/{dataset}/benchmarks/index_episodes.tsv"
    conda:
        "../envs/media.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        root=lambda wildcards, input: str(dataset_of(wildcards).root),
        cameras=lambda wildcards, input: dataset_of(wildcards).cameras,
        selected=lambda wildcards, input: dataset_of(wildcards).worked_on,
    script:
        "../scripts/index_episodes.py"
