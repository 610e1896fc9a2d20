"""Seeded mutations of small datasets, each with its expected outcome.

A mutated dataset must end with the right result or with one clear message, never with a traceback,
a hang or a change of the source:

    PYTHONPATH=tests python tests/attack/mutations.py --count 300 --seed 0

The expected outcome is stated by the mutation: `Rejected` (the message contains these words, among
them the file and, if one is concerned, the episode), `Accepted` (all episodes are indexed as in the
unchanged dataset; `notice` is part of a notice) or `Unknown` (random damage: one of the two, and
every indexed row range holds the rows of its episode).
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from dataset_variants import as_v21, store_images

from cuesheet.assemble.finalize import check_source
from cuesheet.dataset.index import build_index
from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError
from cuesheet.media.image_columns import read_images

EPISODES = "meta/episodes/chunk-000/file-000.parquet"
LINES = "meta/episodes.jsonl"
INFO = "meta/info.json"
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
LIMIT_S = 30
# Columns of the index that a change of the metadata must not affect.
COMPARED = ("episode_index", "length", "data_file", "row_from", "row_to", "timestamps")


@dataclass(frozen=True)
class Rejected:
    words: tuple[str, ...]

    def __init__(self, *words: str) -> None:
        object.__setattr__(self, "words", words)


@dataclass(frozen=True)
class Accepted:
    notice: str = ""
    ignored: tuple[str, ...] = ()  # columns that may differ


@dataclass(frozen=True)
class Unknown:
    pass


Expected = Rejected | Accepted | Unknown
Mutate = Callable[["Copy", random.Random], Expected]
MUTATIONS: dict[str, tuple[Mutate, tuple[str, ...]]] = {}
ALL = ("v30", "v21", "images")


def mutation(*formats: str) -> Callable[[Mutate], Mutate]:
    """Register a mutation that applies to the given base datasets (default: all)."""

    def register(mutate: Mutate) -> Mutate:
        MUTATIONS[mutate.__name__] = (mutate, formats or ALL)
        return mutate

    return register


class Copy:
    """A copy of a base dataset that a mutation may change."""

    def __init__(self, root: Path, base: str) -> None:
        self.root = root
        self.base = base

    @property
    def is_v21(self) -> bool:
        return self.base == "v21"

    @property
    def episode_file(self) -> str:
        return LINES if self.is_v21 else EPISODES

    def data_file(self, episode: int) -> str:
        name = f"episode_{episode:06d}" if self.is_v21 else "file-000"
        return f"data/chunk-000/{name}.parquet"

    def video_file(self, episode: int) -> str:
        if self.is_v21:
            return f"videos/chunk-000/{FRONT}/episode_{episode:06d}.mp4"
        return f"videos/{FRONT}/chunk-000/file-000.mp4"

    @property
    def info(self) -> dict:
        return json.loads((self.root / INFO).read_text())

    def edit_info(self, **values: object) -> None:
        (self.root / INFO).write_text(json.dumps(self.info | values))

    def edit_feature(self, key: str, **values: object) -> None:
        features = self.info["features"]
        features[key] |= values
        self.edit_info(features=features)

    def edit_episode(self, episode: int, name: str, value: object) -> None:
        """Set a value in the metadata of an episode; the type of its column follows the value."""
        if self.is_v21:
            path = self.root / LINES
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            rows[episode][name] = value
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            return
        self.edit_cell(EPISODES, name, episode, value)

    def edit_cell(self, file: str, name: str, row: int, value: object) -> None:
        def change(values: list) -> list:
            values[row] = value
            return values

        self.edit_column(file, name, change)

    def edit_column(self, file: str, name: str, change: Callable[[list], list]) -> None:
        path = self.root / file
        table = pq.read_table(path)
        values = change(table[name].to_pylist())
        try:
            column = pa.array(values, table.schema.field(name).type)
        except (pa.ArrowException, TypeError, OverflowError):
            if any(isinstance(value, str) for value in values):
                values = [None if value is None else str(value) for value in values]
            column = pa.array(values)
        pq.write_table(table.set_column(table.column_names.index(name), name, column), path)

    def edit_table(self, file: str, change: Callable[[pa.Table], pa.Table]) -> None:
        path = self.root / file
        pq.write_table(change(pq.read_table(path)), path)

    def rows_of(self, episode: int) -> list[int]:
        numbers = pq.read_table(self.root / self.data_file(episode))["episode_index"].to_pylist()
        return [row for row, number in enumerate(numbers) if number == episode]


# meta/info.json


@mutation()
def info_key_missing(copy: Copy, draw: random.Random) -> Expected:
    key = draw.choice(["fps", "features", "codebase_version"])
    info = copy.info
    del info[key]
    (copy.root / INFO).write_text(json.dumps(info))
    return Rejected("info.json", key)


@mutation()
def info_not_json(copy: Copy, draw: random.Random) -> Expected:
    path = copy.root / INFO
    data = path.read_bytes()
    broken = [data[: draw.randrange(len(data) - 1)], b"\xff\xfe" + data, b"[" * 200_000, b"[1]"]
    broken.append(b'{"fps": ' + b"9" * 5000 + b"}")
    path.write_bytes(draw.choice(broken))
    return Rejected("info.json")


@mutation()
def fps_invalid(copy: Copy, draw: random.Random) -> Expected:
    copy.edit_info(fps=draw.choice([0, -10, "ten", None, float("nan"), True, [10], {}]))
    return Rejected("info.json", "fps")


@mutation()
def version_unsupported(copy: Copy, draw: random.Random) -> Expected:
    version = draw.choice(["v1.6", "latest", None, 7, [3, 0], "v2.2" if not copy.is_v21 else "v4"])
    copy.edit_info(codebase_version=version)
    if version == 7 and not copy.is_v21:
        return Rejected("format")
    return Rejected("format")


@mutation()
def version_spelled_differently(copy: Copy, draw: random.Random) -> Expected:
    choices = ["2.1", "v2.0", "2.1.0"] if copy.is_v21 else ["3.0", "v3.1", "v4.0", "3.0.0"]
    copy.edit_info(codebase_version=draw.choice(choices))
    return Accepted("is read as")


@mutation()
def totals_wrong(copy: Copy, draw: random.Random) -> Expected:
    key = draw.choice(["total_episodes", "total_frames"])
    copy.edit_info(**{key: draw.choice([0, 7, -1, "many", None, 1e300, [4], {}])})
    return Accepted()


@mutation()
def shape_invalid(copy: Copy, draw: random.Random) -> Expected:
    shape = draw.choice([["a", "b", "c"], "480x640", [None, 3], [[480], 640, 3], {"h": 4}])
    copy.edit_feature(FRONT, shape=shape)
    return Rejected("info.json", FRONT)


@mutation()
def shape_strange(copy: Copy, draw: random.Random) -> Expected:
    copy.edit_feature(
        FRONT, shape=draw.choice([[], None, [1e300, 5, 3], [-4, 0, 3], [64.0, 64.0, 3]])
    )
    return Unknown()


@mutation()
def camera_name_invalid(copy: Copy, draw: random.Random) -> Expected:
    name = draw.choice(["a/b", "../x", "{x}", "a{0}b", "a\\b", "tab\there", ""])
    features = copy.info["features"]
    features[name] = features.pop(FRONT)
    copy.edit_info(features=features)
    return Rejected("info.json", "camera")


@mutation()
def features_invalid(copy: Copy, draw: random.Random) -> Expected:
    value = draw.choice([[], "none", None, {FRONT: "video"}, {"action": 3}, {FRONT: None}])
    copy.edit_info(features=value)
    return Rejected("info.json", "feature")


@mutation()
def camera_details_invalid(copy: Copy, draw: random.Random) -> Expected:
    copy.edit_feature(
        FRONT, info=draw.choice([[1], "x", 3, {"video.height": "tall"}, {"names": 4}])
    )
    return Unknown()


@mutation()
def tools_invalid(copy: Copy, draw: random.Random) -> Expected:
    copy.edit_info(tools=draw.choice(["say", 3, {"say": 1}, [3], ["say"], [{"function": "say"}]]))
    return Unknown()


@mutation()
def data_path_invalid(copy: Copy, draw: random.Random) -> Expected:
    index = "episode_index" if copy.is_v21 else "file_index"
    template = draw.choice(
        [
            "frames/{" + index + "}.parquet",
            "/etc/{" + index + "}",
            "data/../../{" + index + "}.parquet",
            "data/{x}.parquet",
            "data/{" + index + ":9999999999d}.parquet",
            "data/{" + index + ":{" + index + "}999999999}.parquet",
            "data/{" + index + ".__class__.__mro__}.parquet",
            "data/{" + index,
            "data/{" + index + "!z}.parquet",
            "data/{" + index + ":q}.parquet",
            "data/{}.parquet",
            "data/{" + index + "}\0.parquet",
        ]
    )
    copy.edit_info(data_path=template)
    return Rejected("data")


@mutation("v30", "v21")
def video_path_invalid(copy: Copy, draw: random.Random) -> Expected:
    template = draw.choice(
        [
            "/etc/{video_key}",
            "videos/../../{video_key}.mp4",
            "videos/{x}.mp4",
            "videos/{video_key:>99999999999}.mp4",
            "videos/{video_key",
            "videos/{video_key}/one.mp4",
            "videos/{video_key[0][0][0]}.mp4",
            "videos/{video_key}\0.mp4",
        ]
    )
    copy.edit_info(video_path=template)
    return Rejected("video")


@mutation()
def templates_of_wrong_type(copy: Copy, draw: random.Random) -> Expected:
    copy.edit_info(**{draw.choice(["data_path", "video_path"]): draw.choice([3, ["x"], {"a": 1}])})
    return Unknown()


@mutation()
def default_templates(copy: Copy, draw: random.Random) -> Expected:
    copy.edit_info(**{draw.choice(["data_path", "video_path", "chunks_size"]): None})
    return Accepted()


@mutation()
def byte_order_mark(copy: Copy, draw: random.Random) -> Expected:
    names = [INFO, LINES, "meta/tasks.jsonl"] if copy.is_v21 else [INFO]
    path = copy.root / draw.choice(names)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return Accepted()


@mutation("v21")
def chunk_size_invalid(copy: Copy, draw: random.Random) -> Expected:
    copy.edit_info(chunks_size=draw.choice([-1, "many", [3], 0.5, float("nan")]))
    return Unknown()


# Metadata of episodes


@mutation()
def episode_number_invalid(copy: Copy, draw: random.Random) -> Expected:
    copy.edit_episode(draw.randrange(4), "episode_index", draw.choice(["two", None, -1]))
    return Rejected("episode", Path(copy.episode_file).name if copy.is_v21 else "meta/episodes")


@mutation()
def episode_number_twice(copy: Copy, draw: random.Random) -> Expected:
    copy.edit_episode(3, "episode_index", draw.choice([0, 1, 2]))
    return Rejected("episode", "twice")


@mutation()
def numbers_as_floats(copy: Copy, draw: random.Random) -> Expected:
    name = draw.choice(["episode_index", "length"])
    for episode, value in enumerate(_episodes(copy, name)):
        copy.edit_episode(episode, name, float(value))
    return Accepted()


@mutation()
def length_wrong(copy: Copy, draw: random.Random) -> Expected:
    episode = draw.randrange(4)
    true = _episodes(copy, "length")[episode]
    copy.edit_episode(episode, "length", draw.choice([0, true - 1, true + 1, 10**9]))
    return Rejected(f"episode {episode}")


@mutation()
def length_invalid(copy: Copy, draw: random.Random) -> Expected:
    copy.edit_episode(draw.randrange(4), "length", draw.choice(["long", None, -5, 1.5]))
    return Rejected("length")


@mutation("v30", "images")
def file_number_wrong(copy: Copy, draw: random.Random) -> Expected:
    episode = draw.randrange(4)
    name = draw.choice(["data/file_index", "data/chunk_index"])
    copy.edit_episode(episode, name, draw.choice([1, 5, 99]))
    return Unknown()


@mutation("v30")
def video_range_invalid(copy: Copy, draw: random.Random) -> Expected:
    episode = draw.randrange(4)
    end = draw.choice(["from", "to"])
    value = draw.choice([1e308, float("nan"), float("inf"), -1e308, 1e6])
    copy.edit_episode(episode, f"videos/{FRONT}/{end}_timestamp", value)
    if end == "to" and value > 0 and episode == 3:
        return Unknown()  # the last episode of a file may be said to end later than it does
    return Rejected("episode", "videos/")


@mutation("v30")
def video_range_of_text(copy: Copy, draw: random.Random) -> Expected:
    episode = draw.randrange(4)
    copy.edit_episode(episode, f"videos/{FRONT}/{draw.choice(['from', 'to'])}_timestamp", "late")
    return Rejected("meta/episodes", "timestamp")


@mutation("v30", "images")
def episode_column_missing(copy: Copy, draw: random.Random) -> Expected:
    names = ["episode_index", "length", "data/file_index", "dataset_from_index"]
    name = draw.choice(names)
    copy.edit_table(EPISODES, lambda table: table.drop_columns([name]))
    return Rejected("meta/episodes", name)


@mutation("v30", "images")
def episode_column_twice(copy: Copy, draw: random.Random) -> Expected:
    name = draw.choice(["episode_index", "length", "tasks", "dataset_from_index"])
    copy.edit_table(EPISODES, lambda table: table.append_column(name, table[name]))
    return Rejected("meta/episodes", name)


@mutation("v30", "images")
def frame_range_wrong(copy: Copy, draw: random.Random) -> Expected:
    episode = draw.randrange(1, 4)
    copy.edit_episode(episode, "dataset_from_index", draw.choice([0, 10**12]))
    return Rejected("meta/episodes", f"episode {episode}")


@mutation()
def no_episodes(copy: Copy, draw: random.Random) -> Expected:
    if copy.is_v21:
        (copy.root / LINES).write_text(draw.choice(["", "\n\n"]))
    else:
        copy.edit_table(EPISODES, lambda table: table.slice(0, 0))
    return Rejected("no episode")


@mutation()
def episode_file_missing(copy: Copy, draw: random.Random) -> Expected:
    (copy.root / copy.episode_file).unlink()
    return Rejected("meta", "episodes")


@mutation()
def episode_file_cut_off(copy: Copy, draw: random.Random) -> Expected:
    path = copy.root / copy.episode_file
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(1, len(data) - 10)])
    return Unknown() if copy.is_v21 else Rejected("meta/episodes")


@mutation("v21")
def line_invalid(copy: Copy, draw: random.Random) -> Expected:
    name = draw.choice([LINES, "meta/episodes_stats.jsonl"])
    path = copy.root / name
    line = draw.choice(["{", "[1]", "[" * 100_000, '{"episode_index": ' + "9" * 5000 + "}", "nul"])
    path.write_text(path.read_text() + line + "\n")
    return Rejected(Path(name).name, "line 5")


@mutation("v21")
def statistics_strange(copy: Copy, draw: random.Random) -> Expected:
    path = copy.root / "meta/episodes_stats.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    row = draw.choice(rows)
    row["stats"] = draw.choice([None, [], "x", {"action": 3}, {"action": {"min": ["a"]}}, {}])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Unknown()


@mutation()
def task_hostile(copy: Copy, draw: random.Random) -> Expected:
    tasks = [
        "pick \x1b[31mred\x00",
        "x" * 1_000_000,
        "word " * 200_000,
        "a\u2028b\u202ec",
        "\ue000",
    ]
    tasks += ["say \udc80"] if copy.is_v21 else []
    copy.edit_episode(draw.randrange(4), "tasks", [draw.choice(tasks)])
    return Accepted(ignored=("task",))


@mutation()
def tasks_of_wrong_type(copy: Copy, draw: random.Random) -> Expected:
    copy.edit_episode(draw.randrange(4), "tasks", draw.choice([None, [], [None], [""]]))
    return Unknown()


@mutation("v21")
def tasks_as_numbers(copy: Copy, draw: random.Random) -> Expected:
    for episode in range(4):
        copy.edit_episode(episode, "tasks", [0])
    return Accepted(ignored=("task",))


@mutation("v30", "images")
def task_not_utf8(copy: Copy, draw: random.Random) -> Expected:
    def change(table: pa.Table) -> pa.Table:
        raw = pa.array([b"pick \xff\xfe"] * len(table), pa.binary())
        text = pa.StringArray.from_buffers(len(raw), raw.buffers()[1], raw.buffers()[2])
        lists = pa.ListArray.from_arrays(pa.array(range(len(table) + 1), pa.int32()), text)
        return table.set_column(table.column_names.index("tasks"), "tasks", lists)

    copy.edit_table(EPISODES, change)
    return Unknown()


# Data files


@mutation()
def data_file_missing(copy: Copy, draw: random.Random) -> Expected:
    episode = draw.randrange(4)
    (copy.root / copy.data_file(episode)).unlink()
    return Rejected(copy.data_file(episode), "episode")


@mutation()
def data_file_cut_off(copy: Copy, draw: random.Random) -> Expected:
    file = copy.data_file(draw.randrange(4))
    data = (copy.root / file).read_bytes()
    (copy.root / file).write_bytes(data[: draw.randrange(len(data) - 1)])
    return Rejected(file, "episode")


@mutation()
def timestamp_invalid(copy: Copy, draw: random.Random) -> Expected:
    episode = draw.randrange(4)
    row = copy.rows_of(episode)[draw.randrange(5, 20)]
    value = draw.choice([float("nan"), float("inf"), -3.0, 0.05])
    copy.edit_cell(copy.data_file(episode), "timestamp", row, value)
    return Rejected(copy.data_file(episode), f"episode {episode}")


@mutation()
def timestamps_of_a_clock(copy: Copy, draw: random.Random) -> Expected:
    episode = draw.randrange(4)
    rows, start = copy.rows_of(episode), draw.choice([1.7e9, 5.0, 3600.0])

    def change(values: list) -> list:
        return [value + start if row in rows else value for row, value in enumerate(values)]

    file = copy.data_file(episode)
    copy.edit_table(file, lambda table: _with_type(table, "timestamp", pa.float64()))
    copy.edit_column(file, "timestamp", change)
    if start > 1e9:  # float32 cannot tell the frames apart
        return Rejected(file, f"episode {episode}")
    return Accepted("do not start at 0")


@mutation()
def timestamps_jitter(copy: Copy, draw: random.Random) -> Expected:
    episode = draw.randrange(4)
    rows = set(copy.rows_of(episode)[1:])

    def change(values: list) -> list:
        return [v + draw.uniform(-0.03, 0.03) if r in rows else v for r, v in enumerate(values)]

    copy.edit_column(copy.data_file(episode), "timestamp", change)
    return Accepted("evenly spaced", ignored=("timestamps",))


@mutation()
def frame_number_wrong(copy: Copy, draw: random.Random) -> Expected:
    episode = draw.randrange(4)
    row = draw.choice(copy.rows_of(episode))
    copy.edit_cell(copy.data_file(episode), "frame_index", row, draw.choice([10**9, -1, 500]))
    return Rejected(copy.data_file(episode), f"episode {episode}")


@mutation()
def rows_missing(copy: Copy, draw: random.Random) -> Expected:
    episode = draw.randrange(4)
    row = draw.choice(copy.rows_of(episode))

    def change(table: pa.Table) -> pa.Table:
        return pa.concat_tables([table.slice(0, row), table.slice(row + 1)])

    copy.edit_table(copy.data_file(episode), change)
    return Rejected(copy.data_file(episode), f"episode {episode}")


@mutation()
def rows_twice(copy: Copy, draw: random.Random) -> Expected:
    episode = draw.randrange(4)
    row = draw.choice(copy.rows_of(episode))

    def change(table: pa.Table) -> pa.Table:
        return pa.concat_tables([table.slice(0, row + 1), table.slice(row)])

    copy.edit_table(copy.data_file(episode), change)
    return Rejected(copy.data_file(episode), f"episode {episode}")


@mutation("v30", "images")
def rows_without_metadata(copy: Copy, draw: random.Random) -> Expected:
    def change(table: pa.Table) -> pa.Table:
        rest = table.slice(0, draw.randrange(1, 20))
        numbers = pa.array([9] * len(rest), pa.int64())
        rest = rest.set_column(rest.column_names.index("episode_index"), "episode_index", numbers)
        return pa.concat_tables([table, rest.cast(table.schema)])

    copy.edit_table(copy.data_file(0), change)
    return Accepted("rows of episode 9")


@mutation()
def row_number_invalid(copy: Copy, draw: random.Random) -> Expected:
    episode = draw.randrange(4)
    name = draw.choice(["episode_index", "frame_index", "timestamp"])
    row = draw.choice(copy.rows_of(episode))
    copy.edit_cell(copy.data_file(episode), name, row, draw.choice([None, "x"]))
    return Rejected(copy.data_file(episode), name)


@mutation()
def lists_of_one(copy: Copy, draw: random.Random) -> Expected:
    name = draw.choice(["episode_index", "frame_index", "timestamp"])
    for file in {copy.data_file(episode) for episode in range(4)}:
        kind = pa.list_(pq.read_schema(copy.root / file).field(name).type)
        copy.edit_table(file, lambda table, kind=kind: _with_lists(table, name, kind))
    return Accepted()


@mutation()
def whole_numbers_as_floats(copy: Copy, draw: random.Random) -> Expected:
    name = draw.choice(["episode_index", "frame_index"])
    for file in {copy.data_file(episode) for episode in range(4)}:
        copy.edit_table(file, lambda table: _with_type(table, name, pa.float64()))
    return Accepted()


@mutation()
def data_column_missing(copy: Copy, draw: random.Random) -> Expected:
    name = draw.choice(["episode_index", "frame_index", "timestamp"])
    file = copy.data_file(draw.randrange(4))
    copy.edit_table(file, lambda table: table.drop_columns([name]))
    return Rejected(file, name)


@mutation()
def data_column_twice(copy: Copy, draw: random.Random) -> Expected:
    name = draw.choice(["episode_index", "frame_index", "timestamp", "action"])
    file = copy.data_file(draw.randrange(4))
    copy.edit_table(file, lambda table: table.append_column(name, table[name]))
    return Rejected(file, name)


# Videos and images


@mutation("v30", "v21")
def video_missing(copy: Copy, draw: random.Random) -> Expected:
    file = copy.video_file(draw.randrange(4))
    (copy.root / file).unlink()
    return Rejected(file, "episode")


@mutation("v30", "v21")
def video_cut_off(copy: Copy, draw: random.Random) -> Expected:
    file = copy.video_file(draw.randrange(4))
    data = (copy.root / file).read_bytes()
    (copy.root / file).write_bytes(data[: draw.randrange(len(data) * 2 // 3)])
    return Rejected(file, "episode")


@mutation("v30", "v21")
def video_of_another_format(copy: Copy, draw: random.Random) -> Expected:
    file = copy.video_file(draw.randrange(4))
    texts = [b"", b"hello", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"]
    texts += [b"ffconcat version 1.0\nfile '/etc/passwd'\n", b"\x89PNG\r\n\x1a\n" + b"\0" * 100]
    (copy.root / file).write_bytes(draw.choice(texts))
    return Rejected(file, "episode")


@mutation("images")
def image_cell_invalid(copy: Copy, draw: random.Random) -> Expected:
    cells = [{"bytes": None, "path": "/etc/passwd"}, {"bytes": None, "path": "../x.png"}, None]
    cells += [{"bytes": b"no image", "path": None}, {"bytes": None, "path": "images/none.png"}]
    cells += [{"bytes": b"", "path": None}, {"bytes": None, "path": "a\0b"}]
    episode = draw.randrange(4)
    row = copy.rows_of(episode)[0]
    copy.edit_cell(copy.data_file(0), WRIST, row, draw.choice(cells))
    return Rejected(f"episode {episode}", copy.data_file(0))


@mutation("images")
def image_column_missing(copy: Copy, draw: random.Random) -> Expected:
    copy.edit_table(copy.data_file(0), lambda table: table.drop_columns([WRIST]))
    return Rejected(copy.data_file(0), WRIST)


# Files


@mutation()
def tree_with_links_or_pipes(copy: Copy, draw: random.Random) -> Expected:
    folder = copy.root / draw.choice(["meta", "videos" if copy.base != "none" else "meta", "extra"])
    folder.mkdir(exist_ok=True)
    path = folder / "odd"
    kind = draw.choice(["loop", "outside", "broken", "pipe"])
    if kind == "pipe":
        os.mkfifo(path)
    else:
        targets = {"loop": copy.root, "outside": "/etc/hostname", "broken": "nothing-here"}
        path.symlink_to(targets[kind])
    return Rejected(str(path))


@mutation()
def bytes_changed(copy: Copy, draw: random.Random) -> Expected:
    """Change up to eight bytes anywhere in a metadata or data file."""
    files = [INFO, copy.episode_file, copy.data_file(draw.randrange(4))]
    path = copy.root / draw.choice(files)
    data = bytearray(path.read_bytes())
    for _ in range(draw.randrange(1, 9)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    path.write_bytes(bytes(data))
    return Unknown()


def _episodes(copy: Copy, name: str) -> list:
    if copy.is_v21:
        return [json.loads(line)[name] for line in (copy.root / LINES).read_text().splitlines()]
    return pq.read_table(copy.root / EPISODES)[name].to_pylist()


def _with_type(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, table[name].cast(kind))


def _with_lists(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    values = pa.array([[value] for value in table[name].to_pylist()], kind)
    return table.set_column(table.column_names.index(name), name, values)


# Examination


@dataclass(frozen=True)
class Outcome:
    """What happened; `error` is empty if the dataset was indexed."""

    error: str
    table: pa.Table | None = None
    notices: tuple[str, ...] = ()


def examine(root: Path) -> Outcome:
    """Read a dataset as a run does before its first request, and the first images."""
    try:
        dataset = read_dataset(root, "mutated")
        check_source(dataset)
        table, notices = build_index(dataset)
        for row in table.to_pylist():
            for camera in row["cameras"]:
                if camera["kind"] == "image":
                    label = f"episode {row['episode_index']}, camera {camera['camera']}"
                    place = {"root": root, "row_from": row["row_from"], "label": label}
                    place |= {"camera": camera["camera"], "frame_indices": [0]}
                    list(read_images(root / row["data_file"], **place))
    except CuesheetError as error:
        return Outcome(str(error))
    return Outcome("", table, tuple(notices))


def judge(expected: Expected, outcome: Outcome, plain: pa.Table, root: Path) -> str:
    """Return what is wrong with an outcome; "" if it is as expected."""
    if outcome.error:
        if isinstance(expected, Accepted):
            return f"rejected: {outcome.error}"
        missing = [w for w in getattr(expected, "words", ()) if w not in outcome.error]
        if missing:
            return f"the message does not contain {missing}: {outcome.error}"
        if len(outcome.error) > 6000:
            return f"the message has {len(outcome.error)} characters"
        return ""
    if isinstance(expected, Rejected):
        return f"accepted; expected a message with {expected.words}"
    if isinstance(expected, Accepted):
        if expected.notice and not any(expected.notice in one for one in outcome.notices):
            return f"no notice with {expected.notice!r}: {outcome.notices}"
        for name in set(COMPARED) - set(expected.ignored):
            if outcome.table[name].to_pylist() != plain[name].to_pylist():
                return f"the column {name} of the index changed"
        return _task_problem(outcome.table)
    return _rows_problem(outcome.table, root) or _task_problem(outcome.table)


def _task_problem(table: pa.Table) -> str:
    tasks = [task for tasks in table["tasks"].to_pylist() for task in tasks]
    if any(len(task) > 500 or not task.isprintable() for task in tasks):
        return "a task is longer than 500 characters or not printable"
    return ""


def _rows_problem(table: pa.Table, root: Path) -> str:
    for row in table.to_pylist():
        frames = pq.read_table(root / row["data_file"], columns=["episode_index", "timestamp"])
        part = frames.slice(row["row_from"], row["row_to"] - row["row_from"])
        if set(np.array(part["episode_index"]).ravel().tolist()) != {row["episode_index"]}:
            return f"the rows of episode {row['episode_index']} are not its own"
    return ""


def _state(root: Path) -> list[tuple[str, int, int]]:
    found = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        found.append((str(path), status.st_size, status.st_mtime_ns))
    return found


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def make_bases(demo_v3: Path, folder: Path) -> dict[str, Path]:
    """Make the three unchanged datasets below `folder`."""
    images = shutil.copytree(demo_v3, folder / "images")
    store_images(images, WRIST)
    return {"v30": demo_v3, "v21": as_v21(demo_v3, folder / "v21"), "images": images}


@dataclass(frozen=True)
class Result:
    number: int
    name: str
    base: str
    expected: str
    outcome: str  # rejected or accepted
    problem: str


def run_mutations(bases: dict[str, Path], folder: Path, count: int, seed: int) -> list[Result]:
    """Run `count` mutations: every class in turn, the base dataset and values drawn by seed."""
    plain = {base: examine(root).table for base, root in bases.items()}
    names = list(MUTATIONS)
    random.Random(seed).shuffle(names)
    results = []
    for number in range(count):
        name = names[number % len(names)]
        draw = random.Random(f"{seed} {number} {name}")
        mutate, formats = MUTATIONS[name]
        base = draw.choice(formats)
        root = folder / f"{number:04d}"
        shutil.copytree(bases[base], root)
        expected = mutate(Copy(root, base), draw)
        before = _state(root)
        try:
            with time_limit(LIMIT_S):
                outcome = examine(root)
            problem = judge(expected, outcome, plain[base], root)
            ended = "rejected" if outcome.error else "accepted"
        except Exception as error:  # a traceback for a user's mistake is what we look for
            ended, problem = "traceback", f"{type(error).__name__}: {str(error)[:300]}"
        if _state(root) != before:
            problem = problem or "the source was changed"
        kind = type(expected).__name__
        results.append(Result(number, name, base, kind, ended, problem))
        shutil.rmtree(root)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=os.environ.get("CUESHEET_TEST_DATA"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bases = make_bases(Path(arguments.data) / "demo_v3", Path(folder))
        results = run_mutations(bases, Path(folder), arguments.count, arguments.seed)
    for result in results:
        if result.problem:
            print(f"{result.number} {result.name} ({result.base}): {result.problem}")
    counts = collections.Counter((r.expected, r.outcome) for r in results)
    for (expected, outcome), count in sorted(counts.items()):
        print(f"expected {expected:9} {outcome:10} {count:4}")
    wrong = sum(bool(result.problem) for result in results)
    print(f"{len(results)} mutations of {len(MUTATIONS)} classes, {wrong} neither right nor clear")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
