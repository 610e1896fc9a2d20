"""Measure gripper strokes, rests and motion of one episode in what the robot recorded.

In: the index, signals/layout.json, the episode's data file. Out: signals/{episode}.json. Times in
seconds from the first frame, frames as half-open ranges. Without a state or an action the file
holds no grippers and no arms.
"""

from pathlib import Path

from cuesheet import files, job_log
from cuesheet.artifacts.index import read_indexed_episode
from cuesheet.artifacts.signals_file import SignalsLayout
from cuesheet.signals.extract import measure
from cuesheet.signals.record import read_record


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]) as log:
        layout = SignalsLayout.read(snakemake.input.layout)
        row = read_indexed_episode(snakemake.input.index, int(snakemake.wildcards.episode))
        record = read_record(Path(snakemake.params.root), row, layout.state, layout.action)
        found = measure(layout, record, snakemake.wildcards.dataset, row.episode_index)
        files.write_json(snakemake.output.json, found.model_dump())
        for gripper in found.grippers:
            log.info("%s: %d strokes", gripper.name, len(gripper.strokes))
        for notice in found.notices:
            log.warning("%s", notice)


if "snakemake" in globals():
    main(snakemake)
