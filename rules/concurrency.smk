# Everything that reads or changes Snakemake's own settings.
#
# Checked with the version below; tests/unit/workflow/test_concurrency.py fails if another one is
# installed. CUESHEET_CONCURRENCY=off switches the changes off: a job that waits for the model then
# occupies a core, and every job starts its own Python.

import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

CHECKED_WITH_SNAKEMAKE = "9.27.1"

# A module leaves the settings of the workflow that uses it as they are.
IS_MODULE = not workflow.modifier.is_main_snakefile()
IS_SWITCHED_OFF = os.environ.get("CUESHEET_CONCURRENCY") == "off"
MAY_TUNE_SNAKEMAKE = not IS_SWITCHED_OFF and not IS_MODULE
CORES = workflow.resource_settings.cores  # as given: `stage_threads` raises the limit

# Threads of a job on a cluster. The profile's `set-threads` changes it.
SHARD_CPUS = 8


def results_root():
    """Return the results folder, relative to the working directory.

    A module's `prefix:` or `replace_prefix:` becomes part of the path variable <results> instead.
    Snakemake would also prepend it to relative paths of the source dataset, and to what input
    functions return, which has it already.
    """
    modifier = workflow.modifier.path_modifier
    folder = Path(modifier.replace_prefix(workflow.pathvars.apply("<results>/_"))).parent
    workflow.pathvars.items["results"] = str(folder)
    modifier.prefix = modifier._prefix_replacements = modifier.inner_modifier = None
    return folder


def to_cluster():
    """Tell whether jobs run on a cluster.

    Known only after the rules are read. A dry run replaces the executor; what remains visible is
    whether its jobs would have used threads.
    """
    return (
        workflow.remote_exec
        or workflow.non_local_exec
        or (workflow.dryrun and workflow.execution_settings.use_threads)
    )


def stage_threads():
    """Return the threads of a job that waits for the model: 0, so it never blocks other jobs.

    Snakemake runs at most as many jobs at once as it has cores, plus 5. For local jobs that limit is
    raised here (the cores are not), and the resource `vlm_jobs` limits the waiting jobs. Replays do
    not wait, and on a cluster every job has its own core. For a module the limit stays.
    """
    settings, limits = workflow.resource_settings, workflow.global_resources
    is_local = workflow.is_main_process and settings.nodes is None and settings.cores
    if CONFIG.vlm.serve == "replay" or not is_local or IS_SWITCHED_OFF:
        return 1
    if IS_MODULE:
        return 0
    if "vlm_jobs" not in limits:
        limits["vlm_jobs"] = min(CONFIG.vlm.concurrency, max(32, 4 * settings.cores))
    settings.cores += limits["vlm_jobs"].value
    return 0


def most_waiting_jobs():
    """Return how many jobs may wait for the model at the same time; 0 if jobs do not wait."""
    limits = workflow.global_resources
    return limits["vlm_jobs"].value if "vlm_jobs" in limits else 0


def lift_job_rate():
    """Start local jobs without a limit per second. Called when the first job is about to start.

    With a limit, which is Snakemake's default, every job that starts or ends makes the scheduler
    select jobs again one second later, which makes it do so again another second later, and so on:
    after 100 jobs it does nothing else.
    """
    if MAY_TUNE_SNAKEMAKE and workflow.resource_settings.nodes is None:
        workflow.scheduler.job_rate_limiter = None


def receive_sigterm_in_thread():
    """Let a thread run Snakemake's handler of SIGTERM. Called when the first job is about to start.

    The handler waits for a lock. In the main thread it would wait forever if the signal arrives while
    the scheduler holds that lock.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler):
        signal.signal(
            signal.SIGTERM,
            lambda *received: threading.Thread(target=handler, args=received).start(),
        )


def keep_records_of_restored_files():
    """Let the next run repeat a failed job whose output was restored. Called before the first job.

    If a job with an `update` output fails, Snakemake restores the file of the earlier run, but with a
    new time, and records it as made with the params and inputs of the failed job. The next run would
    take the old file for finished. Here it keeps its time and its record, also in a module, but only
    below the results folder.
    """
    if IS_SWITCHED_OFF:
        return
    persistence = workflow.persistence
    restore, finish, restored = persistence.restore_output, persistence.finished, set()

    def restore_output(path):
        is_restored = restore(path)
        if is_restored and path.is_relative_to(RUN.results_root):
            record = persistence._read_record(str(path))
            if record is not None and record.endtime is not None:
                with suppress(PermissionError):  # only the owner of a file may set its time
                    os.utime(path, (record.endtime, record.endtime))
                restored.add(str(path))
        return is_restored

    async def finished(job):
        kept = restored.intersection(map(str, job.output))
        if not kept:
            await finish(job)
        for file in kept:
            persistence._unmark_incomplete(file)
        restored.difference_update(kept)

    persistence.restore_output, persistence.finished = restore_output, finished


def shard_threads(wildcards):
    """Return the threads of a shard's job: all cores on one machine, because it uses the GPUs."""
    return SHARD_CPUS if to_cluster() else CORES


