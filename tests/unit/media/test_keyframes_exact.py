"""Every keyframe is exactly the frame of its index, with each decoder."""

import importlib.util
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from media_sources import (
    DECODERS,
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

from cuesheet.artifacts.sampling import KeyframeSelection, select_keyframes, shortest_float32
from cuesheet.errors import CuesheetError
from cuesheet.media.decode import decode_frames
from cuesheet.media.keyframes import write_keyframes
from cuesheet.media.packets import locate_episode


@pytest.fixture(scope="session")
def h264_demo(demo_v3, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("h264")
    return {name: reencoded(demo_v3, folder / name, options) for name, options in H264.items()}


@pytest.fixture(scope="session")
def joined_demo(demo_v3, tmp_path_factory) -> list[Source]:
    return joined(demo_v3, tmp_path_factory.mktemp("joined") / "clips")


def compare(cases: list[Source], decoder: str, folder: Path) -> Counter:
    """Write the keyframes of every case and compare each PNG with the sequential decode."""
    counts: Counter = Counter()
    for case in cases:
        root = case.file.parents[len(Path(case.camera.file).parts) - 1]
        selection = select_keyframes(case.episode.shortest_timestamps, 2.0, 1.0, 2)
        indices = selection.frame_indices
        assert indices[0] == 0
        assert indices[-1] == case.length - 1
        target = folder / case.camera.camera / f"{case.episode.episode_index:06d}"
        described = write_keyframes(
            target,
            case.episode,
            dataset="test",
            root=root,
            cameras=[case.camera.camera],
            selection=selection,
            decoder=decoder,
        )
        truth = full_decode(case.file, case.camera.width, case.camera.height)
        entries = described["keyframes"][case.camera.camera]
        assert [entry["frame_index"] for entry in entries] == indices
        for entry in entries:
            bgr = cv2.imread(str(target / entry["file"]), cv2.IMREAD_UNCHANGED)
            expected = truth[case.first_frame + entry["frame_index"]]
            counts["compared"] += 1
            counts["mismatches"] += not np.array_equal(bgr[:, :, ::-1], expected)
    return counts


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ["demo_v3", "dev_v3"])
def test_png_is_the_frame_of_a_sequential_decode_for_av1(request, name, decoder, tmp_path, say):  # noqa: F811
    cases = sources(request.getfixturevalue(name))
    counts = compare(cases, decoder, tmp_path)
    say(f"keyframes, {name} (AV1), {decoder}: {dict(counts)}")
    assert counts["compared"] > 10 * len(cases)
    assert counts["mismatches"] == 0


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", H264)
def test_png_is_the_frame_of_a_sequential_decode_for_h264(h264_demo, name, decoder, tmp_path, say):  # noqa: F811
    counts = compare(sources(h264_demo[name]), decoder, tmp_path)
    say(f"keyframes, demo_v3 (H.264, {name}), {decoder}: {dict(counts)}")
    assert counts["compared"] > 80
    assert counts["mismatches"] == 0


@pytest.mark.parametrize("decoder", DECODERS)
def test_png_is_the_frame_of_a_sequential_decode_for_joined_clips(
    joined_demo,
    decoder,
    tmp_path,
    say,  # noqa: F811
):
    counts = compare(joined_demo, decoder, tmp_path)
    say(f"keyframes, demo_v3 (joined H.264 clips with B-frames), {decoder}: {dict(counts)}")
    assert counts["compared"] > 80
    assert counts["mismatches"] == 0


FORMATS = {
    "bt709": ("yuv420p", "scale=out_color_matrix=bt709", ("-colorspace", "bt709")),
    "full range": ("yuvj420p", "scale=out_range=full", ("-color_range", "pc")),
    "4:2:2": ("yuv422p", "null", ()),
    "4:4:4 of odd size": ("yuv444p", "scale=255:253", ()),
    "10 bits": ("yuv420p10le", "null", ()),
}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", FORMATS)
def test_all_decoders_give_the_same_pixels_in_other_pixel_formats(demo_v3, name, decoder, tmp_path):
    pixel_format, filters, options = FORMATS[name]
    original = next(iter(demo_v3.glob("videos/**/*.mp4")))
    file = tmp_path / "other.mp4"
    chain = f"{filters},format={pixel_format}"
    run("-i", original, "-frames:v", "30", "-vf", chain, "-c:v", "libx264", *options, file)
    width, height = (255, 253) if "odd" in name else (224, 224)
    case = single(file, 30, 10.0, width, height)
    frames = [*decode_frames(_located(case), range(30), decoder)]
    truth = full_decode(file, width, height)
    assert [frame.data == truth[i].tobytes() for i, frame in enumerate(frames)] == [True] * 30


@pytest.mark.parametrize("decoder", DECODERS)
def test_frames_are_exact_behind_an_edit_list(h264_demo, decoder, tmp_path, say):  # noqa: F811
    original = next(iter(h264_demo["gop250_b_frames"].glob("videos/**/*.mp4")))
    file = tmp_path / "cut.mp4"
    # A copy that begins within a group of pictures: an edit list hides what is before.
    run("-ss", "3.3", "-i", original, "-t", "5", "-c", "copy", file)
    truth = full_decode(file, 224, 224)
    case = single(file, min(len(truth), 45), 10.0, 224, 224)
    whole = full_decode(original, 224, 224)
    assert not np.array_equal(truth[0], whole[0])
    frames = [*decode_frames(_located(case), range(case.length), decoder)]
    wrong = [f.frame_index for f in frames if f.data != truth[f.frame_index].tobytes()]
    say(f"edit list (H.264), {decoder}: {len(frames)} frames, {len(wrong)} differ")
    assert len(frames) == case.length
    assert wrong == []


@pytest.mark.parametrize("decoder", DECODERS)
def test_more_frames_than_one_ffmpeg_process_takes_are_exact(demo_v3, decoder, tmp_path):
    original = demo_v3 / "videos/observation.images.wrist/chunk-000/file-000.mp4"
    file = tmp_path / "long.mp4"
    run("-stream_loop", "3", "-i", original, "-vf", "scale=32:32", *H264["gop250_b_frames"], file)
    truth = full_decode(file, 32, 32)
    case = single(file, len(truth), 10.0, 32, 32)
    frames = [*decode_frames(_located(case), range(case.length), decoder)]
    assert case.length > 1000
    assert b"".join(frame.data for frame in frames) == truth.tobytes()


def test_a_folder_of_keyframes_appears_whole_or_not_at_all(demo_v3, tmp_path):
    case = sources(demo_v3)[0]
    target = tmp_path / "000000"
    arguments = {"dataset": "demo_v3", "root": demo_v3, "decoder": "ffmpeg"}
    with pytest.raises(CuesheetError, match=r"no camera 'observation\.images\.top'"):
        write_keyframes(
            target,
            case.episode,
            cameras=[case.camera.camera, "observation.images.top"],
            selection=KeyframeSelection([0, 1]),
            **arguments,
        )
    assert list(tmp_path.iterdir()) == []
    write_keyframes(
        target, case.episode, cameras=[], selection=KeyframeSelection([0, 1]), **arguments
    )
    assert [path.name for path in target.iterdir()] == ["keyframes.json"]
    described = json.loads((target / "keyframes.json").read_text())
    assert described["cameras"] == {}
    assert described["keyframes"] == {}
    assert (described["grid"], described["vqa"]) == ([0, 1], [])
    write_keyframes(
        target,
        case.episode,
        cameras=[case.camera.camera],
        selection=KeyframeSelection([0], vqa=[74]),
        **arguments,
    )
    described = json.loads((target / "keyframes.json").read_text())
    assert described["cameras"] == {case.camera.camera: {"width": 224, "height": 224}}
    assert described["keyframes"][case.camera.camera][1] == {
        "frame_index": 74,
        "timestamp_s": 7.4,
        "file": f"{case.camera.camera}/000074.png",
        "width": 224,
        "height": 224,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["000000"]


def test_times_in_keyframes_json_are_the_shortest_decimals_of_their_float32():
    values = np.arange(20_000, dtype=np.float32) / np.float32(30)
    assert [shortest_float32(float(v)) for v in values] == [float(str(v)) for v in values]


@pytest.mark.skipif(
    importlib.util.find_spec("torchcodec") is not None,
    reason="torchcodec is installed",
)
def test_a_missing_torchcodec_says_what_to_install(demo_v3):
    case = sources(demo_v3)[0]
    with pytest.raises(CuesheetError, match="needs the packages torch and torchcodec"):
        next(decode_frames(_located(case), [0], "torchcodec"))


def _located(case: Source):
    return locate_episode(
        case.file,
        from_s=case.camera.from_s,
        to_s=case.camera.to_s,
        timestamps_s=case.episode.timestamps,
        fps=case.episode.fps,
        label=f"episode {case.episode.episode_index}",
    )
