"""`cuesheet signals DATASET`: which dimensions are grippers, and how often they close and open."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cuesheet.artifacts.index import read_indexed_episode
from cuesheet.artifacts.layout import Layout
from cuesheet.artifacts.signals_file import FOUND_BY, GripperLayout, SignalsLayout
from cuesheet.dataset.index import make_index
from cuesheet.dataset.metadata import read_dataset
from cuesheet.signals.detect import detect
from cuesheet.signals.extract import measure
from cuesheet.signals.layout import SAMPLED_EPISODES
from cuesheet.signals.record import read_record
from cuesheet.text import counted


def describe_gripper(layout: SignalsLayout, one: GripperLayout, strokes: Sequence[int]) -> str:
    """Return one line about a gripper; `strokes`: their number in each sampled episode."""
    places = []
    if one.state is not None:
        places.append(f"state {layout.state_names[one.state]}")
    if one.action is not None:
        places.append(f"action {layout.action_names[one.action]}")
    text = f"{one.name}: {', '.join(places)}, {FOUND_BY[one.found_by]}"
    if one.agreement is not None:
        text += f", agreement of action and state {one.agreement:.2f}"
    mean = sum(strokes) / max(len(strokes), 1)
    return f"{text}; {mean:.1f} strokes per episode ({', '.join(map(str, strokes))})"


def report(root: Path, state: Sequence[str], action: Sequence[str], gripper: list[str]) -> str:
    """Return the findings about a dataset as text.

    Raises:
        CuesheetError: the dataset cannot be read, or a named gripper is not in it.
    """
    name = root.resolve().name
    dataset = read_dataset(root, name)
    with tempfile.TemporaryDirectory() as folder:
        index = Layout(Path(folder)).index
        present = [e.episode_index for e in dataset.episodes if dataset.has_file(e.data_file)]
        make_index(index, dataset, present[:SAMPLED_EPISODES])
        layout = detect(root, index, name, state=state, action=action, gripper=gripper or "auto")
        rows = [read_indexed_episode(index, episode) for episode in layout.sampled_episodes]
    if not layout.state and not layout.action:
        text = "No state and no action: the dataset is annotated from its images alone."
        return "\n".join([text, *(f"  NOTICE: {notice}" for notice in layout.notices)])
    files = [
        measure(
            layout,
            read_record(root, row, layout.state, layout.action),
            name,
            row.episode_index,
        )
        for row in rows
    ]
    lines = [
        f"{name}: {counted(len(layout.state_names), 'dimension')} of state, "
        f"{len(layout.action_names)} of action, {counted(len(files), 'episode')} sampled"
    ]
    for number, one in enumerate(layout.grippers):
        strokes = [len(file.grippers[number].strokes) for file in files]
        lines.append(f"  {describe_gripper(layout, one, strokes)}")
    if not layout.grippers:
        lines.append("  no gripper found")
    for number, arm in enumerate(layout.arms):
        still = [len(file.arms[number].still) for file in files]
        lines.append(
            f"  {arm.name}: {counted(len(arm.dimensions), 'dimension')}; stands still "
            f"{sum(still) / max(len(still), 1):.1f} times per episode"
        )
    return "\n".join([*lines, *(f"  NOTICE: {notice}" for notice in layout.notices)])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="cuesheet signals",
        description="Show which dimensions of state and action are used as grippers and arms.",
    )
    parser.add_argument("dataset", type=Path, help="folder of a LeRobot dataset")
    parser.add_argument(
        "--state", nargs="*", default=["observation.state"], help="columns of the state"
    )
    parser.add_argument("--action", nargs="*", default=["action"], help="columns of the action")
    parser.add_argument(
        "--gripper", nargs="*", default=[], help="dimensions that are grippers (default: detect)"
    )
    given = parser.parse_args(arguments)
    print(report(given.dataset, given.state, given.action, given.gripper))
