# Inputs:  the source's videos (or the images in its data files), episodes.parquet
# Outputs: clips/{camera}/episode_{episode}.mp4 and keyframes/{episode}/
# Steps:   cut every episode out of its file; decode the frames that the stages look at
#
# The index is an ancient input: it is re-created if the source gains episodes, but an episode's files
# are re-created only if the episode itself changed (its fingerprint or its video files). The source's
# files are not inputs, because Snakemake would re-create everything if the dataset moved; `source` has
# their size and time instead. `root` is a function of the input, which does not trigger reruns.


rule extract_clip:
    input:
        index=ancient("<results>/{dataset}/episodes.parquet"),
    output:
        clip="<results>/{dataset}/clips/{camera}/episode_{episode}.mp4",
    log:
        "<results>/{dataset}/logs/extract_clip/{camera}/{episode}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/extract_clip/{camera}/{episode}.tsv"
    conda:
        "../envs/media.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        root=lambda wildcards, input: str(dataset_of(wildcards).root),
        source=lambda wildcards: dataset_of(wildcards).clip_source(
            int(wildcards.episode), wildcards.camera
        ),
        clip=RUN.clip_settings,
    script:
        "../scripts/extract_clip.py"


rule decode_keyframes:
    input:
        index=ancient("<results>/{dataset}/episodes.parquet"),
    output:
        keyframes=directory("<results>/{dataset}/keyframes/{episode}"),
    log:
        "<results>/{dataset}/logs/decode_keyframes/{episode}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/decode_keyframes/{episode}.tsv"
    priority: in_turn(1)
    conda:
        "../envs/media.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        root=lambda wildcards, input: str(dataset_of(wildcards).root),
        source=of_episode(RunDataset.keyframes_source),
        cameras=of_episode(RunDataset.cameras_of),
        decoder=CONFIG.keyframes.decoder,
        per_second=CONFIG.keyframes.per_second,
        vqa_hz=CONFIG.vqa.hz if CONFIG.vqa.enabled else None,
        vqa_frames=CONFIG.vqa.frames,
        fine_per_second=RUN.fine_per_second,
    script:
        "../scripts/decode_keyframes.py"
