# Needs  the source's videos (or the pictures in its data files), episodes.parquet
# Makes  clips/{camera}/episode_{episode}.mp4 and keyframes/{episode}/
# Steps  cut every episode out of its file; decode the frames that the stages look at
#
# The index is an ancient input: when the source gains episodes it is made anew, and only what
# changed of an episode (its fingerprint, its video files) makes the episode's own files anew.


rule extract_clip:
    input:
        source=source_video,
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
        source=clip_source,
        clip=CLIP,
    script:
        "../scripts/extract_clip.py"


rule decode_keyframes:
    input:
        videos=source_videos,
        index=ancient("<results>/{dataset}/episodes.parquet"),
    output:
        keyframes=directory("<results>/{dataset}/keyframes/{episode}"),
    log:
        "<results>/{dataset}/logs/decode_keyframes/{episode}.log",
    benchmark:
        "<results>/{dataset}/benchmarks/decode_keyframes/{episode}.tsv"
    priority: 1
    conda:
        "../envs/media.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        root=lambda wildcards: str(of(wildcards).root),
        source=keyframes_source,
        cameras=lambda wildcards: of(wildcards).cameras,
        decoder=CONFIG.keyframes.decoder,
        per_second=CONFIG.keyframes.per_second,
        vqa_hz=CONFIG.vqa.hz if CONFIG.vqa.enabled else None,
        vqa_frames=CONFIG.vqa.frames,
    script:
        "../scripts/decode_keyframes.py"
