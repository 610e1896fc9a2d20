# The validated configuration, the datasets it names, and the lookups that rules use.

import functools
import json
import os
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import Quietness

REPOSITORY = Path(workflow.current_basedir).parent

try:
    import cuesheet
except ImportError:
    raise WorkflowError(
        f"{sys.executable} has no package cuesheet. Install this workflow into the environment that "
        f"runs Snakemake: {sys.executable} -m pip install --editable {REPOSITORY}"
    ) from None

from cuesheet.assemble.existing_rows import replaced_styles
from cuesheet.cluster.job import SHARD_VARIABLE
from cuesheet.dataset.index_state import file_state
from cuesheet.errors import CuesheetError
from cuesheet.serving import job_server, lifecycle
from cuesheet.serving.accounting import account_of, read_usages
from cuesheet.vlm import prompts as prompt_files
from cuesheet.vlm.gateway_client import SERVER_FILE_VARIABLE, SHARED_FOLDER_VARIABLE
from cuesheet.workflow.load import load_run
from cuesheet.workflow.run import ANSWER_VERSION

PARSED_AT = time.time()


def mistake(error):
    """What to raise for a person's mistake; `--quiet all` would swallow its message."""
    if Quietness.ALL in (workflow.output_settings.quiet or ()):
        print(f"Cuesheet: {error}", file=sys.stderr)
    return WorkflowError(str(error))


# Set by the job of a shard for its inner run: the episodes that this run is about.
SHARD_FILE = os.environ.get(SHARD_VARIABLE)

try:
    RUN = load_run(
        config,
        REPOSITORY,
        json.loads(Path(SHARD_FILE).read_bytes()) if SHARD_FILE else None,
        online=workflow.is_main_process and not SHARD_FILE,
    )
except CuesheetError as error:
    raise mistake(error) from None
CONFIG = RUN.config

# What determines an answer of the model, whichever stage asks.
ANSWERS = {
    "version": ANSWER_VERSION,
    "serve": CONFIG.vlm.serve,
    "model": RUN.model,
    "sampling": CONFIG.vlm.sampling.model_dump(),
    "images": CONFIG.vlm.images.model_dump(exclude={"transport"}),
}


CORES = workflow.resource_settings.cores  # as given: `threads_of_stages` raises the bound


def threads_of_stages():
    """Threads of a job that waits for the model: 0, so that no job that computes waits for it.

    Snakemake runs as many jobs at once as it has cores, and 5 more. So where jobs run on this
    machine that bound is raised (not the cores), and the resource `vlm_jobs` says how many of them
    may wait at once. A replay waits for nothing, and on a cluster every job has a core of its own.
    """
    settings, bounds = workflow.resource_settings, workflow.global_resources
    local = workflow.is_main_process and settings.nodes is None and settings.cores
    if CONFIG.vlm.serve == "replay" or not local:
        return 1
    if "vlm_jobs" not in bounds:
        bounds["vlm_jobs"] = min(CONFIG.vlm.concurrency, max(16, 4 * settings.cores))
    settings.cores += bounds["vlm_jobs"].value
    return 0


STAGE_THREADS = threads_of_stages()


# A model server may not decode AV1 (vLLM by OpenCV's wheel does not).
CLIP = CONFIG.media.model_dump()
if CONFIG.plan.frames.mode == "clip":
    CLIP["clip_codec"] = "h264"


def plain(function):
    """`function` with a person's mistake shown as one line instead of a traceback."""

    @functools.wraps(function)  # Snakemake reads its arguments
    def wrapped(*arguments, **named):
        try:
            return function(*arguments, **named)
        except CuesheetError as error:
            raise mistake(error) from None

    return wrapped


@plain
def of(wildcards):
    """The dataset that a job belongs to."""
    return RUN.dataset(wildcards.dataset)


def results_of(wildcards):
    """The results folder of a job's dataset."""
    return str(of(wildcards).results)


