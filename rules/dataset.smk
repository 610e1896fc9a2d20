# Needs  the source dataset
# Makes  results/{dataset}/episodes.parquet: what the metadata says of every episode, checked
# Steps  read the metadata, compare it with the data and video files
#
# This rule runs where there is no index. An index that no longer fits its source is made anew when
# a run starts (`refresh_indexes`), not by this rule: a job that is to run hides from Snakemake (up
# to 9.27 at least) what else changed for the jobs behind it, even behind ancient(). So the rule has
# no input and its params are functions of the input, which are no rerun triggers.


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
        root=lambda wildcards, input: str(of(wildcards).root),
        selected=lambda wildcards, input: of(wildcards).worked_on,
    script:
        "../scripts/index_episodes.py"
