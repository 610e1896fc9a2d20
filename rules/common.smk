# The validated configuration, its datasets, and the input functions that several rules share.

import functools
import json

from snakemake.exceptions import WorkflowError

RULES = workflow.current_basedir.get_path_or_uri(secret_free=True)
# A module from github() or another host has no folder on this machine.
HAS_FOLDER = os.path.isdir(RULES)

try:
    import cuesheet
except ImportError:
    source = f"--editable {Path(RULES).parent}" if HAS_FOLDER else "git+URL@TAG"
    raise WorkflowError(
        f"{sys.executable} has no package cuesheet. Install this workflow into the environment that "
        f"runs Snakemake: {sys.executable} -m pip install {source}"
        + ("" if HAS_FOLDER else ", with the URL and tag of the module (docs/module.md)")
    ) from None


from cuesheet.app.session import Session
from cuesheet.artifacts.layout import VOCABULARY_JOB
from cuesheet.assemble.existing_rows import replaced_styles
from cuesheet.cluster.job import SHARD_VARIABLE
from cuesheet.cluster.plan import ShardPlans
from cuesheet.cluster.targets import Targets
from cuesheet.dataset.index_state import file_state
from cuesheet.errors import CuesheetError
from cuesheet.config import prompt_files
from cuesheet.vlm import run_environment
from cuesheet.workflow.load import load_run
from cuesheet.workflow.run_dataset import RunDataset
from cuesheet.workflow.vocabulary import (
    drafted_episodes,
    drafted_in,
    drafts_of,
    task_called,
    vocabularies,
    vocabulary_of,
)
from cuesheet.workflow.propagation import (
    recording_of,
    reference_files,
    references_of,
    shared_files,
    shared_references,
)


def user_error(error):
    """Convert a user error into one that Snakemake prints without a traceback."""
    return WorkflowError(str(error))


def as_workflow_error(function):
    """Decorate a function so that its CuesheetError is shown as one message."""

    @functools.wraps(function)  # Snakemake inspects the arguments
    def wrapped(*arguments, **named):
        try:
            return function(*arguments, **named)
        except CuesheetError as error:
            raise user_error(error) from None

    return wrapped


# The job of a shard sets this for its inner run: a file that names the shard's episodes.
SHARD_FILE = os.environ.get(SHARD_VARIABLE)

# Relative paths of the configuration may refer to it: the prompts, the demo dataset.
REPOSITORY = Path(RULES).parent if HAS_FOLDER else prompt_files.bundled_files()

RUN = as_workflow_error(load_run)(
    config,
    REPOSITORY,
    json.loads(Path(SHARD_FILE).read_bytes()) if SHARD_FILE else None,
    results_root=results_root(),
    online=workflow.is_main_process and not SHARD_FILE,
)
CONFIG = RUN.config
SHARD_PLANS = ShardPlans.of(RUN)
STAGE_THREADS = stage_threads()
# Episodes whose plans come before visual questions. Not a whole number, so no two rules tie.
PLANS_AHEAD = most_waiting_jobs() + 0.5
if IS_MODULE:
    run_environment.publish(
        run_environment.MODULE_VARIABLE, RUN.results_root, workflow.modifier.namespace
    )


@functools.cache
def targets():
    """Return the targets of this run. Call it only after the rules are read (see `to_cluster`)."""
    is_sharded = RUN.is_sharded(to_cluster())
    if is_sharded and not HAS_FOLDER:
        raise user_error(
            "one job per shard needs this workflow in a folder that all jobs can read, because each "
            "job runs it again. Clone it and name its Snakefile in the module statement, or set "
            "cluster: {shards: never}"
        )
    if is_sharded and not is_planning():
        SHARD_PLANS.invalidate_incomplete_shards()
    return Targets(RUN, SHARD_PLANS, is_sharded)


@functools.cache
def session():
    """Return the session that starts before the first job of a run and stops after its last."""
    plans = SHARD_PLANS if targets().is_sharded else None
    return Session(RUN, plans, tell, progress_to_file=has_own_logger())


@as_workflow_error
def dataset_of(wildcards):
    """Return the dataset of a job. An unknown episode, camera or data file is a user error."""
    dataset = RUN.dataset(wildcards.dataset)
    dataset.check_wildcards(dict(wildcards.items()))
    return dataset


def of_episode(answer, *settings):
    """Return an input function: what `answer` says about the dataset and episode of a job."""
    return lambda wildcards: answer(dataset_of(wildcards), *settings, int(wildcards.episode))


