"""Videos with known frames: what tests of keyframes and clips are compared with.

The place of a frame in its file follows from the lengths of the episodes, which follow each
other. Its pixels come from one sequential decode of the whole file by the ffmpeg program.
"""

import functools
import glob
import importlib.util
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from cuesheet.artifacts.index import IndexedCamera, IndexedEpisode
from cuesheet.media.ffmpeg import find_ffmpeg, passthrough_options

DECODERS = [
    "ffmpeg",
    "pyav",
    pytest.param(
        "torchcodec",
        marks=[
            pytest.mark.torchcodec,
            pytest.mark.skipif(
                importlib.util.find_spec("torchcodec") is None, reason="torchcodec is not installed"
            ),
        ],
    ),
]

# Two frames a group as LeRobot writes; long groups whose frames are not coded in their order.
H264 = {
    "gop2": ("-c:v", "libx264", "-preset", "veryfast", "-g", "2", "-bf", "0"),
    "gop250_b_frames": ("-c:v", "libx264", "-preset", "medium", "-g", "250", "-bf", "3"),
}


@dataclass(frozen=True)
class Source:
    """One camera of one episode: `first_frame` is the place of its frame 0 in the file."""

    file: Path
    first_frame: int
    episode: IndexedEpisode
    camera: IndexedCamera

    @property
    def length(self) -> int:
        return self.episode.length


def run(*arguments: object) -> bytes:
    command = [find_ffmpeg(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@functools.lru_cache(maxsize=2)
def full_decode(file: Path, width: int, height: int) -> np.ndarray:
    """Every frame of a file in order: frames x height x width x 3, RGB."""
    raw = run("-i", file, *passthrough_options(), "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def sources(root: Path) -> list[Source]:
    """Every episode and camera of a v3.0 dataset, file by file."""
    info = json.loads((root / "meta/info.json").read_text())
    rows = pyarrow.dataset.dataset(root / "data").to_table(columns=["episode_index", "timestamp"])
    owner, times = rows["episode_index"].to_numpy(), rows["timestamp"].to_numpy()
    files = sorted(glob.glob(str(root / "meta/episodes/*/*.parquet")))
    episodes = [row for file in files for row in pq.read_table(file).to_pylist()]
    episodes.sort(key=lambda row: row["episode_index"])
    found: list[Source] = []
    for key, feature in info["features"].items():
        if feature["dtype"] != "video":
            continue
        frames_before: dict[str, int] = {}
        height, width, _ = feature["shape"]
        for row in episodes:
            prefix = f"videos/{key}/"
            file = info["video_path"].format(
                video_key=key,
                chunk_index=row[f"{prefix}chunk_index"],
                file_index=row[f"{prefix}file_index"],
            )
            camera = IndexedCamera(
                camera=key,
                kind="video",
                file=file,
                from_s=row[f"{prefix}from_timestamp"],
                to_s=row[f"{prefix}to_timestamp"],
                width=width,
                height=height,
                codec="",
            )
            timestamps = times[owner == row["episode_index"]].tolist()
            assert len(timestamps) == row["length"]
            episode = IndexedEpisode(
                episode_index=row["episode_index"],
                task=row["tasks"][0],
                tasks=row["tasks"],
                length=row["length"],
                fps=info["fps"],
                data_file="",
                row_from=0,
                row_to=row["length"],
                timestamps=timestamps,
                cameras=[camera],
            )
            first = frames_before.get(file, 0)
            found.append(Source(root / file, first, episode, camera))
            frames_before[file] = first + row["length"]
    return found


def single(file: Path, length: int, fps: float, width: int, height: int) -> Source:
    """A file that is one episode, 7."""
    camera = IndexedCamera(
        camera="observation.images.cam",
        kind="video",
        file=file.name,
        from_s=0.0,
        to_s=length / fps,
        width=width,
        height=height,
        codec="",
    )
    times = np.arange(length, dtype=np.float32) / np.float32(fps)
    episode = IndexedEpisode(
        episode_index=7,
        task="Open a drawer",
        tasks=["Open a drawer"],
        length=length,
        fps=fps,
        data_file="",
        row_from=0,
        row_to=length,
        timestamps=times.tolist(),
        cameras=[camera],
    )
    return Source(file, 0, episode, camera)


def reencoded(
    root: Path, target: Path, options: tuple[str, ...], pixel_format: str = "yuv420p"
) -> Path:
    """A copy of a dataset with its videos encoded again."""
    shutil.copytree(root, target)
    for file in sorted(target.glob("videos/**/*.mp4")):
        file.unlink()
        original = root / file.relative_to(target)
        run("-i", original, *options, "-pix_fmt", pixel_format, *passthrough_options(), file)
    return target


def joined(root: Path, target: Path) -> list[Source]:
    """Every episode a clip with B-frames, the clips of a camera joined without encoding them again.

    Ranges are the sums of the clips' durations, as LeRobot computes them.
    """
    target.mkdir(parents=True)
    found = []
    for key in dict.fromkeys(source.camera.camera for source in sources(root)):
        parts, start_s = [], 0.0
        whole = target / f"{key}.mp4"
        for source in (s for s in sources(root) if s.camera.camera == key):
            begin, end = source.first_frame, source.first_frame + source.length
            part = target / f"{key}-{source.episode.episode_index}.mp4"
            keep = f"select='between(n,{begin},{end - 1})',setpts=N/({source.episode.fps}*TB)"
            rate = ("-r", source.episode.fps)
            run("-i", source.file, "-vf", keep, *rate, *H264["gop250_b_frames"], part)
            duration_s = source.length / source.episode.fps
            camera = replace(
                source.camera, file=whole.name, from_s=start_s, to_s=start_s + duration_s
            )
            episode = replace(source.episode, cameras=[camera])
            found.append(Source(whole, source.first_frame, episode, camera))
            start_s += duration_s
            parts.append(part)
        listing = target / f"{key}.txt"
        listing.write_text("".join(f"file '{part}'\n" for part in parts))
        run("-f", "concat", "-safe", "0", "-i", listing, "-c", "copy", whole)
    return found


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Write a line to the terminal, whatever is captured: the counts that a reader wants to see."""
    plugins = request.config.pluginmanager
    terminal, capture = plugins.getplugin("terminalreporter"), plugins.getplugin("capturemanager")

    def write(line: str) -> None:
        with capture.global_and_fixture_disabled():
            terminal.ensure_newline()
            terminal.write_line(line)

    return write
