# Cuesheet: a LeRobot dataset in, the same dataset with timed language out.
#
# rules/common.smk     configuration and lookups      rules/annotate.smk   the VLM's stages
# rules/dataset.smk    index of the episodes          rules/assemble.smk   validate, merge, finalize
# rules/media.smk      clips and keyframes            rules/report.smk     summary, report, review, scores
# rules/server.smk     the run's model server         rules/cluster.smk    shards of episodes

from os.path import exists

from snakemake.utils import min_version

min_version("9.19")


# Every setting has a default, so a working directory of one's own needs no copy of the file.
if exists("config/config.yaml"):

    configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/shards.smk"


wildcard_constraints:
    dataset=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    episode=r"\d{6}",
    camera=r"[^/]+",
    shard=r"\d{5}",


include: "rules/server.smk"


localrules:
    all,
    media,
    annotations,
    datasets,
    exports,
    reports,
    evaluate,


rule all:
    default_target: True
    input:
        all_clips,
        all_keyframes,
        all_annotations,
        all_datasets,
        all_summaries,
        all_reports,


rule media:
    input:
        all_clips,
        all_keyframes,
        all_media_shards,


rule annotations:
    input:
        all_annotations,


rule datasets:
    input:
        all_datasets,


rule exports:
    input:
        all_exports,


rule reports:
    input:
        all_reports,


rule evaluate:
    input:
        all_evaluations,


include: "rules/dataset.smk"
include: "rules/media.smk"
include: "rules/annotate.smk"
include: "rules/assemble.smk"
include: "rules/cluster.smk"
include: "rules/report.smk"
