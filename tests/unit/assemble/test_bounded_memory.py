"""Long episodes: files stay small, and memory grows with neither their frames nor their lists."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from media_sources import run
from PIL import Image

from cuesheet.assemble.merge import EpisodeRows, merge_file
from cuesheet.assemble.verify import _is_repeated
from cuesheet.dataset import data_reader
from cuesheet.dataset.data_reader import open_data_file
from cuesheet.media.image_columns import read_images

FRAMES = 400
MIB = 1 << 20
CAMERA = "observation.images.cam"


@pytest.fixture
def pool() -> Iterator[pa.MemoryPool]:
    """Arrow's memory during one test: `max_memory()` is the most that was held."""
    usual = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(counted)
    try:
        yield counted
    finally:
        pa.set_memory_pool(usual)


def frames_table(frames: int, **columns: pa.Array) -> pa.Table:
    times = np.arange(frames, dtype=np.float32) / np.float32(20)
    return pa.table({"timestamp": times, "episode_index": np.zeros(frames, np.int64), **columns})


def long_list(subtasks: int = 300) -> list[dict]:
    """What a plan of many subtasks writes: at each start, all that is left to do."""
    rows = []
    for number in range(subtasks):
        left = [f"{n}. put object number {n} on shelf {n % 7}" for n in range(number, subtasks)]
        row = {"role": "assistant", "timestamp": 0.0, "camera": None, "tool_calls": None}
        rows.append(row | {"style": "plan", "content": "\n".join(left)})
    return rows


@pytest.fixture(scope="module")
def annotated(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    pq.write_table(frames_table(FRAMES), folder / "source.parquet")
    rows = EpisodeRows(long_list(), [])
    merge_file(folder / "source.parquet", folder / "out.parquet", lambda _: rows, {0: FRAMES})
    return folder / "out.parquet"


def test_a_list_of_megabytes_is_stored_once_and_not_on_every_frame(annotated):
    size = sum(len(row["content"]) for row in long_list())
    assert size > MIB  # more than the dictionary that parquet holds by default
    assert annotated.stat().st_size < 2 * size
    with open_data_file(annotated) as file:
        last = [
            b.column(0)[-1].as_py() for b in file.iter_batches(8, columns=["language_persistent"])
        ]
    assert [row["content"] for row in last[-1]] == [row["content"] for row in long_list()]


def test_merging_and_checking_a_long_list_holds_a_few_frames_of_it(annotated, tmp_path, pool):
    size = sum(len(row["content"]) for row in long_list())
    rows = EpisodeRows(long_list(), [])
    source = tmp_path / "source.parquet"
    pq.write_table(frames_table(FRAMES), source)
    merge_file(source, tmp_path / "out.parquet", lambda _: rows, {0: FRAMES})
    assert pool.max_memory() < 50 * size  # 64 frames at once before
    assert (tmp_path / "out.parquet").read_bytes() == annotated.read_bytes()


def test_reading_a_long_list_back_holds_a_few_frames_of_it(annotated, pool):
    size = sum(len(row["content"]) for row in long_list())
    with open_data_file(annotated) as file:
        assert _is_repeated(file, 0)
    assert pool.max_memory() < 40 * size  # 256 frames at once before, and copies of them


def test_a_long_list_of_the_source_is_copied_in_bounded_memory(annotated, tmp_path, pool):
    size = sum(len(row["content"]) for row in long_list())
    merged = merge_file(annotated, tmp_path / "again.parquet", lambda _: None, {0: FRAMES})
    assert merged.kept_from_source == [0]
    assert pool.max_memory() < 70 * size  # all 400 frames before
    again = pq.ParquetFile(tmp_path / "again.parquet")
    first = next(again.iter_batches(1, columns=["language_persistent"])).column(0)[0].as_py()
    assert [row["content"] for row in first] == [row["content"] for row in long_list()]
    with open_data_file(tmp_path / "again.parquet") as file:
        assert _is_repeated(file, 0)


def test_source_lists_that_differ_between_frames_are_all_copied(annotated, tmp_path):
    table = pq.read_table(annotated).slice(0, 30)
    lists = [[row] for row in long_list(30)]
    at = table.schema.get_field_index("language_persistent")
    field = table.schema.field(at)
    table = table.set_column(at, field, pa.array(lists, field.type))
    pq.write_table(table, tmp_path / "differ.parquet", row_group_size=11)
    out = tmp_path / "out.parquet"
    merge_file(tmp_path / "differ.parquet", out, lambda _: None, {0: 30})
    assert pq.read_table(out).column(at).to_pylist() == lists


def noise_png(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(noise).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """2,000 images of 58 kB in one row group: two episodes."""
    path = tmp_path_factory.mktemp("images") / "file.parquet"
    drawn = [noise_png(seed) for seed in range(20)]
    cells = [{"bytes": drawn[n % 20] + bytes([n % 251]), "path": f"{n}.png"} for n in range(2000)]
    column = pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    table = frames_table(2000, **{CAMERA: column})
    at = table.schema.get_field_index("episode_index")
    table = table.set_column(at, "episode_index", pa.array([0] * 1500 + [1] * 500))
    pq.write_table(table, path, write_batch_size=16, use_dictionary=False)
    return path


def test_images_are_read_a_few_at_a_time(images, pool):
    wanted = [0, 7, 499]
    frames = read_images(
        images, root="/", camera=CAMERA, row_from=1500, frame_indices=wanted, label="episode 1"
    )
    for index, frame in zip(wanted, frames, strict=True):
        with Image.open(io.BytesIO(noise_png((1500 + index) % 20))) as image:
            assert frame.data == image.tobytes()
    assert pool.max_memory() < 30 * MIB  # the row group has 116 MB


def test_an_episode_of_images_is_buffered_in_a_file(images, tmp_path, pool, monkeypatch):
    monkeypatch.setattr(data_reader, "_HELD_BYTES", 8 * MIB)
    monkeypatch.setattr(data_reader, "_BATCH_BYTES", 2 * MIB)
    out = tmp_path / "out.parquet"
    merge_file(images, out, lambda _: EpisodeRows([], []), {0: 1500, 1: 500})
    assert pool.max_memory() < 40 * MIB
    assert list(tmp_path.iterdir()) == [out]
    after, before = pq.read_table(out), pq.read_table(images)
    assert after.select(before.column_names).equals(before)
    assert pq.read_metadata(out).num_row_groups == 2


DECODE = """
import resource, sys
from media_sources import single
from cuesheet.media.decode import decode_frames
from cuesheet.media.packets import locate_episode
from pathlib import Path
case = single(Path(sys.argv[1]), 300, 30.0, 640, 480)
found = locate_episode(case.file, from_s=0.0, to_s=10.0, timestamps_s=case.episode.timestamps,
                       fps=30.0, label="episode 7")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
indices = [frame.frame_index for frame in decode_frames(found, range(300), "pyav")]
assert indices == list(range(300))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_pyav_buffers_few_frames_of_a_long_gop(repository, tmp_path):
    file = tmp_path / "long.mp4"
    picture_options = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "300", "-bf", "3")
    test_picture = ("-f", "lavfi", "-i", "testsrc2=size=640x480:rate=30")
    run(*test_picture, "-frames:v", "300", *picture_options, "-pix_fmt", "yuv420p", file)
    paths = f"{repository / 'scripts'}:{Path(__file__).parents[1]}"
    done = subprocess.run(
        [sys.executable, "-c", DECODE, file],
        env={"PYTHONPATH": paths, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60  # MiB; the 300 frames have 132