def in_turn(level, ahead=0):
    """Return a priority function: rules by `level`, and within a level the episodes in order.

    A job comes before the jobs without `ahead` of that many earlier episodes.
    """

    def priority(wildcards):
        position = RUN.turns.get((wildcards.dataset, wildcards.episode), 0)
        return level + (ahead - position) / 10_000_000  # less than a level

    return priority


def results_of(wildcards):
    """Return the results folder of a job's dataset."""
    return str(dataset_of(wildcards).results)


def data_file_of(wildcards):
    """Return the source of a merged data file."""
    return str(dataset_of(wildcards).root / f"{wildcards.data_file}.parquet")


def merged_data_files(wildcards):
    return dataset_of(wildcards).merged_data_files


def subtask_table(wildcards):
    """Return the table of subtask numbers if the column subtask_index is written."""
    return str(dataset_of(wildcards).layout.subtasks) if CONFIG.output.subtask_index else []


def prompts_of(*names):
    """Return an input function: the prompt files `names` of a job's dataset."""
    return lambda wildcards: [
        str(dataset_of(wildcards).prompts_dir / f"{name}.md") for name in names
    ]


def clips_of_page(wildcards):
    """Return the clips that a review page shows, also those that were deleted."""
    dataset = dataset_of(wildcards)
    return with_deleted(dataset.layout.review_page, targets().clips_of(dataset))


def clip_for_plan(wildcards):
    """Return the default camera's clip if the plan stage sends clips."""
    dataset = dataset_of(wildcards)
    camera = dataset.default_camera_of(int(wildcards.episode))
    if camera is None or CONFIG.plan.frames.mode != "clip":
        return []
    return str(dataset.layout.clip(camera, wildcards.episode))


def stage_files(wildcards):
    """Return the stage files of one episode by stage, for the stages that are enabled."""
    layout = dataset_of(wildcards).layout
    return {stage: str(layout.stage_file(stage, wildcards.episode)) for stage in RUN.stages}


def reference_of(wildcards):
    """Return the reference that a dataset is scored against."""
    if wildcards.dataset not in RUN.references:
        raise user_error(
            f"{wildcards.dataset} has no reference to be scored against; set evaluate.reference"
        )
    return RUN.references[wildcards.dataset]


@as_workflow_error
def judge_prompts(wildcards):
    """Return the prompt files of the judge if labels are judged."""
    RUN.check_judge(to_cluster())
    return prompts_of(*prompt_files.JUDGE)(wildcards) if CONFIG.evaluate.judge else []


@as_workflow_error
def shard_plan(wildcards):
    """Return the shard plan of a job's dataset. An unknown shard is a user error."""
    dataset_of(wildcards)
    plan = SHARD_PLANS[wildcards.dataset]
    plan.episodes(wildcards.shard)
    return plan


def shard_params(wildcards, targets):
    """Return the params of a shard's job that do not determine its output."""
    plan, shard = shard_plan(wildcards), wildcards.shard
    return inner_run_params(wildcards, shard, plan.worked_on(shard), targets)


def vocabulary_params(wildcards):
    """Return the params of the job that drafts labels that do not determine them."""
    episodes = drafted_in(dataset_of(wildcards), CONFIG)
    files = vocabularies(dataset_of(wildcards), CONFIG)
    work = inner_run_params(wildcards, VOCABULARY_JOB, episodes, ["vocabularies"])
    return {**work, "files": files}


def drafted_media(wildcards):
    """Return the markers of the shards that decode the drafted episodes, if media are separate."""
    if CONFIG.cluster.media != "separate":
        return []
    dataset, plan = dataset_of(wildcards), SHARD_PLANS[wildcards.dataset]
    return plan.media_markers_of(drafted_in(dataset, CONFIG))


def inner_run_params(wildcards, shard, episodes, targets):
    """Return what a job that runs this workflow for some episodes needs."""
    return {
        "episodes": episodes,
        "share": SHARD_PLANS.shares[wildcards.dataset, shard],
        "stages": RUN.stages,
        "targets": targets,
        "results": results_of(wildcards),
        "jobs_per_cpu": CONFIG.cluster.jobs_per_cpu,
        "scratch": CONFIG.cluster.scratch,
        "snakefile": str(REPOSITORY / "Snakefile"),
        "config": {**config, "pathvars": {"results": str(RUN.results_root)}},
        "options": deployment_options(),
    }
