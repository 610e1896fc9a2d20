"""Decode the keyframes of one episode and all its cameras to PNG.

In: episodes.parquet (input.index) and the dataset's folder (params.root); params.cameras: keys of
the cameras; params.per_second, params.vqa_hz (or None), params.vqa_frames,
params.fine_per_second (or None): which frames;
params.decoder. Out: the folder `keyframes/{episode}` with {camera}/{frame_index:06d}.png and
keyframes.json (times in seconds, sizes in pixels).
"""

import time

from cuesheet import job_log
from cuesheet.artifacts.index import read_indexed_episode
from cuesheet.artifacts.sampling import select_keyframes
from cuesheet.media import scratch
from cuesheet.media.keyframes import write_keyframes


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]) as log:
        params = snakemake.params
        begin_s = time.monotonic()
        row = read_indexed_episode(snakemake.input.index, int(snakemake.wildcards.episode))
        selection = select_keyframes(
            row.shortest_timestamps,
            params.per_second,
            params.vqa_hz or None,
            params.vqa_frames,
            params.fine_per_second or None,
        )
        folder = snakemake.output[0]
        local = scratch.local_folder(folder, snakemake.wildcards.dataset)
        written = write_keyframes(
            local or folder,
            row,
            dataset=snakemake.wildcards.dataset,
            root=params.root,
            cameras=list(params.cameras),
            selection=selection,
            decoder=params.decoder,
        )
        if local:
            scratch.link_images(local, folder)
        log.info(
            "episode %d: %d of %d frames from each of %d cameras, decoded by %s in %.2f s",
            row.episode_index,
            len(selection.frame_indices),
            row.length,
            len(written["cameras"]),
            params.decoder,
            time.monotonic() - begin_s,
        )


if "snakemake" in globals():
    main(snakemake)
