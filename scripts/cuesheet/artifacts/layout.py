"""Paths of everything below the results folder. No other module spells such a path.

Invariants:
- One folder per dataset, named after it. An episode's name is its index with six digits.
- A job's log is `logs/{rule}/…/{episode}.log`. If the job fails because of its episode, the record
  of the failure is `failed/{rule}/…/{episode}.json`.
- A marker in `shards/` belongs to the shard whose name (five digits) it starts with.
- The rules (rules/*.smk) write the same paths as patterns; a test compares them with this module.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

# Default of Snakemake's path variable <results>: the folder that holds one folder per dataset.
RESULTS = Path("results")
# The records of runs in the working directory, one folder per run.
RUNS = Path(".cuesheet") / "runs"
# Name of the job that drafts labels before the shards start; it takes the place of a shard's name.
VOCABULARY_JOB = "vocabulary"

KEYFRAMES_FILE = "keyframes.json"

_EPISODE_NAME = re.compile(r"\d{6}")


def episode_name(episode: int | str) -> str:
    """Return the name of an episode: six digits. Text (a name, a wildcard) stays unchanged."""
    return episode if isinstance(episode, str) else f"{episode:06d}"


def is_episode_name(name: str) -> bool:
    return _EPISODE_NAME.fullmatch(name) is not None


def task_id(task: str) -> str:
    """Return the name of a task in paths: its first words and the start of its sha256."""
    words = re.findall(r"[a-z0-9]+", task.lower())
    name = "-".join(words)[:40].rstrip("-")
    return "-".join(filter(None, [name, hashlib.sha256(task.encode()).hexdigest()[:8]]))


def shard_name(number: int) -> str:
    return f"{number:05d}"


def keyframe_file(camera: str, frame_index: int) -> str:
    """Return the path of a decoded frame below its episode's keyframes folder."""
    return f"{camera}/{frame_index:06d}.png"


def benchmark_of(log: Path) -> Path:
    """Return the benchmark file of the job that writes the log `log`."""
    return _beside(log, "benchmarks").with_suffix(".tsv")


def failure_record(log: Path) -> Path | None:
    """Return the file in which a failed job records its cause; None if it has no episode."""
    if not is_episode_name(log.stem) or "logs" not in log.parts:
        return None
    return _beside(log, "failed").with_suffix(".json")


def _beside(log: Path, folder: str) -> Path:
    position = len(log.parts) - 1 - log.parts[::-1].index("logs")
    return Path(*log.parts[:position], folder, *log.parts[position + 1 :])


