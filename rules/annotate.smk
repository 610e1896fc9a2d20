# Needs  keyframes/{episode}/, the prompt files, the run's gateway (CUESHEET_SERVER_FILE)
# Makes  plan/{episode}.json, interjections/{episode}.json, vqa/{episode}.json
# Steps  ask the model, clean its replies, write rows and how they came about
#
# Inputs and params are what determines an answer; corrections by people are params, so that only
# the stage whose part of a file changed is made anew. Where the server is and how many calls it takes
# at once is neither. Priorities rise along an episode's way, so that the model has its first questions
# as soon as one episode is decoded, not when all are.


rule annotate_plan:
    input:
        keyframes="<results>/{dataset}/keyframes/{episode}",
        clip=clip_for_plan,
        prompts=prompts_of(*prompt_files.PLAN),
    output:
        json="<results>/{dataset}/plan/{episode}.json",
    log:
        "<results>/{dataset}/logs/annotate_plan/{episode}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/annotate_plan/{episode}.tsv"
    priority: 2
    conda:
        "../envs/annotate.yaml"
    threads: STAGE_THREADS
    resources:
        mem_mb=1000,
        vlm_jobs=1,
    params:
        answers=ANSWERS,
        plan=CONFIG.plan.model_dump(),
        camera=lambda wildcards: of(wildcards).default_camera,
        given=given_subtasks,
    script:
        "../scripts/annotate_plan.py"


rule annotate_interjections:
    input:
        keyframes="<results>/{dataset}/keyframes/{episode}",
        plan="<results>/{dataset}/plan/{episode}.json",
        prompts=prompts_of(*prompt_files.INTERJECTIONS),
    output:
        json="<results>/{dataset}/interjections/{episode}.json",
    log:
        "<results>/{dataset}/logs/annotate_interjections/{episode}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/annotate_interjections/{episode}.tsv"
    priority: 3
    conda:
        "../envs/annotate.yaml"
    threads: STAGE_THREADS
    resources:
        mem_mb=1000,
        vlm_jobs=1,
    params:
        answers=ANSWERS,
        interjections=CONFIG.interjections.model_dump(),
        frames=CONFIG.plan.frames.model_dump(),
        camera=lambda wildcards: of(wildcards).default_camera,
        seed=CONFIG.seed,
    script:
        "../scripts/annotate_interjections.py"


rule annotate_vqa:
    input:
        keyframes="<results>/{dataset}/keyframes/{episode}",
        prompts=prompts_of(*prompt_files.VQA),
    output:
        json="<results>/{dataset}/vqa/{episode}.json",
    log:
        "<results>/{dataset}/logs/annotate_vqa/{episode}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/annotate_vqa/{episode}.tsv"
    priority: 2
    conda:
        "../envs/annotate.yaml"
    threads: STAGE_THREADS
    resources:
        mem_mb=1000,
        vlm_jobs=1,
    params:
        answers=ANSWERS,
        vqa=CONFIG.vqa.model_dump(),
        cameras=lambda wildcards: of(wildcards).vqa_cameras,
        coordinates=CONFIG.vlm.coordinates,
        seed=CONFIG.seed,
        corrections=vqa_corrections,
    script:
        "../scripts/annotate_vqa.py"
