# Inputs:  keyframes/{episode}/, the prompt files, the run's gateway (cuesheet.vlm.run_environment)
# Outputs: plan/{episode}.json, interjections/{episode}.json, vqa/{episode}.json, and
#          inspection/{episode}.json if inspect.enabled
# Steps:   ask the model, clean its replies, write rows and their provenance
#
# Inputs and params are what determines a response. Corrections by people are params, so that only the
# stage whose part of a correction changed runs again. The server's address and concurrency are
# neither. `update` keeps the file of an earlier run if a job fails.
#
# Episodes are annotated in order, but plans, whose requests wait for each other, run ahead of visual
# questions, which wait for nothing: at the end of a run, the questions of the last episodes keep the
# model server busy. A run that is interrupted leaves at most PLANS_AHEAD more plans than questions.


rule annotate_plan:
    input:
        keyframes="<results>/{dataset}/keyframes/{episode}",
        clip=clip_for_plan,
        recording=of_episode(recording_of, CONFIG),
        references=of_episode(reference_files, CONFIG),
        vocabulary=of_episode(vocabulary_of, CONFIG),
        prompts=prompts_of(*prompt_files.PLAN),
    output:
        json=update("<results>/{dataset}/plan/{episode}.json"),
    log:
        "<results>/{dataset}/logs/annotate_plan/{episode}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/annotate_plan/{episode}.tsv"
    priority: in_turn(2, ahead=PLANS_AHEAD)
    conda:
        "../envs/annotate.yaml"
    threads: STAGE_THREADS
    resources:
        mem_mb=1000,
        vlm_jobs=1,
    params:
        model_settings=RUN.model_settings,
        signals=CONFIG.signals.model_dump(),
        references=of_episode(references_of, CONFIG),
        plan=RUN.plan.model_dump(exclude={"vocabulary", "vocabulary_episodes"}),
        vocabulary=of_episode(RUN.labels_for),
        camera=of_episode(RunDataset.default_camera_of),
        # A function of the input: a dataset that moved is not a reason to run again.
        root=lambda wildcards, input: str(dataset_of(wildcards).root),
        given=of_episode(RunDataset.given_subtasks),
        rephrasings=of_episode(RunDataset.corrected_rephrasings),
    script:
        "../scripts/annotate_plan.py"


rule annotate_interjections:
    input:
        keyframes="<results>/{dataset}/keyframes/{episode}",
        plan="<results>/{dataset}/plan/{episode}.json",
        prompts=prompts_of(*prompt_files.INTERJECTIONS),
    output:
        json=update("<results>/{dataset}/interjections/{episode}.json"),
    log:
        "<results>/{dataset}/logs/annotate_interjections/{episode}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/annotate_interjections/{episode}.tsv"
    priority: in_turn(2, ahead=PLANS_AHEAD)
    conda:
        "../envs/annotate.yaml"
    threads: STAGE_THREADS
    resources:
        mem_mb=1000,
        vlm_jobs=1,
    params:
        model_settings=RUN.model_settings,
        interjections=CONFIG.interjections.model_dump(),
        frames=CONFIG.plan.frames.model_dump(),
        camera=of_episode(RunDataset.default_camera_of),
        seed=CONFIG.seed,
        corrections=of_episode(RunDataset.corrected_interjections),
    script:
        "../scripts/annotate_interjections.py"


rule annotate_vqa:
    input:
        keyframes="<results>/{dataset}/keyframes/{episode}",
        # The questions are about the task and the objects of the plan.
        plan="<results>/{dataset}/plan/{episode}.json" if CONFIG.plan.enabled else [],
        prompts=prompts_of(*prompt_files.VQA),
    output:
        json=update("<results>/{dataset}/vqa/{episode}.json"),
    log:
        "<results>/{dataset}/logs/annotate_vqa/{episode}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/annotate_vqa/{episode}.tsv"
    priority: in_turn(2)
    conda:
        "../envs/annotate.yaml"
    threads: STAGE_THREADS
    resources:
        mem_mb=1000,
        vlm_jobs=1,
    params:
        model_settings=RUN.model_settings,
        vqa=CONFIG.vqa.model_dump(),
        cameras=of_episode(RunDataset.vqa_cameras_of),
        coordinates=CONFIG.vlm.coordinates,
        seed=CONFIG.seed,
        corrections=of_episode(RunDataset.vqa_corrections),
    script:
        "../scripts/annotate_vqa.py"


rule inspect_episode:
    input:
        keyframes="<results>/{dataset}/keyframes/{episode}",
        plan="<results>/{dataset}/plan/{episode}.json",
        prompts=prompts_of(*prompt_files.INSPECT),
    output:
        json=update("<results>/{dataset}/inspection/{episode}.json"),
    log:
        "<results>/{dataset}/logs/inspect_episode/{episode}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/inspect_episode/{episode}.tsv"
    priority: in_turn(2, ahead=PLANS_AHEAD)
    conda:
        "../envs/annotate.yaml"
    threads: STAGE_THREADS
    resources:
        mem_mb=1000,
        vlm_jobs=1,
    params:
        model_settings=RUN.model_settings,
        frames=CONFIG.plan.frames.model_dump(),
        camera=of_episode(RunDataset.default_camera_of),
    script:
        "../scripts/inspect_episode.py"
