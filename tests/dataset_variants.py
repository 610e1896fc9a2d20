"""Variants of the demo dataset for tests."""

import io
import json
import os
import shutil
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from cuesheet.media.ffmpeg import run_ffmpeg

EPISODES = "meta/episodes/chunk-000/file-000.parquet"
CHUNK, EPISODE = "chunk-{episode_chunk:03d}", "episode_{episode_index:06d}"  # of format v2.1
DATA = "data/chunk-000/file-000.parquet"
QUICK = {
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libx265": {"preset": "veryfast", "x265-params": "log-level=error"},
    "libsvtav1": {"preset": "12"},
}


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
    """The dataset without images: proprioception and actions only."""
    info = json.loads((root / "meta" / "info.json").read_text())
    features = {k: v for k, v in info["features"].items() if v["dtype"] not in ("video", "image")}
    edit_info(root, features=features)
    path = root / EPISODES
    table = pq.read_table(path)
    pq.write_table(
        table.select([name for name in table.column_names if "images" not in name]), path
    )
    shutil.rmtree(root / "videos")


def store_images(root: Path, camera: str) -> None:
    """A video camera as an image camera: every frame as PNG in the data file."""
    info = json.loads((root / "meta" / "info.json").read_text())
    feature = info["features"][camera]
    info["features"][camera] = {k: feature[k] for k in ("shape", "names")} | {"dtype": "image"}
    edit_info(root, features=info["features"])
    table = pq.read_table(root / EPISODES)
    placed = [name for name in table.column_names if name.startswith(f"videos/{camera}/")]
    pq.write_table(table.drop_columns(placed), root / EPISODES)
    with av.open(str(root / "videos" / camera / "chunk-000" / "file-000.mp4")) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    add_images(root, camera, images)
    shutil.rmtree(root / "videos" / camera)


def add_depth_images(root: Path, camera: str) -> None:
    """An image camera of 16 bits and one channel."""
    info = json.loads((root / "meta" / "info.json").read_text())
    feature = {"dtype": "image", "shape": [8, 8, 1], "names": ["height", "width", "channels"]}
    edit_info(root, features=info["features"] | {camera: feature})
    rows = pq.read_metadata(root / DATA).num_rows
    add_images(root, camera, [np.full((8, 8), number, np.uint16) for number in range(rows)])


def add_images(root: Path, camera: str, images: Sequence[np.ndarray]) -> None:
    """A column of PNG images in the data file, as LeRobot stores them."""
    cells = []
    for number, image in enumerate(images):
        sink = io.BytesIO()
        Image.fromarray(image).save(sink, "PNG", compress_level=1)
        cells.append({"bytes": sink.getvalue(), "path": f"frame-{number:06d}.png"})
    kind = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    table = pq.read_table(root / DATA).append_column(camera, pa.array(cells, kind))
    pq.write_table(table, root / DATA)


def set_rate(root: Path, fps: int) -> None:
    """The same frames at another frame rate: timestamps, metadata and videos."""
    info = json.loads((root / "meta" / "info.json").read_text())
    scale = info["fps"] / fps
    edit_info(root, fps=fps)
    table = pq.read_table(root / DATA)
    times = pc.divide(pc.cast(table["frame_index"], pa.float64()), float(fps)).cast(pa.float32())
    position = table.column_names.index("timestamp")
    pq.write_table(table.set_column(position, "timestamp", times), root / DATA)
    table = pq.read_table(root / EPISODES)
    for position, name in enumerate(table.column_names):
        if name.endswith(("/from_timestamp", "/to_timestamp")):
            table = table.set_column(position, name, pc.multiply(table[name], scale))
    pq.write_table(table, root / EPISODES)
    for path in (root / "videos").rglob("*.mp4"):
        scaled = path.with_suffix(".scaled.mp4")
        run_ffmpeg(["-y", "-itsscale", str(scale), "-i", str(path), "-c", "copy", str(scaled)])
        scaled.replace(path)


def truncate_video(root: Path, camera: str) -> Path:
    """Cut a video file in the middle, as a full disk or a broken copy does."""
    path = root / "videos" / camera / "chunk-000" / "file-000.mp4"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    return path


def as_v21(source: Path, target: Path, codec: str = "libx264") -> Path:
    """The dataset in format v2.1: one data file and one video an episode and camera."""
    info = json.loads((source / "meta" / "info.json").read_text())
    cameras = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    data = pq.read_table(source / DATA)
    lines: dict[str, list[dict]] = {"episodes": [], "episodes_stats": [], "tasks": []}
    for row in pq.read_table(source / EPISODES).to_pylist():
        index = row["episode_index"]
        part = data.filter(pc.equal(data["episode_index"], index))
        path = target / f"data/chunk-000/episode_{index:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, path)
        statistics: dict[str, dict] = {}
        for name, value in row.items():
            if name.startswith("stats/"):
                _, feature, statistic = name.split("/")
                statistics.setdefault(feature, {})[statistic] = value
        lines["episodes"].append({key: row[key] for key in ("episode_index", "tasks", "length")})
        lines["episodes_stats"].append({"episode_index": index, "stats": statistics})
        for camera in cameras:
            video = target / f"videos/chunk-000/{camera}/episode_{index:06d}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            first = round(row[f"videos/{camera}/from_timestamp"] * info["fps"])
            file = source / "videos" / camera / "chunk-000" / "file-000.mp4"
            cut_frames(file, video, first, row["length"], info["fps"], codec)
    for row in pq.read_table(source / "meta" / "tasks.parquet").to_pylist():
        index = row.pop("task_index")
        lines["tasks"].append({"task_index": index, "task": next(iter(row.values()))})
    (target / "meta").mkdir()
    for name, rows in lines.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (target / "meta" / f"{name}.jsonl").write_text(text)
    info |= {
        "codebase_version": "v2.1",
        "total_videos": len(cameras) * len(lines["episodes"]),
        "total_chunks": 1,
        "data_path": f"data/{CHUNK}/{EPISODE}.parquet",
        "video_path": f"videos/{CHUNK}/{{video_key}}/{EPISODE}.mp4",
    }
    (target / "meta" / "info.json").write_text(json.dumps(info))
    return target


def cut_frames(source: Path, target: Path, first: int, length: int, fps: int, codec: str) -> None:
    """Frames [first, first + length) of a video as a video of their own."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        stream = None
        for number, frame in enumerate(container.decode(video=0)):
            if not first <= number < first + length:
                continue
            if stream is None:
                stream = output.add_stream(codec, rate=fps, options=QUICK.get(codec, {}))
                stream.width, stream.height = frame.width, frame.height
                stream.pix_fmt = "yuv420p"
            image = frame.reformat(format="yuv420p")
            image.pts = number - first
            image.time_base = Fraction(1, fps)
            output.mux(stream.encode(image))
        output.mux(stream.encode(None))
    # If root encodes, SVT-AV1 makes the calling thread a real-time one, and with it all
    # processes that are started later. Two of those that compute starve a machine of two cores.
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
