"""Compares the cost of an episode's clip and keyframes with one ffmpeg process per keyframe.

    python benchmarks/media.py [--json FILE] [--work FOLDER] [--repeats 3]

The episode of 30 s (640x480, 30 fps) is in the middle of files of 20 minutes: AV1 and H.264 with an
I-frame every other frame, and H.264 with an I-frame every 250 frames and B-frames. The files are
made from enlarged demo images with camera noise; 30 s are encoded and repeated.

The baseline is `ffmpeg -ss T -i FILE -frames:v 1 PNG` for each of 90 keyframes, and an encode of
the episode with x264's ultrafast preset. It is compared with the jobs `extract_clip` and
`decode_keyframes`, including process start and imports, with and without the run's job server. The
lower limit is decoding the required frames in a running process, converting the 90 keyframes to RGB
and writing them as PNG. All values are CPU seconds. Every keyframe is compared with a decode of the
whole episode, and the frames of the clip are counted.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import av
import measuring
import numpy as np
import pyarrow as pa
from measuring import REPOSITORY, Jobs, Target
from PIL import Image

from cuesheet.artifacts.index import SCHEMA
from cuesheet.dataset.index import write_index
from cuesheet.media.clips import count_frames
from cuesheet.media.decode import decoding_runs
from cuesheet.media.ffmpeg import ffmpeg_command, run_ffmpeg
from cuesheet.media.keyframes import write_png
from cuesheet.media.packets import demux_from, locate_range

FPS, EPISODE_S, FILE_S = 30, 30, 1200
FRAMES = FPS * EPISODE_S
FROM_S = 600.0
SIZE = (640, 480)
PER_SECOND = 3.0 - 1 / FPS  # 90 keyframes: a grid of 89 and the last frame
KEYFRAMES = 90
CAMERA = "observation.images.front"
SOURCES = {
    "av1_gop2": ("-c:v", "libsvtav1", "-preset", "10", "-crf", "30", "-g", "2"),
    "h264_gop2": ("-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-g", "2"),
    "h264_gop250": ("-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-g", "250"),
}
TARGETS = {"av1_gop2": 14.0, "h264_gop2": 18.0, "h264_gop250": 18.0}


def make_source(path: Path, options: tuple[str, ...]) -> None:
    """Create a file of 20 minutes."""
    original = REPOSITORY / f"data/demo_v3/videos/{CAMERA}/chunk-000/file-000.mp4"
    part = path.with_name(f"part-{path.name}")
    size = f"{SIZE[0]}:{SIZE[1]}"
    chain = f"scale={size}:flags=bicubic,noise=alls=4:allf=t,setpts=N/{FPS}/TB"
    run_ffmpeg(
        [
            *("-y", "-stream_loop", "-1", "-i", str(original), "-vf", chain, "-r", str(FPS)),
            *("-frames:v", str(FRAMES), *options, "-pix_fmt", "yuv420p", str(part)),
        ]
    )
    repeats = FILE_S // EPISODE_S - 1
    run_ffmpeg(["-y", "-stream_loop", str(repeats), "-i", str(part), "-c", "copy", str(path)])
    part.unlink()


def indices() -> list[int]:
    """Return the 90 keyframes: 2.97 per second, and the last frame."""
    from cuesheet.artifacts.sampling import select_keyframes

    found = select_keyframes([i / FPS for i in range(FRAMES)], PER_SECOND, None, 1).frame_indices
    assert len(found) == KEYFRAMES, len(found)
    return found


def plain_keyframes(source: Path, folder: Path) -> float:
    """Return the CPU seconds of one ffmpeg process per keyframe."""
    before = measuring.children_cpu_s()
    for index in indices():
        time_s = FROM_S + (index - 0.5) / FPS
        options = ["-y", "-threads", "1", "-ss", f"{time_s:.6f}", "-i", str(source)]
        options += ["-frames:v", "1", "-threads", "1", str(folder / f"{index:06d}.png")]
        subprocess.run(ffmpeg_command(options), check=True)
    return measuring.children_cpu_s() - before


def plain_clip(source: Path, folder: Path) -> float:
    """Return the CPU seconds of encoding the episode."""
    before = measuring.children_cpu_s()
    begin_s, end_s = FROM_S - 0.5 / FPS, FROM_S + EPISODE_S - 0.5 / FPS
    options = ["-y", "-threads", "1", "-ss", f"{begin_s:.6f}", "-to", f"{end_s:.6f}"]
    options += ["-i", str(source), "-an", "-c:v", "libx264", "-preset", "ultrafast", "-crf", "23"]
    options += ["-pix_fmt", "yuv420p", "-threads", "1", str(folder / "clip.mp4")]
    subprocess.run(ffmpeg_command(options), check=True)
    return measuring.children_cpu_s() - before


class Episode:
    """The episode as the jobs use it: an index of one row."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.folder = source, folder
        times = [float(np.float32(i / FPS)) for i in range(FRAMES)]
        camera = {"camera": CAMERA, "kind": "video", "file": source.name, "codec": "any"}
        camera |= {"from_s": FROM_S, "to_s": FROM_S + EPISODE_S, "width": SIZE[0]}
        row = {"episode_index": 20, "task": "", "tasks": [], "length": FRAMES, "fps": float(FPS)}
        row |= {"data_file": "", "row_from": 0, "row_to": FRAMES, "timestamps": times}
        row["cameras"] = [camera | {"height": SIZE[1]}]
        self.index = folder / "episodes.parquet"
        write_index(pa.Table.from_pylist([row], schema=SCHEMA), self.index)
        self.clip = folder / "clip.mp4"
        self.keyframes = folder / "keyframes"

    def extract_clip(self, jobs: Jobs, codec: str, *, served: bool) -> float:
        clip = {"clip_codec": codec, "clip_copy": True, "clip_preset": "ultrafast", "clip_crf": 23}
        place = {"kind": "video", "file": self.source.name, "length": FRAMES, "fps": FPS}
        place |= {"from_s": FROM_S, "to_s": FROM_S + EPISODE_S}
        return jobs.run(
            "extract_clip",
            inputs={"index": str(self.index)},
            output={"clip": str(self.clip)},
            params={"root": str(self.source.parent), "source": place, "clip": clip},
            wildcards={"dataset": "bench", "episode": "000020", "camera": CAMERA},
            served=served,
        )

    def decode_keyframes(self, jobs: Jobs, *, served: bool) -> float:
        params = {"root": str(self.source.parent), "source": {}, "cameras": [CAMERA]}
        params |= {"decoder": "pyav", "per_second": PER_SECOND, "vqa_hz": None, "vqa_frames": 1}
        return jobs.run(
            "decode_keyframes",
            inputs={"index": str(self.index)},
            output={"keyframes": str(self.keyframes)},
            params=params,
            wildcards={"dataset": "bench", "episode": "000020"},
            served=served,
        )