def metadata_files(wildcards):
    """Files of the source that describe its episodes."""
    return of(wildcards).metadata_files


@plain
def source_videos(wildcards):
    """Files that hold the pictures of one episode."""
    return of(wildcards).picture_files(int(wildcards.episode))


@plain
def source_video(wildcards):
    """File that holds one camera's pictures of one episode."""
    return of(wildcards).picture_file(int(wildcards.episode), wildcards.camera)


@plain
def clip_source(wildcards):
    return of(wildcards).clip_source(int(wildcards.episode), wildcards.camera)


@plain
def keyframes_source(wildcards):
    return of(wildcards).keyframes_source(int(wildcards.episode))


def given_subtasks(wildcards):
    return of(wildcards).given_subtasks(int(wildcards.episode))


def vqa_corrections(wildcards):
    return of(wildcards).vqa_corrections(int(wildcards.episode))


def verdict(wildcards):
    return of(wildcards).verdict(int(wildcards.episode))


def data_file_state(wildcards):
    return file_state(data_file_of(wildcards))


def metadata_state(wildcards):
    return [file_state(path) for path in metadata_files(wildcards)]


def prompts_of(*names):
    """Input function: the prompt files `names` of a job's dataset."""
    return lambda wildcards: [str(of(wildcards).prompts_dir / f"{name}.md") for name in names]


def clip_for_plan(wildcards):
    """The default camera's clip, where the plan stage sends clips."""
    camera = of(wildcards).default_camera
    if camera is None or CONFIG.plan.frames.mode != "clip":
        return []
    return str(of(wildcards).layout.clip(camera, wildcards.episode))


def stage_files(wildcards):
    """The stage files of one episode, by stage; only of the stages that are switched on."""
    return {
        stage: str(of(wildcards).layout.stage_file(stage, wildcards.episode))
        for stage in RUN.stages
    }


@plain
def selected_in_data_file(wildcards):
    return of(wildcards).selected_in(f"{wildcards.data_file}.parquet")


@plain
def others_in_data_file(wildcards):
    return of(wildcards).others_in(f"{wildcards.data_file}.parquet")


def validations_of_data_file(wildcards):
    if sharded():
        return []
    return of(wildcards).validations(selected_in_data_file(wildcards))


def stage_files_of_data_file(wildcards):
    if sharded():
        return []
    return of(wildcards).stage_files(selected_in_data_file(wildcards), RUN.stages)


def data_file_of(wildcards):
    return str(of(wildcards).root / f"{wildcards.data_file}.parquet")


def merged_data_files(wildcards):
    return of(wildcards).merged_data_files


def all_clips(wildcards):
    if sharded():
        return []
    return [clip for dataset in RUN.datasets.values() for clip in dataset.clips]


def all_keyframes(wildcards):
    """With shards, those are made by the shards' jobs."""
    if sharded():
        return []
    return [folder for dataset in RUN.datasets.values() for folder in dataset.keyframe_folders]


def all_annotations(wildcards):
    """Stage files and validations: asked for by name, so that one that was deleted is made again."""
    if sharded():
        return all_shards()
    return [
        file
        for dataset in RUN.datasets.values()
        for file in (
            *dataset.stage_files(dataset.worked_on, RUN.stages),
            *dataset.validations(dataset.worked_on),
        )
    ]


def all_datasets(wildcards):
    """Data files, metadata and index of every annotated dataset."""
    return [
        file
        for dataset in RUN.datasets.values()
        for file in (
            *dataset.merged_data_files,
            str(dataset.layout.annotated_info),
            str(dataset.layout.index),
        )
    ]


def all_exports(wildcards):
    return [str(dataset.layout.export("parquet")) for dataset in RUN.datasets.values()]


def all_summaries(wildcards):
    return [str(dataset.layout.summary_text) for dataset in RUN.datasets.values()]


def all_reports(wildcards):
    """What a person looks at: report, review page, and scores where there is a reference."""
    return [
        str(path)
        for dataset in RUN.datasets.values()
        for path in (dataset.layout.report, dataset.layout.review_page)
    ] + all_evaluations(wildcards)


