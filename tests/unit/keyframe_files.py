"""keyframes.json as `decode_keyframes` writes it, for tests that need no images."""

from collections.abc import Mapping, Sequence
from typing import Any


def keyframes_json(
    dataset: str,
    episode_index: int,
    *,
    task: str,
    fps: float,
    length: int,
    cameras: Mapping[str, Sequence[int]],
    size: tuple[int, int] = (64, 48),
) -> dict[str, Any]:
    """Return its content; `cameras` has the decoded frame indices of each camera."""
    times = [index / fps for index in range(length)]
    return {
        "format": 1,
        "dataset": dataset,
        "episode_index": episode_index,
        "task": task,
        "fps": fps,
        "length": length,
        "timestamps_s": times,
        "decoder": "ffmpeg",
        "grid": sorted({index for indices in cameras.values() for index in indices}),
        "vqa": [],
        "cameras": {camera: {"width": size[0], "height": size[1]} for camera in cameras},
        "keyframes": {
            camera: [
                {
                    "frame_index": index,
                    "timestamp_s": times[index],
                    "file": f"{camera}/{index:06d}.png",
                    "width": size[0],
                    "height": size[1],
                }
                for index in indices
            ]
            for camera, indices in cameras.items()
        },
    }
