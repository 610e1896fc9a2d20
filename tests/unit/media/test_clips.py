"""Clips hold exactly their episode's frames, in a form that every browser plays."""

import dataclasses
import io
import struct
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from av.video.reformatter import ColorRange
from media_sources import (
    H264,
    Source,
    full_decode,
    joined,
    reencoded,
    run,
    say,  # noqa: F401 - a fixture
    single,
    sources,
)
from PIL import Image

from cuesheet.errors import CuesheetError
from cuesheet.media.clips import ClipSettings, write_clip, write_clip_of_images
from cuesheet.media.decode import RgbFrame, decode_frames
from cuesheet.media.ffmpeg import passthrough_options
from cuesheet.media.image_columns import read_images
from cuesheet.media.packets import EpisodeFrames, locate_episode, locate_range

ENCODE = ClipSettings(copied=frozenset())
AUTO = ClipSettings(copied=frozenset({"h264", "av1"}))


def located(case: Source, **changes) -> EpisodeFrames:
    place = {
        "from_s": case.camera.from_s,
        "to_s": case.camera.to_s,
        "timestamps_s": case.episode.timestamps,
        "fps": case.episode.fps,
        "label": f"episode {case.episode.episode_index}",
    }
    return locate_episode(case.file, **(place | changes))


def boxes(file: Path) -> list[str]:
    """Names of an mp4's outer boxes, in order."""
    data, names, position = file.read_bytes(), [], 0
    while position < len(data):
        size, name = struct.unpack(">I4s", data[position : position + 8])
        names.append(name.decode())
        position += size if size > 1 else struct.unpack(">Q", data[position + 8 :][:8])[0]
    return names


