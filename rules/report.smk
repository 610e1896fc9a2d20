# Inputs:  the finished dataset, the stage files and clips; a reference, if there is one
# Outputs: summary.json, summary.txt, report.html, review/, evaluation.json, .txt and .svg
# Steps:   count what was written and what it cost; show it; score it
#
# build_review updates its folder in place, so the folder is not declared as an output.


rule summarize_dataset:
    input:
        info="<results>/{dataset}/annotated/meta/info.json",
        data=merged_data_files,
    output:
        json="<results>/{dataset}/summary.json",
        text=report(
            "<results>/{dataset}/summary.txt",
            caption="../docs/captions/summary.rst",
            category="{dataset}",
            labels={"what": "summary"},
        ),
    log:
        "<results>/{dataset}/logs/summarize_dataset.log",
    benchmark:
        "<results>/{dataset}/benchmarks/summarize_dataset.tsv"
    conda:
        "../envs/assemble.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        results=results_of,
        left_out=lambda wildcards: sorted(dataset_of(wildcards).left_out),
        kept=lambda wildcards: sorted(dataset_of(wildcards).kept),
    script:
        "../scripts/summarize_dataset.py"


rule write_report:
    input:
        summary="<results>/{dataset}/summary.json",
        data=merged_data_files,
        evaluation=lambda wildcards: targets().evaluation_of(wildcards.dataset),
    output:
        html=report(
            "<results>/{dataset}/report.html",
            caption="../docs/captions/report.rst",
            category="{dataset}",
            labels={"what": "report"},
        ),
    log:
        "<results>/{dataset}/logs/write_report.log",
    benchmark:
        "<results>/{dataset}/benchmarks/write_report.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        results=results_of,
        selected=lambda wildcards: sorted(
            {*dataset_of(wildcards).selected} - dataset_of(wildcards).kept
        ),
        prompts_dir=lambda wildcards: str(dataset_of(wildcards).prompts_dir),
        report=CONFIG.report.model_dump(),
    script:
        "../scripts/write_report.py"


rule build_review:
    input:
        summary="<results>/{dataset}/summary.json",
        data=merged_data_files,
        clips=clips_of_page,
    output:
        page="<results>/{dataset}/review/index.html",
    log:
        "<results>/{dataset}/logs/build_review.log",
    benchmark:
        "<results>/{dataset}/benchmarks/build_review.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        results=results_of,
        corrections=lambda wildcards: f"{CONFIG.corrections_dir}/{wildcards.dataset}",
        # A correction that repeats the model's subtasks changes no input, but is applied too.
        corrected=lambda wildcards: dataset_of(wildcards).corrections_state,
        default_camera=lambda wildcards: dataset_of(wildcards).default_camera,
    script:
        "../scripts/build_review.py"


rule score_annotations:
    input:
        annotations=lambda wildcards: targets().scored_files(dataset_of(wildcards)),
        reference=reference_of,
        prompts=judge_prompts,
    output:
        json="<results>/{dataset}/evaluation.json",
        text=report(
            "<results>/{dataset}/evaluation.txt",
            caption="../docs/captions/evaluation.rst",
            category="{dataset}",
            labels={"what": "scores"},
        ),
        plot=report(
            "<results>/{dataset}/evaluation.svg",
            caption="../docs/captions/evaluation.rst",
            category="{dataset}",
            labels={"what": "scores, plotted"},
        ),
    log:
        "<results>/{dataset}/logs/score_annotations.log",
    benchmark:
        "<results>/{dataset}/benchmarks/score_annotations.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        results=results_of,
        evaluate=CONFIG.evaluate.model_dump(exclude={"reference"}),
        model_settings=RUN.model_settings if CONFIG.evaluate.judge else None,
    script:
        "../scripts/score_annotations.py"
