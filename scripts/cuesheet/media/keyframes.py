"""Decodes an episode's keyframes to PNG files and describes them in keyframes.json."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cuesheet.artifacts.index import IndexedEpisode
from cuesheet.artifacts.layout import KEYFRAMES_FILE, keyframe_file
from cuesheet.artifacts.sampling import KeyframeSelection
from cuesheet.errors import CuesheetError
from cuesheet.media.decode import RgbFrame, decode_frames
from cuesheet.media.packets import locate_episode
from cuesheet.media.png import write_png


def camera_frames(
    row: IndexedEpisode,
    camera: str,
    *,
    root: Path | str,
    frame_indices: Sequence[int],
    decoder: str,
) -> Iterator[RgbFrame]:
    """Yield the frames of one camera, from its video or from the pictures in the data file.

    Raises CuesheetError as `packets`, `decode` and `image_columns` do, and for a camera that the
    episode does not have.
    """
    source = row.camera(camera)
    where = f"episode {row.episode_index}, camera {camera}"
    if source.kind == "image":
        from cuesheet.media.image_columns import read_images

        return read_images(
            Path(root) / row.data_file,
            root=root,
            camera=camera,
            row_from=row.row_from,
            frame_indices=frame_indices,
            where=where,
        )
    episode = locate_episode(
        Path(root) / source.file,
        from_s=source.from_s,
        to_s=source.to_s,
        timestamps_s=row.timestamps,
        fps=row.fps,
        where=where,
    )
    return decode_frames(episode, frame_indices, decoder)


def write_keyframes(
    directory: Path | str,
    row: IndexedEpisode,
    *,
    dataset: str,
    root: Path | str,
    cameras: Iterable[str],
    selection: KeyframeSelection,
    decoder: str,
) -> dict[str, Any]:
    """Write `{camera}/{frame_index:06d}.png` and keyframes.json; return what the JSON says.

    The folder appears whole or not at all: it is made beside itself and renamed.
    Raises CuesheetError as `camera_frames` does, and where frames are missing.
    """
    target = Path(directory)
    timestamps_s = row.shortest_timestamps
    frame_indices = selection.frame_indices
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        description: dict[str, Any] = {
            "format": 1,
            "dataset": dataset,
            "episode_index": row.episode_index,
            "task": row.task,
            "fps": row.fps,
            "length": row.length,
            "timestamps_s": timestamps_s,
            "decoder": decoder,
            "grid": list(selection.grid),
            "vqa": list(selection.vqa),
            "cameras": {},
            "keyframes": {},
        }
        for camera in cameras:
            frames = camera_frames(
                row, camera, root=root, frame_indices=frame_indices, decoder=decoder
            )
            entries = _write_camera(partial, camera, frames, timestamps_s)
            if [entry["frame_index"] for entry in entries] != frame_indices:
                raise CuesheetError(
                    f"episode {row.episode_index}, camera {camera}: {len(frame_indices)} frames "
                    f"were to be decoded, {len(entries)} came out"
                )
            size = {"width": entries[0]["width"], "height": entries[0]["height"]}
            description["cameras"][camera] = size
            description["keyframes"][camera] = entries
        text = json.dumps(description, indent=1, ensure_ascii=False, allow_nan=False)
        (partial / KEYFRAMES_FILE).write_text(text + "\n", encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return description


def _write_camera(
    folder: Path, camera: str, frames: Iterable[RgbFrame], timestamps_s: Sequence[float]
) -> list[dict[str, Any]]:
    (folder / camera).mkdir()
    entries = []
    for frame in frames:
        file = keyframe_file(camera, frame.frame_index)
        write_png(folder / file, frame.data, frame.width, frame.height)
        entries.append(
            {
                "frame_index": frame.frame_index,
                "timestamp_s": timestamps_s[frame.frame_index],
                "file": file,
                "width": frame.width,
                "height": frame.height,
            }
        )
    return entries
