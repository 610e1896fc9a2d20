# Inputs:  the source's data files (state and action), episodes.parquet
# Outputs: signals/layout.json, signals/{episode}.json
# Steps:   detect arms and grippers in the first episodes; measure strokes and rests per episode
#
# detect_signals runs only if there is no layout, for the same reason as index_episodes. When a run
# starts, an existing layout is detected again if the source or the settings changed, and written only
# if other arms or grippers are found (`RunDataset.refresh_signals_layout`). A dataset that gained
# episodes therefore keeps the signals of the others, and their plans. The rule reads a few columns of
# at most eight episodes, so it is a local rule.


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
    localrule: True
    conda:
        "../envs/media.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        root=lambda wildcards, input: str(dataset_of(wildcards).root),
        signals=lambda wildcards, input: CONFIG.signals.detection,
    script:
        "../scripts/detect_signals.py"


rule extract_signals:
    input:
        index=ancient("<results>/{dataset}/episodes.parquet"),
        layout="<results>/{dataset}/signals/layout.json",
    output:
        json="<results>/{dataset}/signals/{episode}.json",
    log:
        "<results>/{dataset}/logs/extract_signals/{episode}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/extract_signals/{episode}.tsv"
    priority: in_turn(1)
    conda:
        "../envs/media.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        # A function of the input: a dataset that moved is not a reason to run again.
        root=lambda wildcards, input: str(dataset_of(wildcards).root),
        source=of_episode(RunDataset.signals_source),
        signals=CONFIG.signals.detection,
    script:
        "../scripts/extract_signals.py"
