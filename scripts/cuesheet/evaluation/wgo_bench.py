"""Convert a WGO-Bench file into a LeRobot dataset.

The Parquet file has one row per episode: id, video (bytes of an MP4 file), instruction, segments.
The dataset (LeRobot v3.0) has the episodes in the same order, so that the file itself can be used
as the reference of a run. The videos differ in size and frame rate, which a dataset cannot have:
they are re-encoded at --fps and scaled into --width x --height with black borders.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from cuesheet.errors import CuesheetError
from cuesheet.evaluation.references import wgo_rows
from cuesheet.files import remove_temporary_folders, temporary_folder
from cuesheet.media.ffmpeg import run_ffmpeg
from cuesheet.text import counted

CAMERA = "observation.images.main"
_CHUNK = 1000  # videos per folder
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def convert(
    source: Path,
    target: Path,
    *,
    fps: int,
    width: int,
    height: int,
    progress: Callable[[Iterable[dict[str, Any]]], Iterable[dict[str, Any]]] = iter,
) -> int:
    """Write the dataset and return the number of episodes. An incomplete dataset is removed.

    Raises:
        CuesheetError: `target` exists, the file is missing or has another layout, or a video cannot
            be read.
    """
    if target.exists():
        raise CuesheetError(f"{target} already exists; choose a folder that does not exist.")
    if not source.is_file():
        raise CuesheetError(f"{source} does not exist; expected the Parquet file of WGO-Bench.")
    try:
        rows = wgo_rows(source)
    except (OSError, pa.ArrowException) as error:
        raise CuesheetError(f"{source} is not a readable Parquet file: {error}.") from None
    if rows is None:
        raise CuesheetError(f"{source} has no columns id and segments, as WGO-Bench has.")
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_temporary_folders(target.parent)
    with temporary_folder(target.parent, hidden=True) as temporary:
        folder = temporary / "dataset"
        lengths, tasks = [], []
        for index, row in enumerate(progress(rows)):
            video = folder / _video_path(index)
            label = f"{source}, row {index} ({row['id']})"
            lengths.append(_encode(_video_bytes(row, label), video, fps, width, height, label))
            tasks.append(str(row.get("instruction") or ""))
        if not lengths:
            raise CuesheetError(f"{source} has no rows.")
        _write_tables(folder, lengths, tasks, fps)
        _write_info(folder, lengths, tasks, fps, width, height)
        shutil.move(folder, target)
    return len(lengths)


def _video_path(index: int) -> str:
    chunk, file = divmod(index, _CHUNK)
    return _VIDEO.format(video_key=CAMERA, chunk_index=chunk, file_index=file)


def _video_bytes(row: dict[str, Any], label: str) -> bytes:
    video = row.get("video")
    data = video.get("bytes") if isinstance(video, dict) else video
    if not isinstance(data, bytes) or not data:
        raise CuesheetError(f"{label}: expected the bytes of an MP4 file in the column video.")
    return data


def _encode(data: bytes, target: Path, fps: int, width: int, height: int, label: str) -> int:
    """Re-encode a video and return its number of frames."""
    target.parent.mkdir(parents=True, exist_ok=True)
    size = f"{width}:{height}"
    fitted = f"fps={fps},scale={size}:force_original_aspect_ratio=decrease"
    with tempfile.NamedTemporaryFile(suffix=".mp4") as source:
        source.write(data)
        source.flush()
        run_ffmpeg(
            [
                *("-i", source.name, "-an"),
                *("-vf", f"{fitted},pad={size}:(ow-iw)/2:(oh-ih)/2,setsar=1"),
                *("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p"),
                *("-y", str(target)),
            ],
            label,
        )
    with av.open(str(target)) as container:
        frames = sum(1 for packet in container.demux(video=0) if packet.pts is not None)
    if not frames:
        raise CuesheetError(f"{label}: the video has no frames.")
    return frames


def _write_tables(folder: Path, lengths: list[int], tasks: list[str], fps: int) -> None:
    ends = np.cumsum(lengths)
    starts = ends - lengths
    distinct = list(dict.fromkeys(tasks))
    frame_index = np.concatenate([np.arange(length) for length in lengths])
    frames = {
        "timestamp": pa.array((frame_index / fps).astype(np.float32)),
        "frame_index": pa.array(frame_index, pa.int64()),
        "episode_index": pa.array(np.repeat(np.arange(len(lengths)), lengths), pa.int64()),
        "index": pa.array(np.arange(ends[-1]), pa.int64()),
        "task_index": pa.array(
            np.repeat([distinct.index(task) for task in tasks], lengths), pa.int64()
        ),
    }
    index = np.arange(len(lengths))
    episodes = {
        "episode_index": index,
        "tasks": pa.array([[task] for task in tasks]),
        "length": lengths,
        "data/chunk_index": np.zeros_like(index),
        "data/file_index": np.zeros_like(index),
        "dataset_from_index": starts,
        "dataset_to_index": ends,
        f"videos/{CAMERA}/chunk_index": index // _CHUNK,
        f"videos/{CAMERA}/file_index": index % _CHUNK,
        f"videos/{CAMERA}/from_timestamp": np.zeros(len(lengths)),
        f"videos/{CAMERA}/to_timestamp": np.asarray(lengths) / fps,
    }
    named = {"task_index": range(len(distinct)), "__index_level_0__": distinct}
    for path, columns in (
        (_DATA.format(chunk_index=0, file_index=0), frames),
        ("meta/episodes/chunk-000/file-000.parquet", episodes),
        ("meta/tasks.parquet", named),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), folder / path)


def _write_info(
    folder: Path, lengths: list[int], tasks: list[str], fps: int, width: int, height: int
) -> None:
    counters = ("frame_index", "episode_index", "index", "task_index")
    info = {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": len(set(tasks)),
        "chunks_size": _CHUNK,
        "fps": fps,
        "splits": {"test": f"0:{len(lengths)}"},
        "data_path": _DATA,
        "video_path": _VIDEO,
        "features": {
            CAMERA: {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": {"video.fps": fps, "video.codec": "h264", "video.pix_fmt": "yuv420p"},
            },
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            **{name: {"dtype": "int64", "shape": [1], "names": None} for name in counters},
        },
    }
    (folder / "meta" / "info.json").write_text(json.dumps(info, indent=2), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="cuesheet wgo-bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="Parquet file of the benchmark")
    parser.add_argument("target", type=Path, help="folder of the new dataset")
    parser.add_argument("--fps", type=int, default=10, help="frames per second (%(default)s)")
    parser.add_argument("--width", type=int, default=640, help="px, an even number (%(default)s)")
    parser.add_argument("--height", type=int, default=480, help="px, an even number (%(default)s)")
    options = parser.parse_args(arguments)
    if options.fps < 1 or any(size < 2 or size % 2 for size in (options.width, options.height)):
        parser.error("--fps must be at least 1; --width and --height must be even and at least 2")
    count = convert(
        options.source,
        options.target,
        fps=options.fps,
        width=options.width,
        height=options.height,
        progress=lambda rows: tqdm(rows, desc="videos", unit="video"),
    )
    print(f"{counted(count, 'episode')}: {options.target}")
