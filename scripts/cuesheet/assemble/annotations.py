"""The Python API to the annotations of a finished dataset; tables are pandas DataFrames.

from cuesheet import open_annotations

notes = open_annotations("results/demo_v3/annotated")
notes.state_at(0, 2.5)["subtask"]
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.assemble.export import tidy_tables
from cuesheet.dataset.data_reader import scalars, seconds_from_start
from cuesheet.dataset.metadata import Dataset, read_dataset
from cuesheet.dataset.task_index import read_task_starts
from cuesheet.errors import CuesheetError
from cuesheet.text import counted

STATE_STYLES = ("subtask", "plan", "memory")


class State(TypedDict):
    """The language for a policy at one time; None for what does not exist."""

    task: str | None  # the dataset's own
    subtask: str | None
    plan: str | None
    memory: str | None
    speech: str | None  # what the robot says on that frame


def open_annotations(path: Path | str) -> "Annotations":
    """Open an annotated dataset, such as results/NAME/annotated.

    Raises CuesheetError if the folder is not a LeRobot dataset.
    """
    folder = Path(path)
    return Annotations(read_dataset(folder, folder.resolve().name))


@dataclass(frozen=True)
class Annotations:
    """The language rows of a dataset. Times are seconds from the start of an episode."""

    dataset: Dataset

    def __repr__(self) -> str:
        count = counted(len(self.dataset.episodes), "episode")
        return f"Annotations({str(self.dataset.root)!r}, {count})"

    @cached_property
    def _table(self) -> pd.DataFrame:
        tables = list(tidy_tables(self.dataset))
        if not tables:
            raise CuesheetError(f"{self.dataset.root} has no data file with annotations")
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def _task_starts(self) -> dict[int, list[tuple[int, str]]]:
        return read_task_starts(self.dataset)

    def to_frame(self) -> pd.DataFrame:
        """Return all rows, sorted by episode and time; columns: see `cuesheet.assemble.export`."""
        return self._table.copy()

    def rows(self, episode_index: int) -> pd.DataFrame:
        """Return the rows of one episode. Raises CuesheetError if there is no such episode."""
        self.dataset.episode(episode_index)  # raises
        found = self._table[self._table["episode_index"] == episode_index]
        return found.reset_index(drop=True)

    def subtasks(self) -> pd.DataFrame:
        """Return the subtasks: episode_index, frame_index, start_s, end_s, label."""
        found = self._table[self._table["style"] == "subtask"]
        columns = ["episode_index", "frame_index", "start_s", "end_s", "text"]
        return found[columns].rename(columns={"text": "label"}).reset_index(drop=True)

    def vqa(self) -> pd.DataFrame:
        """Return one row per visual question.

        Columns: episode_index, frame_index, start_s, camera, question, and the answer as a
        dictionary.
        """
        found = self._table[self._table["style"] == "vqa"]
        keys = ["episode_index", "frame_index", "start_s", "camera"]
        questions = found.loc[found["role"] == "user", [*keys, "text"]]
        answers = found.loc[found["role"] == "assistant", [*keys, "json"]]
        pairs = questions.rename(columns={"text": "question"}).merge(
            answers.rename(columns={"json": "answer"}), on=keys
        )
        pairs["answer"] = pairs["answer"].map(json.loads)
        return pairs

    def frames(self, episode_index: int) -> pd.DataFrame:
        """Return one row per frame of an episode: frame_index, time_s, and the keys of `State`.

        Raises CuesheetError if there is no such episode, or its data file cannot be read.
        """
        rows = self.rows(episode_index)
        times_s = self._times_s(episode_index)
        frames = pd.DataFrame({"frame_index": np.arange(len(times_s)), "time_s": times_s})
        task = self.dataset.episode(episode_index).task or None
        starts: Mapping[int, str | None] = dict(self._task_starts.get(episode_index, ()))
        frames["task"] = (
            pd.Series(starts or {0: task}, dtype="object").reindex(frames.index).ffill()
        )
        for style in (*STATE_STYLES, "speech"):
            of_style = rows[rows["style"] == style].drop_duplicates("frame_index", keep="last")
            texts = of_style.set_index("frame_index")["text"].reindex(frames.index)
            texts = texts if style == "speech" else texts.ffill()
            frames[style] = texts.astype("object").where(texts.notna(), None)
        return frames

    def state_at(self, episode_index: int, time_s: float) -> State:
        """Return the language for a policy at a time of an episode.

        It is the state of the frame that is shown at that time. Before the first frame and after
        the last one there is none: every value but the task is None.
        """
        frames = self.frames(episode_index)
        times_s = frames["time_s"].to_numpy()
        # Half a microsecond, because timestamps are float32.
        place = int(np.searchsorted(times_s, time_s + 5e-7, side="right")) - 1
        is_shown = place >= 0 and time_s < times_s[-1] + 1 / self.dataset.fps
        state = frames.iloc[max(place, 0)]
        values = {name: state[name] if is_shown else None for name in (*STATE_STYLES, "speech")}
        return State(
            task=state["task"],
            subtask=values["subtask"],
            plan=values["plan"],
            memory=values["memory"],
            speech=values["speech"],
        )

    def _times_s(self, episode_index: int) -> np.ndarray:
        """Return the time of each frame of an episode, in seconds from its start (float64)."""
        path = self.dataset.root / self.dataset.episode(episode_index).data_file
        episodes = self.dataset.data_files[self.dataset.episode(episode_index).data_file]
        group = [episode.episode_index for episode in episodes].index(episode_index)
        try:
            with pq.ParquetFile(path) as file:
                column = file.read_row_group(group, columns=["timestamp"]).column(0)
        except (OSError, pa.ArrowException) as error:
            raise CuesheetError(f"{path} cannot be read: {error}") from None
        relative = seconds_from_start(scalars(column).astype(np.float64))
        return np.round(relative.astype(np.float64), 6)