def limit(source: Path, folder: Path) -> dict[str, float]:
    """Return the CPU seconds of the minimum of work in this process: decode, RGB, PNG.

    Frames on which no other frame depends are only decoded if they are selected.
    """
    episode = locate_range(
        source, from_s=FROM_S, to_s=FROM_S + EPISODE_S, length=FRAMES, fps=FPS, label="limit"
    )
    wanted = {episode.pts[index] for index in indices()}
    runs = decoding_runs(episode.source, wanted)
    needed = {
        packet.pts for begin, end in runs for packet in episode.source.packets[begin : end + 1]
    }
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        first = episode.source.first_dts
        packets = []
        for packet in demux_from(container, stream, min(needed), first):
            if packet.pts > max(needed):
                break
            if packet.pts in needed:
                packets.append(packet)
        codec = stream.codec_context
        codec.thread_count = 1
        frames: list[av.VideoFrame] = []

        def decode() -> None:
            for packet in packets:
                codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                frames.extend(frame for frame in codec.decode(packet) if frame.pts in wanted)
            frames.extend(frame for frame in codec.decode(None) if frame.pts in wanted)

        decode_s = measuring.own_cpu_s(decode)
        images: list[bytes] = []

        def convert() -> None:
            images.extend(
                frame.reformat(format="rgb24", interpolation="BICUBIC").to_ndarray().tobytes()
                for frame in frames
            )

        def write() -> None:
            for number, image in enumerate(images):
                write_png(folder / f"{number}.png", image, *SIZE)

        return {
            "decode_s": decode_s,
            "rgb_s": measuring.own_cpu_s(convert),
            "png_s": measuring.own_cpu_s(write),
        }


