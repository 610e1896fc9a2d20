"""Cut one episode of one camera out of its source: H.264 or AV1, yuv420p, exactly its frames.

In:  input.index: episodes.parquet (read for the rows of image cameras, and if the video's range has
     frames that the episode does not have); params.root: the dataset's folder; params.source: kind,
     file (the video, or for image cameras the data file, relative to the root), from_s, to_s
     (seconds of the file), length (frames), fps; params.clip: clip_codec, clip_preset, clip_crf,
     clip_copy
Out: output.clip: the mp4
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuesheet import job_log
from cuesheet.media.clips import ClipSettings, write_clip, write_clip_of_images
from cuesheet.media.packets import EpisodeFrames, locate_episode, locate_range

if TYPE_CHECKING:
    from cuesheet.artifacts.index import IndexedEpisode


def episode_frames(
    file: str, source: Mapping[str, Any], index: str, episode_index: int, label: str
) -> EpisodeFrames:
    """Return the episode's frames in the video; timestamps are read only if they must decide."""
    place = {"from_s": source["from_s"], "to_s": source["to_s"], "fps": source["fps"]}
    found = locate_range(file, **place, length=source["length"], label=label)
    if found is not None:
        return found
    # Imported here: pyarrow costs as much CPU time as the rest of the job.
    from cuesheet.artifacts.index import read_indexed_episode

    row = read_indexed_episode(index, episode_index)
    return locate_episode(file, **place, timestamps_s=row.timestamps, label=label)


def write_image_clip(
    clip: str, root: Path, row: "IndexedEpisode", camera: str, settings: ClipSettings, label: str
) -> None:
    from cuesheet.media.image_columns import read_images

    frames = read_images(
        root / row.data_file,
        root=root,
        camera=camera,
        row_from=row.row_from,
        frame_indices=range(row.length),
        label=label,
    )
    write_clip_of_images(
        clip, frames, length=row.length, fps=row.fps, settings=settings, label=label
    )


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]) as log:
        begin_s = time.monotonic()
        source = snakemake.params.source
        root, index = Path(snakemake.params.root), snakemake.input.index
        camera, episode_index = snakemake.wildcards.camera, int(snakemake.wildcards.episode)
        label = f"episode {episode_index}, camera {camera}"
        settings = ClipSettings.of(snakemake.params.clip)
        if source["kind"] == "image":
            from cuesheet.artifacts.index import read_indexed_episode

            row = read_indexed_episode(index, episode_index)
            write_image_clip(snakemake.output.clip, root, row, camera, settings, label)
            way = "encoded from images"
        else:
            file = str(root / source["file"])
            frames = episode_frames(file, source, index, episode_index, label)
            way = write_clip(snakemake.output.clip, frames, settings)
        log.info(
            "%s: %d frames %s, %d bytes, in %.2f s",
            label,
            source["length"],
            way,
            Path(snakemake.output.clip).stat().st_size,
            time.monotonic() - begin_s,
        )


if "snakemake" in globals():
    main(snakemake)