def deployment_options():
    """Return the options that give a shard's inner run the same software environments."""
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


def has_own_logger():
    """Tell whether Cuesheet's logger plugin prints the messages of this run."""
    handlers = workflow.logger_manager.get_log_handlers()
    return any(type(one).__module__ == "snakemake_logger_plugin_cuesheet" for one in handlers)


def tell(text):
    """Print a message on the terminal, in order with Snakemake's own."""
    if has_own_logger():
        logger.info(text, extra={"cuesheet": True})
    else:
        print(text, file=sys.stderr, flush=True)


def tell_estimate():
    """On a dry run, print what the run will cost.

    `workflow.dryrun` is known only after the rules are read, when no hook runs on a dry run.
    """
    if not workflow.output_settings.dryrun or not workflow.is_main_process or SHARD_FILE:
        return
    if CONFIG.vlm.serve == "replay" or not RUN.stages:
        return
    from cuesheet.app.estimate_text import as_line
    from cuesheet.workflow.estimate import estimate_run

    for estimate in as_workflow_error(estimate_run)(RUN):
        tell(f"Cuesheet: {as_line(estimate, RUN)}")


def use_job_server(prefix):
    """Run the scripts of local jobs through the run's job server."""
    shell.prefix(prefix.replace("{", "{{").replace("}", "}}"))
    if not workflow.deployment_settings.deployment_method:
        measure_jobs_rarely()


def measure_jobs_rarely():
    """Measure a running job at its start and every 30 s, not also every 0.5 s in its first 15 s.

    Every measurement reads the state of all processes of the machine, and most jobs only wait for the
    model. The job server measures its jobs itself and corrects their benchmark files.
    """
    from snakemake import benchmark

    benchmark.BENCHMARK_INTERVAL_SHORT = benchmark.BENCHMARK_INTERVAL


def with_deleted(output, inputs):
    """Return inputs of a job, after making it run if one of them does not exist.

    Without this, Snakemake re-creates a deleted input only if the output has another reason to be
    made. Input functions are called while the jobs are collected, before their reasons are determined.
    """
    if workflow.is_main_process and not all(map(os.path.exists, inputs)):
        workflow.dag.forcefiles.add(str(output))
    return inputs


def is_planning():
    """Tell whether files of earlier runs must not change: dry runs, --touch, jobs of a run."""
    return not workflow.is_main_process or workflow.dryrun or workflow.touch


def asks_model():
    """Tell whether a planned job sends requests. Known when the first job is about to start."""
    planned = [] if workflow.touch else workflow.dag.needrun_jobs()
    return any(
        "vlm_jobs" in job.rule.resources
        or (RUN.asking_stages and job.rule.name.endswith("annotate_shard"))
        or (CONFIG.evaluate.judge and job.rule.name.endswith("score_annotations"))
        for job in planned
    )


def requested_episodes():
    """Return the episodes that the targets need: per rule all, and those whose jobs will run.

    Keys are names of datasets, then names of rules (without the prefix of a module).
    """
    running = set(workflow.dag.needrun_jobs())
    prefix = f"{workflow.modifier.namespace}_" if IS_MODULE else ""
    found = {}
    for job in workflow.dag.jobs:
        if {"dataset", "episode"} <= set(job.wildcards.keys()):
            rules = found.setdefault(job.wildcards.dataset, {})
            needed, pending = rules.setdefault(job.rule.name.removeprefix(prefix), ([], []))
            needed.append(job.wildcards.episode)
            if job in running:
                pending.append(job.wildcards.episode)
    return found