def wrong_frames(episode: Episode) -> int:
    """Return how many keyframes differ from a sequential decode, plus wrong clip frames."""
    raw = run_ffmpeg(
        [
            *("-threads", "1", "-ss", f"{FROM_S - 0.5 / FPS:.6f}", "-i", str(episode.source)),
            *("-frames:v", str(FRAMES), "-vf", "scale=flags=bicubic", "-pix_fmt", "rgb24"),
            *("-f", "rawvideo", "-"),
        ]
    )
    truth = np.frombuffer(raw, np.uint8).reshape(FRAMES, SIZE[1], SIZE[0], 3)
    wrong = abs(count_frames(episode.clip, "clip") - FRAMES)
    for index in indices():
        with Image.open(episode.keyframes / CAMERA / f"{index:06d}.png") as image:
            wrong += not np.array_equal(np.asarray(image), truth[index])
    return wrong


def measure(name: str, source: Path, folder: Path, jobs: Jobs, repeats: int) -> dict[str, Any]:
    folder.mkdir()
    (folder / "limit").mkdir()
    (folder / "plain").mkdir()
    episode = Episode(source, folder)
    for served in (True, False):  # the first jobs import, and fill the page cache
        episode.extract_clip(jobs, "auto", served=served)
        episode.decode_keyframes(jobs, served=served)
    found: dict[str, Any] = {
        "plain_keyframes_s": plain_keyframes(source, folder / "plain"),
        "plain_clip_s": plain_clip(source, folder / "plain"),
    }

    def of(work) -> float:
        return round(measuring.median(work, repeats), 3)

    found["keyframes_s"] = of(lambda: episode.decode_keyframes(jobs, served=True))
    found["clip_s"] = of(lambda: episode.extract_clip(jobs, "auto", served=True))
    found["keyframes_alone_s"] = of(lambda: episode.decode_keyframes(jobs, served=False))
    found["clip_alone_s"] = of(lambda: episode.extract_clip(jobs, "auto", served=False))
    found["wrong_frames"] = wrong_frames(episode)
    if name.startswith("av1"):
        found["clip_h264_s"] = of(lambda: episode.extract_clip(jobs, "h264", served=True))
    least = [limit(source, folder / "limit") for _ in range(repeats)]
    found["limit"] = min(least, key=lambda parts: sum(parts.values()))
    found["limit_s"] = sum(found["limit"].values())
    found["wrong_frames"] += wrong_frames(episode)
    plain_s = found["plain_keyframes_s"] + found["plain_clip_s"]
    found["ratio"] = plain_s / (found["keyframes_s"] + found["clip_s"])
    found["ratio_alone"] = plain_s / (found["keyframes_alone_s"] + found["clip_alone_s"])
    found["ratio_clip_h264"] = plain_s / (
        found["keyframes_s"] + found.get("clip_h264_s", found["clip_s"])
    )
    found["keyframes_of_limit"] = found["limit_s"] / found["keyframes_s"]
    return found


def targets_of(figures: dict[str, dict[str, Any]]) -> list[Target]:
    targets = []
    for name, found in figures.items():
        label = f"{name}: clip and {KEYFRAMES} keyframes, times less CPU"
        targets.append(Target(label, found["ratio"], TARGETS[name]))
        targets.append(
            Target(f"{name}: keyframes, share of the limit", found["keyframes_of_limit"], 0.6)
        )
        targets.append(Target(f"{name}: wrong frames", found["wrong_frames"], 0, at_most=True))
    return targets


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--work", type=Path, help="keep the long files here, and use them again")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="media.") as name:
        folder = Path(name)
        files = options.work or folder / "sources"
        files.mkdir(parents=True, exist_ok=True)
        figures = {}
        with Jobs(folder / "jobs") as jobs:
            for source, coding in SOURCES.items():
                path = files / f"{source}.mp4"
                if not path.exists():
                    make_source(path, coding)
                figures[source] = measure(source, path, folder / source, jobs, options.repeats)
                shutil.rmtree(folder / source)
                if options.work is None:
                    path.unlink()
        print(f"{'CPU seconds':<34}" + "".join(f"{source:>13}" for source in figures))
        for key in next(iter(figures.values())):
            if key != "limit":
                values = (found.get(key, 0.0) for found in figures.values())
                print(f"{key:<34}" + "".join(f"{value:>13.2f}" for value in values))
        measuring.publish("media", targets_of(figures), figures, options.json)


if __name__ == "__main__":
    main()
