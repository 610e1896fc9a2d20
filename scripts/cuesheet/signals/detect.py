"""Detects the arms and grippers of a dataset from its first episodes."""

import json
from collections.abc import Sequence
from pathlib import Path

from cuesheet.artifacts.index import indexed_episodes, read_indexed_episode
from cuesheet.artifacts.signals_file import SignalsLayout
from cuesheet.errors import CuesheetError
from cuesheet.signals.layout import SAMPLED_EPISODES, Names, make_layout
from cuesheet.signals.record import columns_of, dimension_names, read_record


def detect(
    root: Path,
    index: Path,
    dataset: str,
    *,
    state: Sequence[str],
    action: Sequence[str],
    gripper: str | Sequence[str],
) -> SignalsLayout:
    """Return the layout of a dataset, from its first indexed episodes whose data files exist.

    An episode that cannot be read is skipped with a notice. If none can be read, the layout names
    no columns, and the dataset is annotated from its images alone. Raises CuesheetError if a
    gripper in `gripper` is not a dimension of the state or the action.
    """
    features = json.loads((root / "meta" / "info.json").read_text(encoding="utf-8"))["features"]
    state, action = columns_of(features, state), columns_of(features, action)
    records, sampled = [], []
    notices: list[str] = []
    for episode in indexed_episodes(index) if state or action else ():
        row = read_indexed_episode(index, episode)
        if not (root / row.data_file).is_file():
            continue
        try:
            records.append(read_record(root, row, state, action))
        except CuesheetError as error:
            if not notices:
                notices.append(str(error))
            continue
        sampled.append(episode)
        if len(sampled) == SAMPLED_EPISODES:
            break
    if not records:
        state, action = [], []
    names = Names(
        state, action, dimension_names(features, state), dimension_names(features, action)
    )
    layout = make_layout(dataset, sampled, records, names, gripper)
    return layout.model_copy(update={"notices": [*notices, *layout.notices]})
