"""Large datasets for the benchmarks, made from the four episodes of the demo."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import REPOSITORY

DEMO = REPOSITORY / "data" / "demo_v3"
VIDEO = "chunk-000/file-{:03d}.mp4"
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def many_episodes(folder: Path, count: int, *, with_rows: bool = True) -> Path:
    """Create a dataset of `count` episodes: repeated demo episodes with links to their videos.

    Without rows, the data and video files are those of the demo, once. This is enough for readers
    of metadata.
    """
    shutil.copytree(DEMO / "meta", folder / "meta")
    shutil.copytree(DEMO / "videos", folder / "videos", copy_function=_link)
    (folder / DATA).parent.mkdir(parents=True)
    data, episodes = pq.read_table(DEMO / DATA), pq.read_table(DEMO / EPISODES)
    lengths = episodes["length"].to_numpy()
    chosen = np.arange(count) % len(lengths)
    ends = np.cumsum(lengths[chosen])
    numbered = {
        "episode_index": np.arange(count),
        "dataset_from_index": ends - lengths[chosen],
        "dataset_to_index": ends,
    }
    if with_rows:
        files = np.arange(count) // len(lengths)
        for camera in (folder / "videos").iterdir():
            numbered[f"videos/{camera.name}/file_index"] = files
            for number in range(1, files[-1] + 1):
                _link(camera / VIDEO.format(0), camera / VIDEO.format(number))
    pq.write_table(_with(episodes.take(chosen), numbered), folder / EPISODES)
    if with_rows:
        begins = np.cumsum(lengths) - lengths
        rows = np.concatenate([np.arange(begins[i], begins[i] + lengths[i]) for i in chosen])
        renumbered = {
            "episode_index": np.repeat(np.arange(count), lengths[chosen]),
            "index": np.arange(len(rows)),
        }
        pq.write_table(_with(data.take(rows), renumbered), folder / DATA)
    else:
        _link(DEMO / DATA, folder / DATA)
    path = folder / "meta" / "info.json"
    info = json.loads(path.read_text())
    info |= {"total_episodes": count, "total_frames": int(ends[-1])}
    path.write_text(json.dumps(info))
    return folder


def distinct_episodes(folder: Path, count: int) -> Path:
    """Like `many_episodes`, but every repetition has tasks of its own, so no two requests agree."""
    many_episodes(folder, count)
    data, episodes = pq.read_table(folder / DATA), pq.read_table(folder / EPISODES)
    tasks = [
        [f"{task}, take {index // 4 + 1}" for task in tasks]
        for index, tasks in enumerate(episodes["tasks"].to_pylist())
    ]
    names = sorted({task for of_episode in tasks for task in of_episode})
    numbers = [names.index(of_episode[0]) for of_episode in tasks]
    table = pd.DataFrame({"task_index": range(len(names))}, index=names)
    table.to_parquet(folder / "meta" / "tasks.parquet")
    columns: dict[str, Any] = {"tasks": tasks}
    for statistic in ("min", "max", "mean", "q01", "q10", "q50", "q90", "q99"):
        columns[f"stats/task_index/{statistic}"] = [[number] for number in numbers]
    pq.write_table(_with(episodes, columns), folder / EPISODES)
    of_rows = np.array(numbers)[data["episode_index"].to_numpy()]
    pq.write_table(_with(data, {"task_index": of_rows}), folder / DATA)
    return folder


def _link(source: Path | str, target: Path | str) -> None:
    """Create a hard link, or a copy if the file system does not allow the link."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _with(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        table = table.set_column(at, field, pa.array(values, field.type))
    return table
