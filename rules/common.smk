# The validated configuration, the datasets it names, and the lookups that rules use.

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

REPOSITORY = Path(workflow.current_basedir).parent
sys.path.insert(0, str(REPOSITORY / "scripts"))

from cuesheet import prompts as prompt_files
from cuesheet import server
from cuesheet.errors import CuesheetError
from cuesheet.index_state import file_state
from cuesheet.run_link import SERVER_FILE_VARIABLE
from cuesheet.workflow import ANSWER_VERSION, load_run

try:
    RUN = load_run(config, REPOSITORY)
except CuesheetError as error:
    raise WorkflowError(str(error)) from None
CONFIG = RUN.config

# What determines an answer of the model, whichever stage asks.
ANSWERS = {
    "version": ANSWER_VERSION,
    "serve": CONFIG.vlm.serve,
    "model": RUN.model,
    "sampling": CONFIG.vlm.sampling.model_dump(),
    "images": CONFIG.vlm.images.model_dump(exclude={"transport"}),
    "shared_folder": RUN.shared_folder,
}


def of(wildcards):
    """The dataset that a job belongs to."""
    return RUN.datasets[wildcards.dataset]


def metadata_files(wildcards):
    """Files of the source that describe its episodes."""
    return of(wildcards).metadata_files


def source_videos(wildcards):
    """Files that hold the pictures of one episode."""
    return of(wildcards).picture_files(int(wildcards.episode))


def source_video(wildcards):
    """File that holds one camera's pictures of one episode."""
    return of(wildcards).picture_file(int(wildcards.episode), wildcards.camera)


def clip_source(wildcards):
    return of(wildcards).clip_source(int(wildcards.episode), wildcards.camera)


def keyframes_source(wildcards):
    return of(wildcards).keyframes_source(int(wildcards.episode))


def data_file_state(wildcards):
    return file_state(data_file_of(wildcards))


def metadata_state(wildcards):
    return [file_state(path) for path in metadata_files(wildcards)]


def prompts_of(*names):
    return [str(RUN.prompts_dir / f"{name}.md") for name in names]


def clip_for_plan(wildcards):
    """The default camera's clip, where the plan stage sends clips."""
    camera = of(wildcards).default_camera
    if camera is None or CONFIG.plan.frames.mode != "clip":
        return []
    return f"results/{wildcards.dataset}/clips/{camera}/episode_{wildcards.episode}.mp4"


def stage_files(wildcards):
    """The stage files of one episode, by stage; only of the stages that are switched on."""
    return {
        stage: f"results/{wildcards.dataset}/{stage}/{wildcards.episode}.json"
        for stage in RUN.stages
    }


def selected_in_data_file(wildcards):
    return of(wildcards).selected_in(f"{wildcards.data_file}.parquet")


def others_in_data_file(wildcards):
    return of(wildcards).others_in(f"{wildcards.data_file}.parquet")


def validations_of_data_file(wildcards):
    return of(wildcards).validations(selected_in_data_file(wildcards))


def data_file_of(wildcards):
    return str(of(wildcards).root / f"{wildcards.data_file}.parquet")


def annotated_data_files(wildcards):
    return of(wildcards).annotated_data_files


def all_clips(wildcards):
    return [clip for dataset in RUN.datasets.values() for clip in dataset.clips]


def all_keyframes(wildcards):
    return [folder for dataset in RUN.datasets.values() for folder in dataset.keyframe_folders]


def all_validations(wildcards):
    return [
        file for dataset in RUN.datasets.values() for file in dataset.validations(dataset.worked_on)
    ]


def all_datasets(wildcards):
    return [f"results/{name}/annotated/meta/info.json" for name in RUN.datasets]


def all_summaries(wildcards):
    return [f"results/{name}/summary.txt" for name in RUN.datasets]


def refresh_indexes():
    """Make the indexes anew that no longer fit their source, before any job starts."""
    try:
        for dataset in RUN.datasets.values():
            dataset.refresh_index()
    except CuesheetError as error:
        raise WorkflowError(str(error)) from None


def start_server():
    """Start the run's supervisor; the jobs find its gateway through the environment."""
    server_file = server.start(RUN.server_settings(), Path(".cuesheet") / "runs")
    os.environ[SERVER_FILE_VARIABLE] = str(server_file.resolve())


def stop_server():
    server_file = os.environ.pop(SERVER_FILE_VARIABLE, None)
    if server_file:
        server.stop(Path(server_file), timeout_s=30)


def show_summaries():
    for name in RUN.datasets:
        path = Path("results") / name / "summary.txt"
        if path.is_file():
            print(path.read_text(encoding="utf-8"), file=sys.stderr)
