"""Datasets of many episodes for the benchmarks, made of the demo's four."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import REPOSITORY

DEMO = REPOSITORY / "data" / "demo_v3"
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def many_episodes(folder: Path, count: int, *, with_rows: bool = True) -> Path:
    """A dataset of `count` episodes; each is one of the demo's, in the same stretch of its videos.

    Without rows, the data file is the demo's own: enough for whoever reads metadata alone.
    """
    shutil.copytree(DEMO / "meta", folder / "meta")
    shutil.copytree(DEMO / "videos", folder / "videos", copy_function=os.link)
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
        os.link(DEMO / DATA, folder / DATA)
    path = folder / "meta" / "info.json"
    info = json.loads(path.read_text())
    info |= {"total_episodes": count, "total_frames": int(ends[-1])}
    path.write_text(json.dumps(info))
    return folder


def _with(table: pa.Table, columns: dict[str, np.ndarray]) -> pa.Table:
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        table = table.set_column(at, field, pa.array(values, field.type))
    return table