@dataclass(frozen=True)
class Layout:
    """Paths of one dataset's results. `folder` is results/{dataset}.

    Episodes are indices or names. Every argument may be a wildcard such as "{episode}", which makes
    the path a pattern.
    """

    folder: Path

    @property
    def dataset(self) -> str:
        return self.folder.resolve().name

    # Per dataset

    @property
    def index(self) -> Path:
        return self.folder / "episodes.parquet"

    @property
    def source_changes(self) -> Path:
        return self.folder / "source_changes.json"

    @property
    def annotated(self) -> Path:
        """Root of the annotated dataset."""
        return self.folder / "annotated"

    @property
    def merged(self) -> Path:
        """Root of the annotated data files before they are converted to another format."""
        return self.folder / "merged"

    @property
    def annotated_info(self) -> Path:
        return self.annotated / "meta" / "info.json"

    @property
    def subtasks(self) -> Path:
        """Labels of the numbers in the column subtask_index, if it is written."""
        return self.folder / "subtasks.parquet"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    @property
    def summary_text(self) -> Path:
        return self.folder / "summary.txt"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def review(self) -> Path:
        """Folder of the review page, a static site."""
        return self.folder / "review"

    @property
    def review_page(self) -> Path:
        return self.review / "index.html"

    def evaluation(self, suffix: str = "json") -> Path:
        """`suffix`: json, txt or svg."""
        return self.folder / f"evaluation.{suffix}"

    def export(self, suffix: str) -> Path:
        """`suffix`: parquet or jsonl."""
        return self.folder / f"annotations.{suffix}"

    @property
    def exported_inspections(self) -> Path:
        return self.folder / "inspections.jsonl"

    # Per episode

    def clip(self, camera: str, episode: int | str) -> Path:
        return self.folder / "clips" / camera / f"episode_{episode_name(episode)}.mp4"

    @property
    def keyframes_folder(self) -> Path:
        return self.folder / "keyframes"

    def keyframes(self, episode: int | str) -> Path:
        """Folder with keyframes.json and the decoded frames of an episode."""
        return self.keyframes_folder / episode_name(episode)

    def keyframe(self, camera: str, episode: int | str, frame_index: int) -> Path:
        return self.keyframes(episode) / keyframe_file(camera, frame_index)

    @property
    def signals_layout(self) -> Path:
        """Assignment of the dimensions of state and action to arms and grippers."""
        return self.folder / "signals" / "layout.json"

    def signals(self, episode: int | str) -> Path:
        """Recorded signals of an episode: gripper strokes, rests and curves."""
        return self.folder / "signals" / f"{episode_name(episode)}.json"

    def stage_folder(self, stage: str) -> Path:
        """Folder of a stage's files: plan, interjections, vqa, inspection or validation."""
        return self.folder / stage

    def stage_file(self, stage: str, episode: int | str) -> Path:
        return self.stage_folder(stage) / f"{episode_name(episode)}.json"

    def plan(self, episode: int | str) -> Path:
        return self.stage_file("plan", episode)

    def interjections(self, episode: int | str) -> Path:
        return self.stage_file("interjections", episode)

    def vqa(self, episode: int | str) -> Path:
        return self.stage_file("vqa", episode)

    def inspection(self, episode: int | str) -> Path:
        return self.stage_file("inspection", episode)

    def validation(self, episode: int | str) -> Path:
        return self.stage_file("validation", episode)

    def validation_text(self, episode: int | str) -> Path:
        return self.validation(episode).with_suffix(".txt")

    # Per task

    def vocabulary(self, task_id: str) -> Path:
        """Labels of a task; `task_id`: see `task_id`."""
        return self.folder / "vocabulary" / f"{task_id}.json"

    def vocabulary_requests(self, task_id: str) -> Path:
        """Record of the request that made the labels of a task."""
        return self.folder / "vocabulary" / "requests" / f"{task_id}.json"

    def vocabulary_draft(self, episode: int | str) -> Path:
        """Steps that were seen in an episode, of which the labels of its task are made."""
        return self.folder / "vocabulary" / "drafts" / f"{episode_name(episode)}.json"

    # Jobs

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def prompt(self, digest: str) -> Path:
        """Text of a prompt that a run used; `digest`: its sha256."""
        return self.folder / "prompts" / f"{digest}.md"

    @property
    def command(self) -> Path:
        """Shell command of the last run that worked on the dataset."""
        return self.logs / "command.txt"

    def log(self, rule: str, *parts: str) -> Path:
        """Log of a job; `parts`: its wildcards, such as camera and episode."""
        return self.logs.joinpath(rule, *parts).with_suffix(".log")

    @property
    def failed(self) -> Path:
        """Folder of the records of failed jobs: {rule}/…/{episode}.json."""
        return self.folder / "failed"

    # Shards

    @property
    def shards(self) -> Path:
        return self.folder / "shards"

    @property
    def shard_assignment(self) -> Path:
        return self.shards / "assignment.json"

    @property
    def shard_run(self) -> Path:
        """Record of the newest run that works in shards."""
        return self.shards / "run.json"

    def shard_marker(self, shard: str) -> Path:
        return self.shards / f"{shard}.json"

    def shard_media_marker(self, shard: str) -> Path:
        return self.shards / f"{shard}.media.json"

    @property
    def shards_vocabulary(self) -> Path:
        """Marker of the labels of all tasks, which are made before the shards start."""
        return self.shard_marker(VOCABULARY_JOB)

    def shard_state(self, shard: str) -> Path:
        return self.shards / f"{shard}.state.json"

    def shard_lease(self, shard: str) -> Path:
        return self.shards / f"{shard}.lease"
