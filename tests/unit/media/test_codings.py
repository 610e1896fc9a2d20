"""Every coding and kind of camera: keyframes and clips are the frames of a full decode.

The larger matrix of AV1 and H.264 is in test_keyframes_exact.py and test_clips.py.
"""

import json
import shutil

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from dataset_variants import DATA, EPISODES
from media_sources import DECODERS, full_decode, reencoded, run, say, sources  # noqa: F401
from PIL import Image
from test_keyframes_exact import compare

from cuesheet.dataset.index import build_index
from cuesheet.dataset.metadata import read_dataset
from cuesheet.media.clips import ClipSettings, write_clip
from cuesheet.media.packets import locate_episode

FRONT, WRIST = "observation.images.front", "observation.images.wrist"
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:bframes=3")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-auto-alt-ref", "1")
AV1 = ("-c:v", "libsvtav1", "-preset", "12")
CODINGS = {
    "HEVC, 8 bit, GOP 250, B-frames": (X265, "yuv420p"),
    "HEVC, 10 bit": (X265, "yuv420p10le"),
    "VP9, 8 bit": (VP9, "yuv420p"),
    "VP9, 10 bit": ((*VP9, "-profile:v", "2"), "yuv420p10le"),
    "AV1, 10 bit": (AV1, "yuv420p10le"),
    "H.264, 10 bit": (("-c:v", "libx264", "-preset", "veryfast", "-bf", "3"), "yuv420p10le"),
}


@pytest.fixture(scope="module", params=CODINGS)
def coded(request, demo_v3, tmp_path_factory):
    folder = tmp_path_factory.mktemp("coded")
    return request.param, reencoded(demo_v3, folder / "demo", *CODINGS[request.param])


@pytest.mark.parametrize("decoder", DECODERS)
def test_png_is_the_frame_of_a_sequential_decode(coded, decoder, tmp_path, say):  # noqa: F811
    name, root = coded
    counts = compare(sources(root), decoder, tmp_path)
    say(f"keyframes, demo_v3 ({name}), 4 episodes, {decoder}: {dict(counts)}")
    assert counts["compared"] > 80
    assert counts["mismatches"] == 0


def test_clips_show_exactly_the_episodes_frames(coded, tmp_path, say):  # noqa: F811
    """Ten bits become eight, so frames are told apart: each is nearest to its own."""
    name, root = coded
    compared = wrong = 0
    for case in (case for case in sources(root) if case.camera.camera == FRONT):
        camera = case.camera
        frames = locate_episode(
            case.file,
            from_s=camera.from_s,
            to_s=camera.to_s,
            timestamps_s=case.episode.timestamps,
            fps=case.episode.fps,
            label="test",
        )
        clip = tmp_path / f"{case.episode.episode_index}.mp4"
        write_clip(clip, frames, ClipSettings(preset="ultrafast", crf=0))
        truth = full_decode(case.file, camera.width, camera.height).astype(np.int16)
        truth = truth[case.first_frame : case.first_frame + case.length]
        with av.open(str(clip)) as container:
            shown = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
            assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert len(shown) == case.length
        for index, frame in enumerate(shown):
            around = range(max(0, index - 2), min(case.length, index + 3))
            errors = {i: int(np.abs(truth[i] - frame).sum()) for i in around}
            compared += 1
            wrong += errors[index] > min(errors.values()) * 1.02
    say(f"clips, demo_v3 ({name}): {compared} frames, {wrong} nearer to another frame")
    assert compared == 269
    assert wrong == 0


def test_cameras_of_differing_size_and_a_depth_camera(demo_v3, tmp_path):
    root = shutil.copytree(demo_v3, tmp_path / "demo")
    wrist = root / f"videos/{WRIST}/chunk-000/file-000.mp4"
    run("-i", demo_v3 / wrist.relative_to(root), "-vf", "scale=160:120", "-c:v", "libx264", wrist)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][WRIST]["shape"] = [120, 160, 3]
    info["features"]["observation.depth"] = {
        "dtype": "video",
        "shape": [224, 224, 1],
        "names": ["height", "width", "channels"],
        "info": {"video.is_depth_map": True},
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    dataset = read_dataset(root, "d")
    assert list(dataset.cameras) == [FRONT, WRIST]
    assert dataset.notices == (
        "Camera observation.depth records depth, not color, and is not used.",
    )
    table, _ = build_index(dataset)
    sizes = {(c["width"], c["height"]) for c in table.to_pylist()[0]["cameras"]}
    assert sizes == {(224, 224), (160, 120)}
    del info["features"]["observation.depth"]  # `sources` looks every camera up
    (root / "meta/info.json").write_text(json.dumps(info))
    assert compare(sources(root), "pyav", tmp_path / "keyframes")["mismatches"] == 0


@pytest.mark.parametrize("rate", ["9.99", "9.91"])
def test_a_video_that_runs_slower_than_the_data_is_exact(demo_v3, tmp_path, rate, say):  # noqa: F811
    """A video with another frame rate than the 10 of the data; the ranges are those of the video.

    At 9.91, the last frames are more than half a frame late: 30 and 29.97 are that after 17 s.
    """
    root = shutil.copytree(demo_v3, tmp_path / "demo")
    for key in (FRONT, WRIST):
        file = root / f"videos/{key}/chunk-000/file-000.mp4"
        slower = f"setpts=N/({rate}*TB)"
        run("-i", demo_v3 / file.relative_to(root), "-vf", slower, "-r", rate, file)
    table = pq.read_table(root / EPISODES)
    for number, name in enumerate(table.column_names):
        if name.startswith("videos/") and name.endswith("_timestamp"):
            values = [value * 10 / float(rate) for value in table[name].to_pylist()]
            table = table.set_column(number, name, [values])
    pq.write_table(table, root / EPISODES)
    build_index(read_dataset(root, "d"))
    counts = compare(sources(root), "pyav", tmp_path / "keyframes")
    say(f"keyframes, demo_v3 (video at {rate}, data at 10 frames/s), 4 episodes: {dict(counts)}")
    assert counts["compared"] > 80
    assert counts["mismatches"] == 0


def test_an_image_camera_with_depth_is_rejected_by_name(demo_v3, tmp_path):
    """Sixteen bits a pixel are no color: the message says what to do."""
    from cuesheet.errors import CuesheetError
    from cuesheet.media.image_columns import read_images

    path = tmp_path / "depth.png"
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(path)
    table = pq.read_table(demo_v3 / DATA).slice(0, 1)
    cells = [{"bytes": path.read_bytes(), "path": "depth.png"}]
    pq.write_table(table.append_column("depth", [cells]), tmp_path / "data.parquet")
    with pytest.raises(CuesheetError, match="Depth cameras are not annotated"):
        next(
            read_images(
                tmp_path / "data.parquet",
                root=tmp_path,
                camera="depth",
                row_from=0,
                frame_indices=[0],
                label="episode 0",
            )
        )
