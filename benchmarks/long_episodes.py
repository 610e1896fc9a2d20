"""How much memory and time one long episode takes, stage by stage, with the embedded model.

    python benchmarks/long_episodes.py --minutes 10 --cameras 2
    python benchmarks/long_episodes.py --minutes 60 --cameras 3 --vqa-only    # 10,800 calls

The episode is the demo's video over and over, at 10 frames a second, in one file a camera. Peak
memory is the largest resident set of a stage's job, as Snakemake's benchmark files have it.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))

from cuesheet.ffmpeg import run_ffmpeg  # noqa: E402

FPS = 10
DEMO = REPOSITORY / "data" / "demo_v3"
FRONT = "observation.images.front"


def make_dataset(root: Path, minutes: float, cameras: int) -> None:
    """A v3.0 dataset of one episode; every camera shows the demo's front camera."""
    length = round(minutes * 60 * FPS)
    keys = [f"observation.images.camera_{number}" for number in range(cameras)]
    video = DEMO / f"videos/{FRONT}/chunk-000/file-000.mp4"
    columns = {
        "action": pa.array(np.zeros((length, 1), np.float32).tolist(), pa.list_(pa.float32())),
        "timestamp": pa.array(np.arange(length) / FPS, pa.float32()),
        "frame_index": np.arange(length),
        "episode_index": np.zeros(length, np.int64),
        "index": np.arange(length),
        "task_index": np.zeros(length, np.int64),
    }
    described = {
        "episode_index": [0],
        "tasks": [["Pick and place a puck to a goal"]],
        "length": [length],
        "data/chunk_index": [0],
        "data/file_index": [0],
        "dataset_from_index": [0],
        "dataset_to_index": [length],
    }
    number = {"dtype": "float32", "shape": [1], "names": None}
    features = {name: {**number} for name in ("action", "timestamp")}
    whole = ("frame_index", "episode_index", "index", "task_index")
    features |= {name: {**number, "dtype": "int64"} for name in whole}
    first = root / f"videos/{keys[0]}/chunk-000/file-000.mp4"
    for key in keys:
        file = root / f"videos/{key}/chunk-000/file-000.mp4"
        file.parent.mkdir(parents=True)
        if file == first:
            run_ffmpeg(
                [
                    *("-y", "-stream_loop", "-1", "-i", str(video)),
                    *("-frames:v", str(length), "-c", "copy", str(file)),
                ]
            )
        else:
            file.hardlink_to(first)
        features[key] = {
            "dtype": "video",
            "shape": [224, 224, 3],
            "names": ["height", "width", "channels"],
        }
        described |= {f"videos/{key}/{name}": [0] for name in ("chunk_index", "file_index")}
        described |= {
            f"videos/{key}/from_timestamp": [0.0],
            f"videos/{key}/to_timestamp": [length / FPS],
        }
    for relative, table in (
        ("data/chunk-000/file-000.parquet", pa.table(columns)),
        ("meta/episodes/chunk-000/file-000.parquet", pa.table(described)),
    ):
        (root / relative).parent.mkdir(parents=True)
        pq.write_table(table, root / relative)
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "total_episodes": 1,
        "total_frames": length,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    }
    (root / "meta/info.json").write_text(json.dumps(info))


def run(work: Path, config: dict) -> tuple[int, dict[str, int]]:
    """Exit status of the run, and the peak memory (bytes) of the run's own processes by name."""
    (work / "config").mkdir()
    (work / "config/config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(work), "--cores", "2", "--quiet", "all"]
    process = psutil.Popen(command)
    peaks: dict[str, int] = {}
    while True:
        for child in process.children(recursive=True):
            try:
                words = " ".join(child.cmdline())
                name = next((n for n in ("cuesheet.server", "offline_vlm") if n in words), None)
                if name:
                    peaks[name] = max(peaks.get(name, 0), child.memory_info().rss)
            except psutil.Error:
                continue
        try:
            return process.wait(1), peaks
        except psutil.TimeoutExpired:
            continue


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--vqa-only", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cuesheet-long-") as folder:
        work = Path(folder) / "work"
        work.mkdir()
        make_dataset(Path(folder) / "long", given.minutes, given.cameras)
        config: dict = {"dataset": str(Path(folder) / "long")}
        if given.vqa_only:
            config |= {"plan": {"enabled": False}, "interjections": {"enabled": False}}
        status, peaks = run(work, config)
        if status:
            return status
        print(f"{'stage':<24} {'peak MB':>8} {'seconds':>8}")
        for path in sorted((work / "results/long/benchmarks").rglob("*.tsv")):
            names, values = (line.split("\t") for line in path.read_text().splitlines()[:2])
            row = dict(zip(names, values, strict=True))
            stage = path.relative_to(work / "results/long/benchmarks").parts[0].removesuffix(".tsv")
            peak = row["max_rss"] if row["max_rss"] not in ("NA", "-") else "0"
            print(f"{stage:<24} {float(peak):>8.0f} {float(row['s']):>8.1f}")
        for name, peak in sorted(peaks.items()):
            print(f"{name:<24} {peak / 2**20:>8.0f}")
        print((work / "results/long/summary.txt").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
