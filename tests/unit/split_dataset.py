"""A dataset of several data files, made of the demo: what a merge of a large dataset meets."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DATA = "data/chunk-000/file-{:03d}.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
# The episodes of each data file; episode e shows what the demo's episode e % 4 shows.
FILES = ([0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11])


def split_dataset(demo: Path, target: Path) -> Path:
    """The demo three times over, its frames in three data files, with one row group or many."""
    shutil.copytree(demo, target)
    frames = pq.read_table(demo / DATA.format(0))
    described = pq.read_table(demo / EPISODES)
    owner = frames.column("episode_index").to_numpy()
    rows, begin = [], 0
    for number, episodes in enumerate(FILES):
        tables = []
        for episode in episodes:
            table = frames.filter(pa.array(owner == episode % 4))
            end = begin + len(table)
            table = replaced(table, "episode_index", np.full(len(table), episode))
            tables.append(replaced(table, "index", np.arange(begin, end)))
            row = described.slice(episode % 4, 1)
            for column, value in {
                "episode_index": episode,
                "data/file_index": number,
                "dataset_from_index": begin,
                "dataset_to_index": end,
            }.items():
                row = replaced(row, column, [value])
            rows.append(row)
            begin = end
        group = (None, 60, 1000)[number]
        pq.write_table(pa.concat_tables(tables), target / DATA.format(number), row_group_size=group)
    pq.write_table(pa.concat_tables(rows), target / EPISODES)
    path = target / "meta/info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"total_episodes": len(rows), "total_frames": begin}))
    return target


def replaced(table: pa.Table, column: str, values) -> pa.Table:
    at = table.schema.get_field_index(column)
    field = table.schema.field(at)
    return table.set_column(at, field, pa.array(values, field.type))
