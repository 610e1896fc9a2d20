"""What the tests have lerobot do, in its own environment: `python lerobot_tools.py COMMAND ...`.

write_v21 SOURCE TARGET [CAMERA]
                           copy a v3.0 dataset frame by frame with lerobot 0.3.3, which writes v2.1;
                           pictures of CAMERA go into the data files, of others into videos
convert ROOT               lerobot's own converter from v2.1 to v3.0, in place
load ROOT STEP             print what LeRobotDataset gives: a hash of every STEPth frame, as JSON
                           lines
"""

import hashlib
import json
import sys
from pathlib import Path


def write_v21(source: Path, target: Path, pictures_of: str = "") -> None:
    """Needs lerobot 0.3.3 on the path."""
    import av
    import numpy as np
    import pyarrow.parquet as pq
    from lerobot.datasets.lerobot_dataset import CODEBASE_VERSION, LeRobotDataset

    assert CODEBASE_VERSION == "v2.1", CODEBASE_VERSION
    info = json.loads((source / "meta/info.json").read_text())
    counters = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
    features = {k: v for k, v in info["features"].items() if k not in counters}
    cameras = [key for key, feature in features.items() if feature["dtype"] == "video"]
    dataset = LeRobotDataset.create(
        repo_id="made/v21",
        fps=info["fps"],
        root=target,
        use_videos=True,
        features={
            key: {
                "dtype": "image" if key == pictures_of else feature["dtype"],
                "shape": tuple(feature["shape"]),
                "names": feature["names"],
            }
            for key, feature in features.items()
        },
    )
    files = sorted((source / "meta/episodes").glob("*/*.parquet"))
    episodes = [row for file in files for row in pq.read_table(file).to_pylist()]
    for episode in episodes:
        data = info["data_path"].format(
            chunk_index=episode["data/chunk_index"], file_index=episode["data/file_index"]
        )
        filters = [("episode_index", "=", episode["episode_index"])]
        rows = pq.read_table(source / data, filters=filters).to_pylist()
        pictures = {key: _decoded(av, source, info, episode, key, len(rows)) for key in cameras}
        for number, row in enumerate(rows):
            frame = {key: pictures[key][number] for key in cameras}
            for key, feature in features.items():
                if key in cameras:
                    continue
                value = row[key]
                if feature["dtype"] != "string":
                    value = np.array(value, dtype=feature["dtype"]).reshape(feature["shape"])
                frame[key] = value
            dataset.add_frame(frame, task=episode["tasks"][0])
        dataset.save_episode()


def _decoded(av, source, info, episode, key, length):
    path = info["video_path"].format(
        video_key=key,
        chunk_index=episode[f"videos/{key}/chunk_index"],
        file_index=episode[f"videos/{key}/file_index"],
    )
    first = round(episode[f"videos/{key}/from_timestamp"] * info["fps"])
    frames = []
    with av.open(str(source / path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if first <= number < first + length:
                frames.append(frame.to_ndarray(format="rgb24"))
    assert len(frames) == length
    return frames


def convert(root: Path) -> None:
    """Needs lerobot 0.4."""
    from lerobot.datasets.v30.convert_dataset_v21_to_v30 import convert_dataset

    convert_dataset(root.name, root=root.parent, push_to_hub=False)


def load(root: Path, step: int) -> None:
    """One line per frame: its numbers, task and a hash of everything in it."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("made/loaded", root=root, video_backend="torchcodec")
    for number in range(0, len(dataset), step):
        frame = dataset[number]
        digest = hashlib.sha256()
        for key in sorted(frame):
            value = frame[key]
            digest.update(key.encode())
            content = value.numpy().tobytes() if hasattr(value, "numpy") else repr(value).encode()
            digest.update(content)
        line = {
            "index": int(frame["index"]),
            "episode_index": int(frame["episode_index"]),
            "keys": sorted(frame),
            "task": frame["task"],
            "sha256": digest.hexdigest(),
        }
        print(json.dumps(line))


if __name__ == "__main__":
    command, first, *rest = sys.argv[1:]
    if command == "write_v21":
        write_v21(Path(first), Path(rest[0]), *rest[1:])
    elif command == "convert":
        convert(Path(first))
    else:
        load(Path(first), int(rest[0]))
