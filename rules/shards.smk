# Lookups of rules/cluster.smk: the shards of every dataset, and what determines their annotations.

from cuesheet.cluster.job import OUTER_RUN_VARIABLE
from cuesheet.cluster.plan import ShardPlan
from cuesheet.cluster.report import say_unfinished, start_record

# For a job on a cluster; a profile's `set-threads` changes it.
SHARD_CPUS = 8

PLANS = {
    name: ShardPlan(dataset, CONFIG.cluster, RUN.stages) for name, dataset in RUN.datasets.items()
}

ALL_PROMPTS = dict.fromkeys(
    name for stage in RUN.stages for name in getattr(prompt_files, stage.upper())
)

MEDIA_DETERMINED_BY = {
    "clips": CONFIG.media.model_dump(),
    "keyframes": CONFIG.keyframes.model_dump(),
    "vqa": [CONFIG.vqa.enabled, CONFIG.vqa.hz, CONFIG.vqa.frames],
}
ANSWERS_DETERMINED_BY = {
    "answers": ANSWERS,
    "stages": {stage: getattr(CONFIG, stage).model_dump() for stage in RUN.stages},
    "cameras": [[data.default_camera, *data.vqa_cameras] for data in RUN.datasets.values()],
    "coordinates": CONFIG.vlm.coordinates,
    "seed": CONFIG.seed,
}


def to_cluster():
    """Whether jobs go to a cluster. Known only after the rules are read; on a dry run Snakemake
    swaps the executor, and what is left of it is that its jobs would have used threads."""
    return (
        workflow.remote_exec
        or workflow.non_local_exec
        or (workflow.dryrun and workflow.execution_settings.use_threads)
    )


def sharded():
    return RUN.is_sharded(to_cluster())


@functools.cache
def forget_gaps():
    """Make the markers of shards whose episodes' files are not all there any more not count."""
    if not workflow.is_main_process or workflow.dryrun or workflow.touch:
        return
    for plan in PLANS.values():
        for shard in plan.gaps():
            Path(plan.marker(shard)).unlink(missing_ok=True)


@plain
def plan_of(wildcards):
    of(wildcards)
    return PLANS[wildcards.dataset]


@plain
def shard_episodes(wildcards):
    return plan_of(wildcards).episodes(wildcards.shard)


@plain
def shard_sources(wildcards):
    return plan_of(wildcards).sources(wildcards.shard)


@plain
def shard_media_sources(wildcards):
    return plan_of(wildcards).media_sources(wildcards.shard)


@plain
def shard_gaps(wildcards):
    """On a dry run, where the marker must stay: what is missing, so that the shard is listed."""
    return plan_of(wildcards).gaps().get(wildcards.shard) if workflow.dryrun else None


def shard_threads(wildcards):
    """On one machine a shard has all of it: its model server wants the GPUs."""
    return SHARD_CPUS if to_cluster() else CORES


@plain
def shard_runtime(wildcards, attempt):
    """Minutes: loading the model and three times what was estimated, more at every attempt."""
    return round((30 + 3 * plan_of(wildcards).minutes(wildcards.shard)) * attempt)


def shard_targets():
    """What a shard's own job makes."""
    return ["annotations"] if CONFIG.cluster.media == "separate" else ["media", "annotations"]


@plain
def shard_work(wildcards, targets):
    """What the job needs beside; as a function of the input it is no rerun trigger."""
    plan = plan_of(wildcards)
    return {
        "episodes": plan.worked_on(wildcards.shard),
        "stages": RUN.stages,
        "targets": targets,
        "jobs_per_cpu": CONFIG.cluster.jobs_per_cpu,
        "scratch": CONFIG.cluster.scratch,
        "snakefile": str(workflow.main_snakefile),
        "options": deployment_options(),
    }


def deployment_options():
    """Command-line options that give the inner run the outer one's software environments."""
    settings = workflow.deployment_settings
    options = []
    if settings.deployment_method:
        options += ["--sdm", *(str(method) for method in sorted(settings.deployment_method))]
    for name, value in (
        ("--conda-prefix", settings.conda_prefix),
        ("--apptainer-prefix", settings.apptainer_prefix),
        ("--apptainer-args", settings.apptainer_args),
    ):
        if value:
            options += [name, str(value)]
    return options


def prepared_media(wildcards):
    if CONFIG.cluster.media != "separate":
        return []
    return plan_of(wildcards).media_marker(wildcards.shard)


def all_shards():
    forget_gaps()
    return [plan.marker(shard) for plan in PLANS.values() for shard in plan.shards]


def shards_of(wildcards):
    """Markers of all shards of one dataset."""
    forget_gaps()
    plan = plan_of(wildcards)
    return [plan.marker(shard) for shard in plan.shards]


def all_media_shards(wildcards):
    """Where media are asked for: markers of the jobs that make nothing else."""
    if not sharded():
        return []
    return [plan.media_marker(shard) for plan in PLANS.values() for shard in plan.shards]


def shards_of_data_file(wildcards):
    """Markers of the shards that the chosen episodes of one data file are in."""
    if not sharded():
        return []
    forget_gaps()
    return plan_of(wildcards).markers_of(selected_in_data_file(wildcards))


def start_shards():
    """Note which run is the newest, and which shards it has."""
    os.environ[OUTER_RUN_VARIABLE] = start_record(PLANS)
