"""Cut one episode of one camera out of its source: H.264 or AV1, yuv420p, exactly its frames.

Needs  input.source: the video file, or for image cameras the data file; input.index:
       episodes.parquet (read for image cameras' places and where the video's range holds frames
       that the episode does not have); params.source: kind, from_s, to_s (seconds of the file),
       length (frames), fps, row_from (row of the data file); params.clip: clip_codec, clip_preset,
       clip_crf, clip_copy
Makes  output.clip: the mp4
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuesheet import job_log
from cuesheet.media.clips import ClipSettings, write_clip, write_clip_of_images
from cuesheet.media.ffmpeg import passthrough_options
from cuesheet.media.packets import EpisodeFrames, locate_episode, locate_range


def episode_frames(
    file: str, source: Mapping[str, Any], index: str, episode_index: int, where: str
) -> EpisodeFrames:
    """The episode's frames in the video; its timestamps are read only where they must choose."""
    place = {"from_s": source["from_s"], "to_s": source["to_s"], "fps": source["fps"]}
    found = locate_range(file, **place, length=source["length"], where=where)
    if found is not None:
        return found
    # Imported here: pyarrow costs as much CPU time as the rest of the job.
    from cuesheet.artifacts.index import read_indexed_episode

    row = read_indexed_episode(index, episode_index)
    return locate_episode(file, **place, timestamps_s=row.timestamps, where=where)


def write_image_clip(
    clip: str, file: str, source: Mapping[str, Any], camera: str, settings: ClipSettings, where: str
) -> None:
    from cuesheet.media.image_columns import read_images

    def frames(indices: range):
        # Data files lie two folders below the dataset's root.
        return read_images(
            file,
            root=Path(file).parents[2],
            camera=camera,
            row_from=source["row_from"],
            frame_indices=indices,
            where=where,
        )

    first = next(frames(range(1)))
    write_clip_of_images(
        clip,
        frames(range(source["length"])),
        length=source["length"],
        width=first.width,
        height=first.height,
        fps=source["fps"],
        settings=settings,
        where=where,
    )


def warm_up() -> None:
    """What every clip's job would find out for itself, once in the process that they fork from."""
    passthrough_options()


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]) as log:
        begin_s = time.monotonic()
        source = snakemake.params.source
        file = str(snakemake.input.source)
        camera, episode_index = snakemake.wildcards.camera, int(snakemake.wildcards.episode)
        where = f"episode {episode_index}, camera {camera}"
        settings = ClipSettings.of(snakemake.params.clip)
        if source["kind"] == "image":
            write_image_clip(snakemake.output.clip, file, source, camera, settings, where)
            way = "encoded from pictures"
        else:
            frames = episode_frames(file, source, snakemake.input.index, episode_index, where)
            way = write_clip(snakemake.output.clip, frames, settings)
        log.info(
            "%s: %d frames %s, %d bytes, in %.2f s",
            where,
            source["length"],
            way,
            Path(snakemake.output.clip).stat().st_size,
            time.monotonic() - begin_s,
        )


if "snakemake" in globals():
    main(snakemake)
