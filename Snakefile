# Cuesheet annotates a LeRobot dataset with timed language.
#
# rules/common.smk       configuration, input functions   rules/annotate.smk   the stages that ask the model
# rules/concurrency.smk  Snakemake's own settings         rules/assemble.smk   validate, merge, finalize
# rules/server.smk       the run's model server           rules/cluster.smk    shards of episodes
# rules/dataset.smk      index of the episodes            rules/report.smk     summary, report, review, scores
# rules/media.smk        clips and keyframes              rules/signals.smk    what the robot recorded
# rules/vocabulary.smk   labels that the model drafts per task

from os.path import exists

from snakemake.utils import min_version

min_version("9.19")


# Every setting has a default, so another working directory needs no copy of this file.
if exists("config/config.yaml"):

    configfile: "config/config.yaml"


include: "rules/concurrency.smk"
include: "rules/common.smk"


wildcard_constraints:
    dataset=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    episode=r"\d{6}",
    camera=r"[^/]+",
    shard=r"\d{5}",
    task=r"[a-z0-9-]+",


include: "rules/server.smk"


rule all:
    input:
        lambda _: targets().clips,
        lambda _: targets().keyframes,
        lambda _: targets().annotations,
        lambda _: targets().details,
        lambda _: targets().datasets,
        lambda _: targets().summaries,
        lambda _: targets().reports,
    localrule: True


rule media:
    input:
        lambda _: targets().media,
    localrule: True


rule vocabularies:
    input:
        lambda _: targets().vocabularies,
    localrule: True


rule annotations:
    input:
        lambda _: targets().annotations,
    localrule: True


rule datasets:
    input:
        lambda _: targets().datasets,
    localrule: True


rule exports:
    input:
        lambda _: targets().exports,
    localrule: True


rule reports:
    input:
        lambda _: targets().reports,
    localrule: True


rule evaluate:
    input:
        lambda _: targets().evaluations,
    localrule: True


include: "rules/dataset.smk"
include: "rules/media.smk"
include: "rules/signals.smk"
include: "rules/vocabulary.smk"
include: "rules/annotate.smk"
include: "rules/assemble.smk"
include: "rules/cluster.smk"
include: "rules/report.smk"


tell_estimate()
