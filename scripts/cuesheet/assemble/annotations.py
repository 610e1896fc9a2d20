"""The Python API to the annotations of a finished dataset; everything is returned as pandas.

from cuesheet import open_annotations

notes = open_annotations("results/demo_v3/annotated")
notes.state_at(0, 2.5)["subtask"]
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from cuesheet.assemble.export import tidy_tables
from cuesheet.dataset.metadata import Dataset, read_dataset
from cuesheet.errors import CuesheetError

STATE_STYLES = ("subtask", "plan", "memory")


def open_annotations(path: Path | str) -> "Annotations":
    """Open an annotated dataset.

    Args:
        path: the folder of the dataset, such as results/NAME/annotated.

    Raises:
        CuesheetError: the folder is not a LeRobot dataset.
    """
    folder = Path(path)
    return Annotations(read_dataset(folder, folder.resolve().name))


@dataclass(frozen=True)
class Annotations:
    """The language rows of a dataset. Times are seconds from the start of an episode."""

    dataset: Dataset

    @cached_property
    def _table(self) -> pd.DataFrame:
        tables = list(tidy_tables(self.dataset))
        if not tables:
            raise CuesheetError(f"{self.dataset.root} has no data file with annotations")
        return pd.concat(tables, ignore_index=True)

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
        """Return one row per visual question: question, and the answer as a dictionary."""
        found = self._table[self._table["style"] == "vqa"]
        keys = ["episode_index", "frame_index", "start_s", "camera"]
        asked = found.loc[found["role"] == "user", [*keys, "text"]]
        answers = found.loc[found["role"] == "assistant", [*keys, "json"]]
        pairs = asked.rename(columns={"text": "question"}).merge(
            answers.rename(columns={"json": "answer"}), on=keys
        )
        pairs["answer"] = pairs["answer"].map(json.loads)
        return pairs

    def state_at(self, episode_index: int, time_s: float) -> dict[str, Any]:
        """Return what a policy is told at a time: task, subtask, plan, memory and speech.

        A value is None if there is none. `task` is the task of the dataset; `speech` is what the
        robot says on the frame that is shown at that time.
        """
        rows = self.rows(episode_index)
        active = rows[(rows["start_s"] <= time_s + 1e-6) & (time_s + 1e-6 < rows["end_s"])]
        state: dict[str, Any] = {"task": self.dataset.episode(episode_index).task or None}
        for style in (*STATE_STYLES, "speech"):
            texts = active.loc[active["style"] == style, "text"]
            state[style] = None if texts.empty else texts.iloc[-1]
        return state
