"""The index of a dataset, episodes.parquet: its schema, and how one episode is read from it.

Columns: episode_index, task, tasks, task_starts (frame_index and task, if there are several),
length (frames), fps, data_file (relative to the dataset's root), row_from and row_to (rows of the
data file, end exclusive), fingerprint, timestamps (float32 s, one per frame), cameras (key, kind,
file, from_s, to_s, width and height in pixels, codec). Row groups hold 64 episodes, so that a job
that needs one episode reads little.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.artifacts.sampling import shortest_float32
from cuesheet.errors import CuesheetError


def _list_of(item: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", item))


_CAMERA = pa.struct(
    [
        ("camera", pa.string()),
        ("kind", pa.string()),
        ("file", pa.string()),
        ("from_s", pa.float64()),
        ("to_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("codec", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("episode_index", pa.int64(), nullable=False),
        ("task", pa.string()),
        ("tasks", _list_of(pa.string())),
        ("length", pa.int64()),
        ("fps", pa.float64()),
        ("data_file", pa.string()),
        ("row_from", pa.int64()),
        ("row_to", pa.int64()),
        ("fingerprint", pa.string()),
        ("timestamps", _list_of(pa.float32())),
        ("cameras", _list_of(_CAMERA)),
        ("task_starts", _list_of(pa.struct([("frame_index", pa.int64()), ("task", pa.string())]))),
    ]
)


@dataclass(frozen=True)
class IndexedCamera:
    """A camera of an episode. `file`, `from_s`, `to_s` are None for kind "image"."""

    camera: str
    kind: str
    file: str | None
    from_s: float | None
    to_s: float | None
    width: int
    height: int
    codec: str


@dataclass(frozen=True)
class IndexedEpisode:
    """A row of the index without the fingerprint."""

    episode_index: int
    task: str
    tasks: list[str]
    length: int
    fps: float
    data_file: str
    row_from: int
    row_to: int
    timestamps: list[float]
    cameras: list[IndexedCamera]
    task_starts: list[tuple[int, str]] = field(default_factory=list)  # frame_index, task

    @property
    def task_text(self) -> str:
        """Return the task for prompts: all tasks of the episode, in order of their frames."""
        tasks = list(dict.fromkeys(task for _, task in self.task_starts))
        return ". Then: ".join(task.rstrip(".") for task in tasks) if tasks else self.task

    @property
    def shortest_timestamps(self) -> list[float]:
        """The timestamps (s) that keyframes.json and all stages use: 0.1, not 0.10000000149."""
        return [shortest_float32(timestamp) for timestamp in self.timestamps]

    def camera(self, key: str) -> IndexedCamera:
        """Return the camera with that key. Raises CuesheetError if there is none."""
        for camera in self.cameras:
            if camera.camera == key:
                return camera
        names = ", ".join(camera.camera for camera in self.cameras) or "none"
        raise CuesheetError(f"episode {self.episode_index} has no camera {key!r}; it has {names}.")


def indexed_episodes(path: Path | str) -> list[int]:
    """Return the numbers of all episodes of the index, in ascending order.

    Raises CuesheetError if the index cannot be read.
    """
    try:
        with pq.ParquetFile(path) as file:
            column = file.read(columns=["episode_index"]).column("episode_index")
    except (OSError, pa.ArrowException) as error:
        raise CuesheetError(f"{path} cannot be read ({error}); delete it and run again.") from None
    return sorted(column.to_pylist())


def read_indexed_episode(path: Path | str, episode_index: int) -> IndexedEpisode:
    """Read one episode of the index, and only the row group that contains it.

    Raises CuesheetError if the index cannot be read or has no such episode.
    """
    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                bounds = file.metadata.row_group(group).column(0).statistics
                if bounds is None or bounds.min <= episode_index <= bounds.max:
                    table = file.read_row_group(group)
                    # A comparison by pyarrow.compute would import pandas, for half a CPU second.
                    episodes = table.column("episode_index").to_pylist()
                    if episode_index in episodes:
                        row = table.slice(episodes.index(episode_index), 1).to_pylist()[0]
                        row.pop("fingerprint", None)  # for `source_changes`
                        cameras = [IndexedCamera(**camera) for camera in row.pop("cameras")]
                        starts = row.pop("task_starts", None) or ()
                        starts = [(start["frame_index"], start["task"]) for start in starts]
                        return IndexedEpisode(**row, cameras=cameras, task_starts=starts)
    except (OSError, pa.ArrowException) as error:
        raise CuesheetError(f"{path} cannot be read ({error}); delete it and run again.") from None
    raise CuesheetError(f"{path} has no episode {episode_index}; delete it and run again.")
