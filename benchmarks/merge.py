"""Measure the cost of writing the language columns of a large data file against a plain baseline.

    python benchmarks/merge.py [--json FILE] [--episodes 300] [--frames 900]

The data file has 300 episodes of 900 frames (270,000 rows; state and action of 6 floats each), with
50 persistent rows and 20 events per episode, which are read from a JSON file. The baseline makes a
Python list of dicts for every frame, converts both columns with `pyarrow.array` and writes the
whole table at once. Cuesheet's merge is `cuesheet.assemble.merge.merge_file`, one row group per
episode. Each runs in its own process, whose CPU seconds, wall seconds and peak memory are
measured, imports included. Afterwards the two files are compared row by row.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import Target

from cuesheet.artifacts.language import say, sort_events, sort_persistent
from cuesheet.artifacts.language_arrow import EVENTS_TYPE, PERSISTENT_TYPE
from cuesheet.assemble.merge import EpisodeRows, merge_file

FPS = 30
PERSISTENT_ROWS, EVENTS = 50, 20
WORDS = [
    "reach",
    "for",
    "the",
    "red",
    "cup",
    "lift",
    "it",
    "carry",
    "over",
    "to",
    "a",
    "shelf",
    "gently",
]


def text(episode: int, number: int, words: int) -> str:
    """Return some words, different ones for every row."""
    chosen = (WORDS[(episode * 7 + number * 3 + k * k) % len(WORDS)] for k in range(words))
    return f"{' '.join(chosen)} {episode}.{number}"


def rows_of(episode: int, frames: int) -> EpisodeRows:
    """Return the rows of an episode: plans, memories and subtasks; speech and visual questions."""

    def row(style: str | None, role: str, content: str | None, number: int, of: int) -> dict:
        frame_index = number * frames // of
        timestamp = float(np.float32(frame_index / FPS))
        base = {"role": role, "content": content, "style": style, "timestamp": timestamp}
        return base | {"camera": None, "tool_calls": None}

    persistent = [
        row(
            ("subtask", "plan", "memory")[number % 3],
            "assistant",
            text(episode, number, 8 if number % 3 == 0 else 40),
            number,
            PERSISTENT_ROWS,
        )
        for number in range(PERSISTENT_ROWS)
    ]
    events = []
    for number in range(0, EVENTS, 2):
        question = row("vqa", "user", text(episode, number, 9), number, EVENTS)
        answer = row("vqa", "assistant", '{"count": 2, "label": "cup"}', number, EVENTS)
        events += [question | {"camera": "front"}, answer | {"camera": "front"}]
    events[-1] |= {"style": None, "content": None, "camera": None, "tool_calls": say("Sure.")}
    events[-2] |= {"style": "interjection", "camera": None}
    return EpisodeRows(persistent, events)


def write_source(path: Path, episodes: int, frames: int) -> None:
    """Write a data file as LeRobot does, and next to it the rows of all episodes as JSON."""
    generator = np.random.default_rng(0)
    rows = episodes * frames
    vectors = [
        pa.FixedSizeListArray.from_arrays(
            pa.array(generator.standard_normal(rows * 6, dtype=np.float32)), 6
        )
        for _ in range(2)
    ]
    frame_index = np.tile(np.arange(frames), episodes)
    table = pa.table(
        {
            "observation.state": vectors[0],
            "action": vectors[1],
            "timestamp": (frame_index / FPS).astype(np.float32),
            "frame_index": frame_index,
            "episode_index": np.repeat(np.arange(episodes), frames),
            "index": np.arange(rows),
            "task_index": np.zeros(rows, np.int64),
        }
    )
    pq.write_table(table, path, compression="snappy")
    rows = [rows_of(episode, frames) for episode in range(episodes)]
    text = json.dumps([[one.persistent, one.events] for one in rows])
    path.with_suffix(".json").write_text(text)


def read_rows(source: Path) -> list[EpisodeRows]:
    """Return the rows of all episodes, by episode number."""
    return [EpisodeRows(*one) for one in json.loads(source.with_suffix(".json").read_text())]


def merge_plainly(source: Path, output: Path) -> None:
    """Merge with a list of dicts for every frame, one array per column and one write."""
    table = pq.read_table(source)
    by_episode = read_rows(source)
    persistent, events = [], []
    annotations: dict[int, tuple[list, dict]] = {}
    for frame in table.select(["episode_index", "timestamp"]).to_pylist():
        episode = frame["episode_index"]
        if episode not in annotations:
            rows = by_episode[episode]
            by_time: dict[float, list] = {}
            for row in rows.events:
                event = {name: value for name, value in row.items() if name != "timestamp"}
                by_time.setdefault(row["timestamp"], []).append(event)
            sorted_events = {time: sort_events(listed) for time, listed in by_time.items()}
            annotations[episode] = (sort_persistent(rows.persistent), sorted_events)
        listed, by_time = annotations[episode]
        persistent.append(listed)
        events.append(by_time.get(frame["timestamp"], []))
    table = table.append_column("language_persistent", pa.array(persistent, type=PERSISTENT_TYPE))
    table = table.append_column("language_events", pa.array(events, type=EVENTS_TYPE))
    pq.write_table(table, output, compression="snappy")


def merge_ours(source: Path, output: Path, episodes: int, frames: int) -> None:
    expected = dict.fromkeys(range(episodes), frames)
    merge_file(source, output, read_rows(source).__getitem__, expected)


def in_a_process(way: str, source: Path, output: Path, options: argparse.Namespace) -> dict:
    """Run one merge in its own process; return CPU and wall seconds, peak memory and file size."""
    command = [sys.executable, __file__, "--way", way, "--files", str(source), str(output)]
    command += ["--episodes", str(options.episodes), "--frames", str(options.frames)]
    used = measuring.whole_process(command)
    return {**used, "file_mb": round(output.stat().st_size / 1e6, 1)}


def rows_that_differ(first: Path, second: Path, step: int) -> int:
    """Return the number of rows that are not the same in both files, read `step` at a time."""
    with pq.ParquetFile(first) as one, pq.ParquetFile(second) as other:
        if one.metadata.num_rows != other.metadata.num_rows:
            return abs(one.metadata.num_rows - other.metadata.num_rows)
        if one.schema_arrow.names != other.schema_arrow.names:
            return one.metadata.num_rows
        differ = 0
        batches = zip(one.iter_batches(step), other.iter_batches(step), strict=True)
        for mine, theirs in batches:
            # Sizes of batches follow row groups, so both are read in steps that fit an episode.
            if not mine.equals(theirs):
                rows = zip(mine.to_pylist(), theirs.to_pylist(), strict=True)
                differ += sum(a != b for a, b in rows)
    return differ


def measure(options: argparse.Namespace) -> dict[str, Any]:
    # As in the jobs of a run: the threads of numpy would only be started and wait.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="merge.") as name:
        folder = Path(name)
        source = folder / "source.parquet"
        write_source(source, options.episodes, options.frames)
        plain, ours = folder / "plain.parquet", folder / "ours.parquet"
        found = {
            "ours": in_a_process("ours", source, ours, options),
            "plain": in_a_process("plain", source, plain, options),
        }
        differ = rows_that_differ(ours, plain, options.frames)
        return {"rows": options.episodes * options.frames, "rows_that_differ": differ, **found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--frames", type=int, default=900, help="frames per episode")
    parser.add_argument("--way", choices=["plain", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--files", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way == "plain":
        merge_plainly(*options.files)
    elif options.way == "ours":
        merge_ours(*options.files, options.episodes, options.frames)
    else:
        found = measure(options)
        print(json.dumps(found, indent=2))
        plain, ours = found["plain"], found["ours"]
        targets = [
            Target("merge: times less CPU", plain["cpu_s"] / ours["cpu_s"], 6),
            Target("merge: times less memory", plain["peak_mb"] / ours["peak_mb"], 4),
            Target("merge: file size", ours["file_mb"] / plain["file_mb"], 1, at_most=True),
            Target("merge: rows that differ", found["rows_that_differ"], 0, at_most=True),
        ]
        measuring.publish("merge", targets, found, options.json)


if __name__ == "__main__":
    main()
