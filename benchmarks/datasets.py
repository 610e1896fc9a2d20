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
VIDEO = "chunk-000/file-{:03d}.mp4"
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def many_episodes(folder: Path, count: int, *, with_rows: bool = True) -> Path:
    """A dataset of `count` episodes: the demo's four again and again, with links to its videos.

    Without rows, data and video files are the demo's own, once: enough for whoever reads metadata
    alone.
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


def _link(source: Path | str, target: Path | str) -> None:
    """A hard link, or a copy if the file system has none from there to here."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _with(table: pa.Table, columns: dict[str, np.ndarray]) -> pa.Table:
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        table = table.set_column(at, field, pa.array(values, field.type))
    return table
