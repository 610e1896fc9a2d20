"""Find out which dimensions of a dataset's state and action are arms and grippers.

In: the index; the data files of a fixed sample of episodes, the lowest numbers whose files are
present. Out: signals/layout.json.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuesheet import files, job_log
from cuesheet.artifacts.index import indexed_episodes, read_indexed_episode
from cuesheet.artifacts.signals_file import SignalsLayout
from cuesheet.signals.layout import SAMPLED_EPISODES, Names, make_layout
from cuesheet.signals.record import columns_of, dimension_names, read_record


def detect(root: Path, index: Path, dataset: str, settings: Mapping[str, Any]) -> SignalsLayout:
    """The layout of a dataset, from its first indexed episodes whose data files are present."""
    features = json.loads((root / "meta" / "info.json").read_text(encoding="utf-8"))["features"]
    state = columns_of(features, settings["state"])
    action = columns_of(features, settings["action"])
    records, sampled = [], []
    for episode in indexed_episodes(index) if state or action else ():
        row = read_indexed_episode(index, episode)
        if (root / row.data_file).is_file():
            records.append(read_record(root, row, state, action))
            sampled.append(episode)
        if len(sampled) == SAMPLED_EPISODES:
            break
    names = Names(
        state, action, dimension_names(features, state), dimension_names(features, action)
    )
    return make_layout(dataset, sampled, records, names, settings["gripper"])


def main(snakemake) -> None:
    with job_log.to_file(snakemake.log[0]) as log:
        layout = detect(
            Path(snakemake.params.root),
            Path(snakemake.input.index),
            snakemake.wildcards.dataset,
            snakemake.params.signals,
        )
        files.write_json(snakemake.output.layout, layout.model_dump())
        found = ", ".join(f"{one.name} ({one.found_by})" for one in layout.grippers) or "none"
        log.info("grippers: %s; arms: %d", found, len(layout.arms))
        for notice in layout.notices:
            log.warning("%s", notice)


if "snakemake" in globals():
    main(snakemake)