def all_evaluations(wildcards):
    return [str(RUN.datasets[name].layout.evaluation()) for name in RUN.references]


def evaluated(wildcards):
    """The files that scores are made of: the annotations, and clips for the motion split."""
    dataset = of(wildcards)
    if sharded():
        return shards_of(wildcards)
    stages = [stage for stage in ("plan", "vqa") if stage in RUN.stages]
    clips = dataset.clips if "motion" in CONFIG.evaluate.baselines else []
    return dataset.stage_files(dataset.worked_on, stages) + clips


def reference_of(wildcards):
    try:
        return RUN.references[wildcards.dataset]
    except KeyError:
        raise mistake(
            f"{wildcards.dataset} has no reference to be scored against; set evaluate.reference"
        ) from None


@plain
def judge_prompts(wildcards):
    """The prompt files of the judge, where labels are judged."""
    RUN.check_judge(to_cluster())
    return prompts_of(*prompt_files.JUDGE)(wildcards) if CONFIG.evaluate.judge else []


def evaluation_of(wildcards):
    """The scores, for the report of a dataset that has a reference."""
    if wildcards.dataset in RUN.references:
        return str(of(wildcards).layout.evaluation())
    return []


JOB_SERVER = None


def open_run():
    """Check the sources that changed, then start the run's server; jobs find it by environment."""
    global JOB_SERVER
    if not workflow.is_main_process:
        return
    if RUN.shard is None:
        # The index belongs to the outer run: shards work at the same time.
        for dataset in RUN.datasets.values():
            plain(dataset.refresh_index)()
    if sharded():
        start_shards()
        return
    server_file = lifecycle.start(RUN.server_settings(), Path(".cuesheet") / "runs")
    os.environ[SERVER_FILE_VARIABLE] = str(server_file.resolve())
    if RUN.shared_folder is not None:
        os.environ[SHARED_FOLDER_VARIABLE] = RUN.shared_folder
    if job_server.usable():
        JOB_SERVER = job_server.JobServer(server_file.parent)
        shell.prefix(JOB_SERVER.shell_prefix.replace("{", "{{").replace("}", "}}"))


def close_run(finished):
    if JOB_SERVER is not None:
        JOB_SERVER.stop()
    server_file = os.environ.pop(SERVER_FILE_VARIABLE, None)
    if server_file and workflow.is_main_process:
        lifecycle.stop(Path(server_file), timeout_s=30)
    if workflow.is_main_process and RUN.shard is None:
        if sharded():
            say_unfinished(PLANS, os.environ.get(OUTER_RUN_VARIABLE))
        if not finished:
            print(
                "Cuesheet: the run is not finished. Finished files and cached responses are reused; the "
                "causes are above and in the logs. Run the same command again to continue.",
                file=sys.stderr,
            )


def show_summaries():
    """Print the summaries that this run made."""
    for name, dataset in RUN.datasets.items():
        layout = dataset.layout
        path = layout.summary_text
        if workflow.is_main_process and path.is_file() and path.stat().st_mtime >= PARSED_AT:
            print(path.read_text(encoding="utf-8").rstrip(), file=sys.stderr)
            if layout.report.is_file():
                look = f"{layout.report}, for a browser"
                if layout.review.is_dir():
                    look += f"; to correct what is wrong: make review DATASET={name}"
                print(f"  Report:            {look}", file=sys.stderr)
            print(file=sys.stderr)
    if workflow.is_main_process and RUN.shard is None:
        show_usage()


def show_usage():
    """Print what the model servers of this run did with their time."""
    now = time.time()
    usages = [u for u in read_usages(Path(".cuesheet") / "runs") if u["updated_at"] >= PARSED_AT]
    for name in RUN.datasets:
        account = account_of(usages, name, now)
        if account.calls:
            print(f"Cuesheet: {name}: {account.as_text()}", file=sys.stderr)
