"""No file outside the dataset is read, and no frame is decoded that is too large."""

import io
import struct
import subprocess
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from media_sources import run
from PIL import Image

from cuesheet.errors import CuesheetError
from cuesheet.media.decode import decode_frames, ffmpeg_input
from cuesheet.media.ffmpeg import ffmpeg_command
from cuesheet.media.image_columns import read_images
from cuesheet.media.packets import EpisodeFrames, locate_range, read_packets

CAMERA = "observation.images.front"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A video outside the dataset."""
    path = tmp_path / "secret.mp4"
    run("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10", "-frames:v", "20", "-pix_fmt",
        "yuv420p", path)  # fmt: skip
    return path


def playlists(secret: Path) -> dict[str, str]:
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    }


@pytest.mark.parametrize("kind", ["hls", "concat", "sdp"])
@pytest.mark.parametrize("suffix", [".m3u8", ".mp4", ".ffconcat"])
def test_a_playlist_is_rejected_whatever_its_suffix(tmp_path, secret, kind, suffix):
    path = tmp_path / f"file-000{suffix}"
    path.write_text(playlists(secret)[kind])
    with pytest.raises(CuesheetError, match="the file is a playlist"):
        locate_range(path, from_s=0.0, to_s=2.0, length=20, fps=10.0, label="episode 1")


@pytest.mark.parametrize("kind", ["hls", "concat"])
@pytest.mark.parametrize("decoder", ["ffmpeg", "pyav", "torchcodec"])
def test_a_video_that_became_a_playlist_is_rejected_by_every_decoder(
    tmp_path, secret, kind, decoder
):
    path = tmp_path / "file-000.mp4"
    path.write_bytes(secret.read_bytes())
    frames = locate_range(path, from_s=0.0, to_s=2.0, length=20, fps=10.0, label="episode 1")
    assert isinstance(frames, EpisodeFrames)
    path.write_text(playlists(secret)[kind])
    with pytest.raises(CuesheetError, match=r"playlist|ffmpeg exited with"):
        list(decode_frames(frames, [0, 5], decoder))


def test_ffmpeg_opens_neither_playlists_nor_urls(tmp_path, secret):
    frames = locate_range(secret, from_s=0.0, to_s=2.0, length=20, fps=10.0, label="episode 1")
    options = ffmpeg_input(frames.source, {frames.pts[0]})
    at = options.index("-i")
    hls = tmp_path / "list.m3u8"
    hls.write_text(playlists(secret)["hls"])
    for name in (str(hls), f"concat:{secret}", f"subfile,,start,0,end,0,,:{secret}"):
        command = ffmpeg_command([*options[:at], "-i", name, "-f", "null", "-"])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "whitelist" in done.stderr.lower(), done.stderr


def data_file(root: Path, cell: dict) -> Path:
    path = root / "data/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(pa.table({CAMERA: pa.array([cell], kind)}), path)
    return path


def read(root: Path, cell: dict):
    path = data_file(root, cell)
    options = {"camera": CAMERA, "row_from": 0, "frame_indices": [0], "label": "episode 4"}
    return list(read_images(path, root=root, **options))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "secret.png"
    Image.new("RGB", (8, 6), "red").save(path)
    return path


def test_images_are_read_from_inside_the_dataset_alone(tmp_path, image):
    root = tmp_path / "dataset"
    (root / "images").mkdir(parents=True)
    (root / "images/own.png").write_bytes(image.read_bytes())
    (root / "images/link.png").symlink_to(image)
    frames = read(root, {"bytes": None, "path": "images/own.png"})
    assert (frames[0].width, frames[0].height) == (8, 6)
    for name in (str(image), "../secret.png", "images/../../secret.png", "images/link.png"):
        with pytest.raises(CuesheetError, match=r"episode 4.*leads out of the dataset"):
            read(root, {"bytes": None, "path": name})


def test_images_of_a_hub_snapshot_are_read_from_its_blobs(tmp_path, image):
    repository = tmp_path / "datasets--user--name"
    root = repository / "snapshots/0123abc"
    (root / "images").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs/aa").write_bytes(image.read_bytes())
    (root / "images/one.png").symlink_to("../../../blobs/aa")
    assert read(root, {"bytes": None, "path": "images/one.png"})[0].width == 8


def huge_png() -> bytes:
    """A PNG of a few hundred bytes that says it has 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def test_an_image_that_is_too_large_is_rejected_with_file_and_episode(tmp_path):
    with pytest.raises(CuesheetError, match=r"episode 4, .*file-000\.parquet: frame 0"):
        read(tmp_path, {"bytes": huge_png(), "path": None})
    sink = io.BytesIO()
    Image.new("1", (8200, 8200)).save(sink, "PNG")
    with pytest.raises(CuesheetError, match=r"8200 x 8200 pixels; at most"):
        read(tmp_path, {"bytes": sink.getvalue(), "path": None})


def test_a_video_whose_frames_are_too_large_is_rejected(secret, monkeypatch):
    monkeypatch.setattr("cuesheet.media.packets.MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(CuesheetError, match=r"episode 4: the frame has 64 x 48 pixels; at most"):
        read_packets(secret, 0.0, 1.0, "episode 4")
