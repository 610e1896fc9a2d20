# Needs  the finished dataset and the stage files
# Makes  summary.json, summary.txt
# Steps  count what was written and what it took


rule summarize_dataset:
    input:
        info="results/{dataset}/annotated/meta/info.json",
    output:
        json="results/{dataset}/summary.json",
        text="results/{dataset}/summary.txt",
    log:
        "results/{dataset}/logs/summarize_dataset.log",
    benchmark:
        "results/{dataset}/benchmarks/summarize_dataset.tsv"
    conda:
        "../envs/assemble.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        results=lambda wildcards: f"results/{wildcards.dataset}",
        left_out=lambda wildcards: sorted(of(wildcards).left_out),
        kept=lambda wildcards: sorted(of(wildcards).kept),
    script:
        "../scripts/summarize_dataset.py"
