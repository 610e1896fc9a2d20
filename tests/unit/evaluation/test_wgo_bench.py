"""A file of WGO-Bench becomes a dataset whose videos have one size and frame rate."""

import subprocess

import av
import imageio_ffmpeg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuesheet.app import cli
from cuesheet.dataset.metadata import read_dataset
from cuesheet.errors import CuesheetError
from cuesheet.evaluation.wgo_bench import CAMERA, convert

SEGMENTS = [{"start_sec": 0.0, "end_sec": 1.0, "subtask": "reach"}]
SIZE = {"fps": 10, "width": 64, "height": 48}


def video(path, size: str, fps: int, seconds: float) -> bytes:
    """Make a bright test video."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    source = f"color=white:s={size}:r={fps}:d={seconds}"
    command = [ffmpeg, "-loglevel", "error", "-f", "lavfi", "-i", source, "-y", str(path)]
    subprocess.run(command, check=True)
    return path.read_bytes()


@pytest.fixture
def bench(tmp_path):
    """Write a file with two videos, a wide one of 2 s and a high one of 1 s; return its path."""
    rows = [
        {"id": "a", "video": {"bytes": video(tmp_path / "a.mp4", "96x48", 30, 2)}},
        {"id": "b", "video": {"bytes": video(tmp_path / "b.mp4", "48x96", 24, 1)}},
    ]
    for row, task in zip(rows, ("open the drawer", ""), strict=True):
        row |= {"instruction": task, "segments": SEGMENTS}
    return write(tmp_path / "bench.parquet", rows)


def write(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_videos_get_the_same_rate_and_size_with_black_borders(bench, tmp_path):
    seen = []
    target = tmp_path / "new" / "wgo"
    count = convert(
        bench, target, **SIZE, progress=lambda rows: (seen.append(r) or r for r in rows)
    )
    assert count == len(seen) == 2
    dataset = read_dataset(target, "wgo")
    assert [episode.length for episode in dataset.episodes] == [20, 10]
    assert [episode.task for episode in dataset.episodes] == ["open the drawer", ""]
    shapes = []
    for episode in dataset.episodes:
        with av.open(str(target / episode.videos[CAMERA].file)) as container:
            frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
        shapes.append(frame.shape)
        bright = frame.mean(axis=2) > 128
        rows, columns = bright.any(axis=1).sum(), bright.any(axis=0).sum()
        assert rows / columns == pytest.approx(0.5 if episode.episode_index == 0 else 2, abs=0.15)
    assert shapes == [(48, 64, 3), (48, 64, 3)]


def test_the_frames_of_the_table_are_those_of_the_videos(bench, tmp_path):
    convert(bench, tmp_path / "wgo", **SIZE)
    table = pq.read_table(tmp_path / "wgo/data/chunk-000/file-000.parquet")
    assert table.column("episode_index").to_pylist() == [0] * 20 + [1] * 10
    assert table.column("index").to_pylist() == list(range(30))
    assert table.column("timestamp").to_pylist()[19:21] == [pytest.approx(1.9), 0.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"id": "a", "segments": SEGMENTS, "video": None}], "row 0 .a.: expected the bytes"),
        ([{"id": "a", "segments": SEGMENTS, "video": {"bytes": b"no video"}}], "row 0 .a."),
        ([{"id": "a"}], "has no columns id and segments"),
    ],
)
def test_an_invalid_file_is_an_error_and_leaves_no_dataset(tmp_path, content, message):
    source = write(tmp_path / "bench.parquet", content)
    with pytest.raises(CuesheetError, match=message):
        convert(source, tmp_path / "wgo", **SIZE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.parquet"]


def test_a_file_that_is_missing_or_no_parquet_is_an_error(tmp_path):
    with pytest.raises(CuesheetError, match="does not exist"):
        convert(tmp_path / "none.parquet", tmp_path / "wgo", **SIZE)
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(CuesheetError, match="not a readable Parquet file"):
        convert(tmp_path / "text.parquet", tmp_path / "wgo", **SIZE)


def test_the_command_says_what_it_wrote_and_writes_over_nothing(bench, tmp_path, capsys):
    arguments = [str(bench), str(tmp_path / "wgo"), "--width", "64", "--height", "48"]
    assert cli.main(["wgo-bench", *arguments]) == 0
    assert f"2 episodes: {tmp_path / 'wgo'}" in capsys.readouterr().out
    assert cli.main(["wgo-bench", *arguments]) == 1
    assert "already exists" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["wgo-bench", *arguments, "--height", "47"])
