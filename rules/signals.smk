# Inputs:  the source's data files (state and action), episodes.parquet
# Outputs: signals/layout.json, signals/{episode}.json
# Steps:   find arms and grippers in a fixed sample of episodes; measure strokes and rests per episode
#
# The layout depends on the lowest episode numbers alone, so it does not depend on the order of jobs
# or on the episodes that are selected.


rule detect_signals:
    input:
        index=ancient("<results>/{dataset}/episodes.parquet"),
    output:
        layout="<results>/{dataset}/signals/layout.json",
    log:
        "<results>/{dataset}/logs/detect_signals.log",
    benchmark:
        "<results>/{dataset}/benchmarks/detect_signals.tsv"
    priority: 3
    conda:
        "../envs/media.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        root=lambda wildcards: str(dataset_of(wildcards).root),
        signals=CONFIG.signals.model_dump(include={"state", "action", "gripper"}),
    script:
        "../scripts/detect_signals.py"


rule extract_signals:
    input:
        index=ancient("<results>/{dataset}/episodes.parquet"),
        layout=ancient("<results>/{dataset}/signals/layout.json"),
    output:
        json="<results>/{dataset}/signals/{episode}.json",
    log:
        "<results>/{dataset}/logs/extract_signals/{episode}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/extract_signals/{episode}.tsv"
    priority: 2
    conda:
        "../envs/media.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        root=lambda wildcards: str(dataset_of(wildcards).root),
        source=lambda wildcards: dataset_of(wildcards).signals_source(int(wildcards.episode)),
        signals=CONFIG.signals.model_dump(include={"state", "action", "gripper"}),
    script:
        "../scripts/extract_signals.py"
