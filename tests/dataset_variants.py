"""Datasets made from the demo by changing what a test is about."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

EPISODES = "meta/episodes/chunk-000/file-000.parquet"
DATA = "data/chunk-000/file-000.parquet"


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def edit_info(root: Path, **values: object) -> None:
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    info.update(values)
    path.write_text(json.dumps(info, indent=4))


def keep_episodes(root: Path, count: int) -> None:
    """Only the first `count` episodes, as if the others were recorded later."""
    for relative in (EPISODES, DATA):
        path = root / relative
        table = pq.read_table(path)
        pq.write_table(table.filter(pc.less(table["episode_index"], count)), path)
    data = pq.read_table(root / DATA)
    edit_info(root, total_episodes=count, total_frames=data.num_rows)


def set_task(root: Path, episode_index: int, task: str) -> None:
    """Another task for one episode, as if it had been recorded again."""
    path = root / EPISODES
    table = pq.read_table(path)
    tasks = table["tasks"].to_pylist()
    tasks[episode_index] = [task]
    position = table.column_names.index("tasks")
    column = pa.array(tasks, table.schema.field("tasks").type)
    pq.write_table(table.set_column(position, table.schema.field("tasks"), column), path)


def remove_cameras(root: Path) -> None:
    """The dataset without pictures: proprioception and actions only."""
    info = json.loads((root / "meta" / "info.json").read_text())
    features = {k: v for k, v in info["features"].items() if v["dtype"] not in ("video", "image")}
    edit_info(root, features=features)
    path = root / EPISODES
    table = pq.read_table(path)
    pq.write_table(
        table.select([name for name in table.column_names if "images" not in name]), path
    )
    shutil.rmtree(root / "videos")


def truncate_video(root: Path, camera: str) -> Path:
    """Cut a video file in the middle, as a full disk or a broken copy does."""
    path = root / "videos" / camera / "chunk-000" / "file-000.mp4"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    return path
