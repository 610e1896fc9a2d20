"""How much memory and time one long episode takes, stage by stage, with the demo model.

    python benchmarks/long_episodes.py --minutes 10 --cameras 2
    python benchmarks/long_episodes.py --minutes 10 60 --cameras 3 --vqa-only    # 10,800 calls

The episode is the demo over and over, with what its robot recorded, at 10 frames per second, in one
file per camera.
Memory of a job is its largest resident set, shared libraries included. With several lengths, it
prints how time and memory grow from the first to the last. What grows in memory is the list of
frames and the records of requests, never images.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import workflow_cost
from measuring import REPOSITORY, Target, publish

from cuesheet.media.ffmpeg import run_ffmpeg

FPS = 10
MOST_MB = 500  # no rule of a stage asks for less
DEMO = REPOSITORY / "data" / "demo_v3"
RECORDED = ("action", "observation.state")
FRONT = "observation.images.front"


def make_dataset(root: Path, minutes: float, cameras: int) -> None:
    """Make a v3.0 dataset of one episode; every camera shows the demo's front camera."""
    length = round(minutes * 60 * FPS)
    keys = [f"observation.images.camera_{number}" for number in range(cameras)]
    video = DEMO / f"videos/{FRONT}/chunk-000/file-000.mp4"
    recorded = pq.read_table(DEMO / "data/chunk-000/file-000.parquet", columns=[*RECORDED])
    columns = {
        name: recorded[name].take(np.arange(length) % len(recorded)).combine_chunks()
        for name in RECORDED
    }
    columns |= {
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
    info = json.loads((DEMO / "meta/info.json").read_text())
    features = {name: info["features"][name] for name in RECORDED}
    number = {"dtype": "float32", "shape": [1], "names": None}
    features["timestamp"] = {**number}
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


def measure(minutes: float, cameras: int, vqa_only: bool) -> dict[str, Any]:
    """Return the cost of a run with one such episode, and its number of requests."""
    with tempfile.TemporaryDirectory(prefix="cuesheet-long-") as folder:
        make_dataset(Path(folder) / "long", minutes, cameras)
        settings: dict[str, Any] = {"dataset": str(Path(folder) / "long")}
        if vqa_only:
            settings |= {"plan": {"enabled": False}, "interjections": {"enabled": False}}
        work = Path(folder) / "work"
        found = workflow_cost.run(work, settings, 2)
        summary = json.loads((work / "results/long/summary.json").read_text())
        return {"minutes": minutes, "calls": summary["calls"]["total"], **found}


def show(found: dict[str, Any]) -> None:
    """Print one measurement as a table."""
    print(f"\n{found['minutes']:g} minutes: {found['calls']:,} calls")
    print(f"{'stage':<24}{'jobs':>6}{'peak MB':>10}{'CPU s':>10}")
    for rule, job in found["jobs"].items():
        print(f"{rule:<24}{job['count']:>6}{job['peak_mb']:>10.0f}{job['cpu_s']:>10.1f}")
    print(f"{'whole run, all processes':<30}{found['peak_mb']:>10.0f}{found['cpu_s']:>10.1f}")
    print(f"wall time: {found['wall_s']:.0f} s")


def growth(first: dict[str, Any], last: dict[str, Any]) -> list[Target]:
    """Return targets: time grows at most linearly (1), and memory is bounded."""
    longer = last["minutes"] / first["minutes"]
    stages = [(f"{rule} job", first["jobs"][rule], job) for rule, job in last["jobs"].items()]
    stages = [stage for stage in stages if stage[1]["cpu_s"] >= 1]
    targets = [
        Target(f"CPU s a minute of video, {name}", b["cpu_s"] / a["cpu_s"] / longer, 1.15, True)
        for name, a, b in [("whole run", first, last), *stages]
    ]
    calls = max(last["calls"] - first["calls"], 1)
    for name, a, b in stages:
        targets.append(Target(f"peak MB, {name}", b["peak_mb"], MOST_MB, True))
        per_call_kb = 1024 * (b["peak_mb"] - a["peak_mb"]) / calls
        targets.append(Target(f"kB of memory a further call, {name}", per_call_kb, 32, True))
    return targets


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, nargs="+", default=[10])
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--vqa-only", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    given = parser.parse_args()
    runs = []
    for minutes in given.minutes:
        runs.append(measure(minutes, given.cameras, given.vqa_only))
        show(runs[-1])
    targets = growth(runs[0], runs[-1]) if len(runs) > 1 else []
    publish("long_episodes", targets, {"cameras": given.cameras, "runs": runs}, given.json)


if __name__ == "__main__":
    main()