def assert_plays_in_a_browser(clip: Path, length_s: float, coding: str = "h264") -> None:
    names = boxes(clip)
    assert names.index("moov") < names.index("mdat")
    with av.open(str(clip)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        codec = container.streams.video[0].codec_context
        assert (codec.codec.canonical_name, codec.pix_fmt) == (coding, "yuv420p")
        assert container.duration / 1e6 == pytest.approx(length_s, abs=0.02)


def error_by_offset(clip: np.ndarray, whole: np.ndarray, first: int) -> dict[int, float]:
    """Mean absolute error of a clip against its episode's frames and the neighboring ones."""
    errors = {}
    for offset in (-1, 0, 1):
        frames = [i for i in range(len(clip)) if 0 <= first + i + offset < len(whole)]
        errors[offset] = float(
            np.mean(
                [
                    np.abs(clip[i].astype(np.int16) - whole[first + i + offset]).mean()
                    for i in frames
                ]
            )
        )
    return errors


def test_clips_have_exactly_the_episodes_frames(demo_v3, tmp_path, say):  # noqa: F811
    counted = mismatches = 0
    for case in sources(demo_v3):
        clip = tmp_path / f"{case.camera.camera}-{case.episode.episode_index}.mp4"
        assert write_clip(clip, located(case), ClipSettings()) == "encoded"
        width, height = case.camera.width, case.camera.height
        decoded = full_decode(clip, width, height)
        counted += 1
        mismatches += len(decoded) != case.length
        assert_plays_in_a_browser(clip, case.length / case.episode.fps)
        whole = full_decode(case.file, width, height)
        errors = error_by_offset(decoded, whole, case.first_frame)
        assert errors[0] < 4
        assert errors[0] == min(errors.values())
        for i in (0, case.length - 1):
            difference = np.abs(decoded[i].astype(np.int16) - whole[case.first_frame + i])
            assert difference.mean() < 5
    say(f"clips, demo_v3 (AV1), encoded: {{'counted': {counted}, 'mismatches': {mismatches}}}")
    assert mismatches == 0


def test_copied_av1_has_the_sources_very_pixels(demo_v3, tmp_path, say):  # noqa: F811
    counts = {"copied": 0, "mismatches": 0}
    for case in sources(demo_v3):
        clip = tmp_path / "clip.mp4"
        counts[write_clip(clip, located(case), AUTO)] += 1
        width, height = case.camera.width, case.camera.height
        decoded = full_decode.__wrapped__(clip, width, height)
        whole = full_decode(case.file, width, height)
        expected = whole[case.first_frame : case.first_frame + case.length]
        counts["mismatches"] += not np.array_equal(decoded, expected)
        assert_plays_in_a_browser(clip, case.length / case.episode.fps, "av1")
    say(f"clips, demo_v3 (AV1), copied: {counts}")
    assert counts["copied"] > 0
    assert counts["mismatches"] == 0


def test_av1_that_does_not_start_on_a_keyframe_is_encoded(demo_v3, tmp_path):
    case = next(case for case in sources(demo_v3))
    episode = located(case)
    later = dataclasses.replace(episode, pts=episode.pts[1:])  # groups of two frames
    assert write_clip(tmp_path / "clip.mp4", later, AUTO) == "encoded"
    assert_plays_in_a_browser(tmp_path / "clip.mp4", (case.length - 1) / 10)


@pytest.mark.parametrize(
    ("codec", "copy", "copied"),
    [
        ("auto", True, {"h264", "av1"}),
        ("h264", True, {"h264"}),
        ("auto", False, set()),
        ("h264", False, set()),
    ],
)
def test_the_configuration_says_what_may_be_copied(codec, copy, copied):
    section = {"clip_codec": codec, "clip_copy": copy, "clip_preset": "fast", "clip_crf": 20}
    assert ClipSettings.of(section) == ClipSettings("fast", 20, frozenset(copied))


@pytest.mark.parametrize("name", H264)
def test_copied_clips_have_the_sources_very_pixels(demo_v3, name, tmp_path, say):  # noqa: F811
    root = reencoded(demo_v3, tmp_path / name, H264[name])
    counts = {"copied": 0, "encoded": 0, "mismatches": 0}
    for case in sources(root):
        clip = tmp_path / "clip.mp4"
        way = write_clip(clip, located(case), ClipSettings())
        decoded = full_decode.__wrapped__(clip, 224, 224)
        counts[way] += 1
        counts["mismatches"] += len(decoded) != case.length
        assert_plays_in_a_browser(clip, case.length / 10)
        whole = full_decode(case.file, 224, 224)
        if way == "copied":
            expected = whole[case.first_frame : case.first_frame + case.length]
            assert np.array_equal(decoded, expected)
        else:
            errors = error_by_offset(decoded, whole, case.first_frame)
            assert errors[0] == min(errors.values())
    say(f"clips, demo_v3 (H.264, {name}): {counts}")
    assert counts["mismatches"] == 0
    assert counts["copied"] > 0 or name != "gop2"
    assert counts["encoded"] > 0


def test_clips_of_joined_clips_with_b_frames_are_copies_of_their_parts(demo_v3, tmp_path, say):  # noqa: F811
    counts = {"copied": 0, "encoded": 0, "mismatches": 0}
    for case in joined(demo_v3, tmp_path / "parts"):
        clip = tmp_path / "clip.mp4"
        way = write_clip(clip, located(case), ClipSettings())
        decoded = full_decode.__wrapped__(clip, 224, 224)
        counts[way] += 1
        counts["mismatches"] += len(decoded) != case.length
        whole = full_decode(case.file, 224, 224)
        expected = whole[case.first_frame : case.first_frame + case.length]
        assert way == "copied"
        assert np.array_equal(decoded, expected)
    say(f"clips, demo_v3 (joined H.264 clips with B-frames): {counts}")
    assert counts["mismatches"] == 0


def test_the_settings_decide_whether_a_stream_is_copied_and_how_it_is_coded(demo_v3, tmp_path):
    root = reencoded(demo_v3, tmp_path / "h264", H264["gop2"])
    case = sources(root)[0]
    assert write_clip(tmp_path / "a.mp4", located(case), ClipSettings()) == "copied"
    assert write_clip(tmp_path / "b.mp4", located(case), ENCODE) == "encoded"
    small = ClipSettings(preset="medium", crf=40, copied=frozenset())
    assert write_clip(tmp_path / "c.mp4", located(case), small) == "encoded"
    sizes = {name: (tmp_path / f"{name}.mp4").stat().st_size for name in "abc"}
    assert sizes["c"] < sizes["b"] / 3
    # This preset codes frames in another order; still every one is shown, from time 0 on.
    assert len(full_decode.__wrapped__(tmp_path / "c.mp4", 224, 224)) == case.length
    assert_plays_in_a_browser(tmp_path / "c.mp4", case.length / 10)


def test_the_last_column_and_row_of_odd_sizes_are_shown_twice(demo_v3, tmp_path):
    original = next(iter(demo_v3.glob("videos/**/*.mp4")))
    file = tmp_path / "odd.mp4"
    chain = "scale=221:223,format=yuv444p"
    run("-i", original, "-frames:v", "40", "-vf", chain, "-c:v", "libx264", file)
    clip = tmp_path / "clip.mp4"
    write_clip(clip, located(single(file, 40, 10.0, 221, 223)), ENCODE)
    decoded = full_decode(clip, 222, 224).astype(np.int16)
    truth = full_decode(file, 221, 223).astype(np.int16)
    assert len(decoded) == 40
    assert np.abs(decoded[:, :223, :221] - truth).mean() < 5
    assert np.abs(decoded[:, :223, 221] - truth[:, :, 220]).mean() < 8
    assert np.abs(decoded[:, 223, :221] - truth[:, 222]).mean() < 8
    assert_plays_in_a_browser(clip, 4.0)


@pytest.mark.parametrize("copy", [True, False])
def test_frames_keep_their_distances_in_time(demo_v3, copy, tmp_path):
    original = next(iter(demo_v3.glob("videos/**/*.mp4")))
    file = tmp_path / "variable.mp4"
    chain = "select='lt(n,100)*(mod(n,7)-3)'"
    run("-i", original, "-vf", chain, *passthrough_options(), *H264["gop2"], file)
    kept = [n for n in range(100) if n % 7 != 3]
    times = np.array([n / 10 for n in kept], np.float32).tolist()
    episode = located(single(file, 100, 10.0, 224, 224), timestamps_s=times)
    clip = tmp_path / "clip.mp4"
    way = write_clip(clip, episode, ClipSettings() if copy else ENCODE)
    assert way == ("copied" if copy else "encoded")
    with av.open(str(clip)) as container:
        shown = sorted(
            float(packet.pts * packet.time_base) for packet in container.demux() if packet.size
        )
    assert shown == pytest.approx([n / 10 for n in kept], abs=1e-4)


def test_frames_that_no_timestamp_names_are_left_out(demo_v3, tmp_path):
    case = sources(demo_v3)[1]
    kept = [i for i in range(case.length) if i not in (5, 20, 21)]
    times = [case.episode.timestamps[i] for i in kept]
    clip = tmp_path / "clip.mp4"
    write_clip(clip, located(case, timestamps_s=times), ClipSettings())
    decoded = full_decode(clip, 224, 224).astype(np.int16)
    expected = full_decode(case.file, 224, 224)[[case.first_frame + i for i in kept]]
    assert len(decoded) == len(kept)
    assert np.abs(decoded - expected).mean(axis=(1, 2, 3)).max() < 5


def test_a_clip_of_a_damaged_video_is_an_error_and_leaves_nothing(demo_v3, tmp_path):
    case = sources(demo_v3)[0]
    file = tmp_path / "damaged.mp4"
    run("-i", case.file, "-c", "copy", file)
    episode = located(single(file, 75, 10.0, 224, 224))
    data = bytearray(file.read_bytes())
    data[2000:60_000] = bytes(58_000)
    file.write_bytes(data)
    (tmp_path / "out").mkdir()
    with pytest.raises(CuesheetError, match=r"episode 7.*damaged\.mp4"):
        write_clip(tmp_path / "out/clip.mp4", episode, ENCODE)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def images(tmp_path) -> tuple[Path, np.ndarray]:
    """A data file of two episodes of an image camera; image 12 is a file of its own."""
    truth = np.zeros((30, 45, 61, 3), np.uint8)
    for i, image in enumerate(truth):
        image[:, :] = (8 * i, 255 - 8 * i, 40)
        image[10:20, i : i + 20] = (250, 250, 250)
    cells = []
    for i, image in enumerate(truth):
        data = io.BytesIO()
        Image.fromarray(image).save(data, "PNG")
        cells.append({"bytes": data.getvalue(), "path": f"frame-{i:06d}.png"})
    file = tmp_path / "data/chunk-000/file-000.parquet"
    file.parent.mkdir(parents=True)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/twelve.png").write_bytes(cells[12]["bytes"])
    cells[12] = {"bytes": None, "path": "images/twelve.png"}
    kind = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    table = pa.table({"observation.images.top": pa.array(cells, kind), "index": list(range(30))})
    pq.write_table(table, file, row_group_size=8)
    return file, truth


def read(file: Path, indices, row_from: int = 10, camera: str = "observation.images.top"):
    return read_images(
        file,
        root=file.parents[2],
        camera=camera,
        row_from=row_from,
        frame_indices=indices,
        label="episode 1",
    )


def test_images_in_data_files_come_out_as_they_are(images):
    file, truth = images
    frames = [*read(file, [0, 2, 5, 6, 19])]
    assert [frame.frame_index for frame in frames] == [0, 2, 5, 6, 19]
    for frame in frames:
        assert (frame.width, frame.height) == (61, 45)
        assert frame.data == truth[10 + frame.frame_index].tobytes()


def test_images_become_a_clip_of_even_size(images, tmp_path):
    file, truth = images
    clip = tmp_path / "clip.mp4"
    arguments = {"fps": 29.97, "settings": ENCODE, "label": "episode 1"}
    write_clip_of_images(clip, read(file, range(20)), length=20, **arguments)
    decoded = full_decode(clip, 62, 46).astype(np.int16)
    assert len(decoded) == 20
    assert np.abs(decoded[:, :45, :61] - truth[10:]).mean(axis=(1, 2, 3)).max() < 6
    assert_plays_in_a_browser(clip, 20 / 29.97)
    with pytest.raises(CuesheetError, match="has 20 frames, but the episode has 21"):
        write_clip_of_images(clip, read(file, range(20)), length=21, **arguments)


def test_missing_and_broken_images_are_named(images, tmp_path):
    file, _ = images
    with pytest.raises(CuesheetError, match=r"episode 1.*no column 'wrist'.*observation\.images"):
        next(read(file, [0], camera="wrist"))
    with pytest.raises(CuesheetError, match=r"episode 1.*has 30 rows, but row 30 was expected"):
        [*read(file, [0, 20])]
    (tmp_path / "images/twelve.png").write_bytes(b"no image")
    with pytest.raises(CuesheetError, match=r"episode 1.*frame 2: the image has no known format"):
        [*read(file, [2])]
    (tmp_path / "images/twelve.png").unlink()
    with pytest.raises(CuesheetError, match=r"episode 1.*frame 2: the image cannot be read"):
        [*read(file, [2])]


def test_images_stored_as_plain_binary_are_read(images, tmp_path):
    file, truth = images
    table = pq.read_table(file)
    camera = "observation.images.top"
    cells = [cell["bytes"] or b"" for cell in table.column(camera).to_pylist()]
    path = tmp_path / "data/chunk-000/binary.parquet"
    pq.write_table(pa.table({camera: pa.array(cells, pa.binary())}), path)
    frames = [*read(path, [0, 3])]
    assert [frame.frame_index for frame in frames] == [0, 3]
    for frame in frames:
        assert frame.data == truth[10 + frame.frame_index].tobytes()


@pytest.mark.parametrize("pixel_format", ["yuvj420p", "yuvj444p"])
def test_full_range_becomes_the_range_of_other_clips(tmp_path, pixel_format):
    source, clip = tmp_path / "source.mp4", tmp_path / "clip.mp4"
    picture = "testsrc2=size=64x48:rate=10"
    run("-f", "lavfi", "-i", picture, "-frames:v", "20", "-vf", "scale=out_range=full",
        "-pix_fmt", pixel_format, "-color_range", "pc", "-c:v", "libx264", source)  # fmt: skip
    frames = locate_range(source, from_s=0.0, to_s=2.0, length=20, fps=10.0, label="episode 1")
    write_clip(clip, frames, ENCODE)
    with av.open(str(clip)) as container:
        codec = container.streams.video[0].codec_context
        assert codec.pix_fmt == "yuv420p"
        assert codec.color_range != ColorRange.JPEG
    truth = full_decode.__wrapped__(source, 64, 48).astype(np.int16)
    decoded = full_decode.__wrapped__(clip, 64, 48)
    assert np.abs(decoded - truth).mean(axis=(1, 2, 3)).max() < 8


def test_frames_that_change_their_size_are_an_error(tmp_path):
    sizes = [(32, 16), (32, 16), (16, 32)]
    frames = [RgbFrame(i, *size, bytes(32 * 16 * 3)) for i, size in enumerate(sizes)]
    with pytest.raises(
        CuesheetError, match=r"episode 1: frame 2 has 16 x 32 .*frame 0 has 32 x 16"
    ):
        write_clip_of_images(
            tmp_path / "clip.mp4", frames, length=3, fps=10.0, settings=ENCODE, label="episode 1"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("settings", [ENCODE, ClipSettings()], ids=["encoded", "copied"])
def test_a_display_rotation_turns_neither_clips_nor_keyframes(tmp_path, settings):
    plain, rotated = tmp_path / "plain.mp4", tmp_path / "rotated.mp4"
    run("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10", "-frames:v", "20", "-pix_fmt",
        "yuv420p", plain)  # fmt: skip
    with av.open(str(plain)) as source, av.open(str(rotated), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    place = {"from_s": 0.0, "to_s": 2.0, "length": 20, "fps": 10.0, "label": "episode 1"}
    frames = locate_range(rotated, **place)
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames, settings)
    with av.open(str(rotated)) as source, av.open(str(clip)) as cut:
        assert next(source.decode(video=0)).rotation == 90
        shown = next(cut.decode(video=0))
    assert (shown.width, shown.height, shown.rotation) == (64, 48, 0)
    for decoder in ("ffmpeg", "pyav"):
        (turned,) = decode_frames(frames, [3], decoder)
        (expected,) = decode_frames(locate_range(plain, **place), [3], decoder)
        assert (turned.width, turned.height, turned.data) == (64, 48, expected.data)
