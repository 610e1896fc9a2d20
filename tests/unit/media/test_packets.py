"""Finding an episode's frames in a video file: the right ones, or one clear error."""

import stat

import numpy as np
import pytest
from media_sources import H264, full_decode, joined, run, say, single, sources  # noqa: F401

from cuesheet.errors import CuesheetError
from cuesheet.media import ffmpeg
from cuesheet.media.decode import decode_frames, decoding_runs
from cuesheet.media.packets import locate_episode, locate_range

LABEL = "episode 3, camera observation.images.front"


def locate(case, **changes):
    place = {
        "from_s": case.camera.from_s,
        "to_s": case.camera.to_s,
        "timestamps_s": case.episode.timestamps,
        "fps": case.episode.fps,
        "label": LABEL,
    }
    return locate_episode(case.file, **(place | changes))


@pytest.fixture(scope="session")
def original(demo_v3):
    return demo_v3 / "videos/observation.images.front/chunk-000/file-000.mp4"


@pytest.fixture(scope="session")
def b_frames(original, tmp_path_factory):
    file = tmp_path_factory.mktemp("video") / "b_frames.mp4"
    run("-i", original, *H264["gop250_b_frames"], "-movflags", "+faststart", file)
    return file


@pytest.mark.parametrize("name", ["demo_v3", "dev_v3"])
def test_every_frame_of_every_episode_follows_the_one_before_in_the_file(request, name):
    ends: dict = {}
    for case in sources(request.getfixturevalue(name)):
        found = locate(case)
        assert len(found.pts) == case.length
        # Groups of two frames: at most one frame before the episode is read.
        assert len(found.source.packets) <= case.length + 6
        period = round(1 / (case.episode.fps * found.source.time_base))
        assert set(np.diff(found.pts)) == {period}
        assert found.pts[0] == case.first_frame * period
        assert ends.get(case.file, 0) == case.first_frame
        ends[case.file] = case.first_frame + case.length


def test_ranges_without_timestamps_give_the_same_frames(demo_v3):
    for case in sources(demo_v3):
        found = locate_range(
            case.file,
            from_s=case.camera.from_s,
            to_s=case.camera.to_s,
            length=case.length,
            fps=case.episode.fps,
            label=LABEL,
        )
        assert found is not None
        assert found.pts == locate(case).pts


def test_a_range_with_more_frames_than_the_episode_leaves_the_choice_to_timestamps(demo_v3):
    case = sources(demo_v3)[1]
    place = {"from_s": case.camera.from_s, "to_s": case.camera.to_s, "fps": 10.0, "label": LABEL}
    assert locate_range(case.file, length=40, **place) is None
    found = locate(case, timestamps_s=case.episode.timestamps[3:43])
    assert found.pts == locate(case).pts[3:43]


def test_a_range_shorter_than_the_episode_names_episode_file_and_both_counts(demo_v3):
    case = sources(demo_v3)[2]
    with pytest.raises(CuesheetError) as caught:
        locate(case, to_s=case.camera.to_s - 0.5)
    text = str(caught.value)
    assert "episode 3" in text
    assert str(case.file) in text
    assert "the episode has 76 frames" in text
    assert "the video has 71 between 12.100000 s and 19.200000 s" in text


def test_a_timestamp_between_frames_is_an_error_that_names_both_times(demo_v3):
    case = sources(demo_v3)[0]
    times = list(case.episode.timestamps)
    times[-1] += 0.2
    with pytest.raises(CuesheetError, match=r"frame 74 should be at 7\.6\d+ s .* at 7\.4\d+ s"):
        locate(case, timestamps_s=times)


def test_the_nth_frame_is_taken_if_the_video_has_as_many_frames_as_timestamps(demo_v3):
    case = sources(demo_v3)[0]
    times = list(case.episode.timestamps)
    exact = locate(case, timestamps_s=times).pts
    times[11] = times[10] + 0.02
    assert locate(case, timestamps_s=times).pts == exact


def test_two_timestamps_on_one_frame_are_an_error_if_the_video_has_more_frames(demo_v3):
    case = sources(demo_v3)[0]
    times = list(case.episode.timestamps)[:-5]
    times[11] = times[10] + 0.02
    with pytest.raises(CuesheetError, match=r"frames 10 and 11 .* both fall on"):
        locate(case, timestamps_s=times)


@pytest.mark.parametrize("decoder", ["ffmpeg", "pyav"])
def test_joined_clips_with_b_frames_never_give_a_neighboring_episodes_frame(
    demo_v3, decoder, tmp_path
):
    for case in joined(demo_v3, tmp_path / "clips"):
        truth = full_decode(case.file, 224, 224)
        last = case.length - 1
        first_frame, last_frame = decode_frames(locate(case), [0, last], decoder)
        assert first_frame.data == truth[case.first_frame].tobytes()
        assert last_frame.data == truth[case.first_frame + last].tobytes()


@pytest.mark.parametrize("decoder", ["ffmpeg", "pyav"])
def test_variable_frame_rate_is_found_by_time_not_by_index_over_fps(
    original,
    decoder,
    tmp_path,
    say,  # noqa: F811
):
    file = tmp_path / "variable.mp4"
    # Every seventh frame is missing: its neighbors keep their times.
    keep = "select='mod(n,7)-3'"
    run("-i", original, "-vf", keep, *ffmpeg.passthrough_options(), *H264["gop2"], file)
    kept = [n for n in range(269) if n % 7 != 3]
    truth = full_decode(file, 224, 224)
    assert len(truth) == len(kept)
    case = single(file, 269, 10.0, 224, 224)
    times = np.array([n / 10 for n in kept], np.float32).tolist()
    frames = [*decode_frames(locate(case, timestamps_s=times), range(len(kept)), decoder)]
    wrong = sum(f.data != truth[f.frame_index].tobytes() for f in frames)
    say(f"variable frame rate (H.264), {decoder}: {len(frames)} frames, {wrong} differ")
    assert len(frames) == len(truth)
    assert wrong == 0


@pytest.mark.parametrize("decoder", ["ffmpeg", "pyav"])
def test_a_file_that_does_not_begin_at_zero_counts_from_its_first_frame(
    original, decoder, tmp_path
):
    file = tmp_path / "late.mkv"
    run("-i", original, "-vf", "setpts=PTS+4.7/TB", *H264["gop250_b_frames"], file)
    truth = full_decode(file, 224, 224)
    case = single(file, 269, 10.0, 224, 224)
    chosen = [0, 1, 100, 249, 251, 268]
    frames = [*decode_frames(locate(case), chosen, decoder)]
    assert [frame.data == truth[frame.frame_index].tobytes() for frame in frames] == [True] * 6


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_file_that_was_cut_off_is_one_error_that_names_file_and_episode(
    b_frames, share, tmp_path
):
    file = tmp_path / "cut.mp4"
    data = b_frames.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CuesheetError) as caught:
        locate(single(file, 269, 10.0, 224, 224))
    assert "episode 3" in str(caught.value)
    assert str(file) in str(caught.value)
    assert "truncated" in str(caught.value)


def test_a_file_without_its_index_is_one_error_that_names_file_and_episode(original, tmp_path):
    file = tmp_path / "cut.mp4"
    run("-i", original, "-c", "copy", file)
    file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(CuesheetError, match=r"episode 3.*cut\.mp4: the video cannot be read"):
        locate(single(file, 269, 10.0, 224, 224))


@pytest.mark.parametrize("decoder", ["ffmpeg", "pyav"])
def test_damage_within_a_file_is_an_error_and_not_another_frame(original, decoder, tmp_path):
    case = single(tmp_path / "damaged.mp4", 269, 10.0, 224, 224)
    run("-i", original, "-c", "copy", case.file)
    found = locate(case)
    data = bytearray(case.file.read_bytes())
    middle = len(data) // 2
    data[middle - 20_000 : middle + 20_000] = bytes(40_000)
    case.file.write_bytes(data)
    with pytest.raises(CuesheetError, match=r"episode 3.*damaged\.mp4"):
        list(decode_frames(found, range(269), decoder))


def test_missing_files_and_files_without_video_are_named(tmp_path):
    with pytest.raises(CuesheetError, match=r"episode 3.*none\.mp4: the file does not exist"):
        locate(single(tmp_path / "none.mp4", 5, 10.0, 8, 8))
    sound = tmp_path / "sound.mp4"
    run("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", sound)
    with pytest.raises(CuesheetError, match=r"sound\.mp4: the file has no video stream"):
        locate(single(sound, 5, 10.0, 8, 8))


def test_only_the_groups_that_hold_wanted_frames_are_decoded(demo_v3):
    found = locate(sources(demo_v3)[0])
    wanted = {found.pts[0], found.pts[30], found.pts[31], found.pts[74]}
    runs = decoding_runs(found.source, wanted)
    assert sum(end - begin + 1 for begin, end in runs) <= 6


def test_the_users_ffmpeg_wins_over_the_packaged_one(tmp_path, monkeypatch):
    own = tmp_path / "ffmpeg"
    own.write_text("#!/bin/sh\necho mine >&2\nexit 3\n")
    own.chmod(own.stat().st_mode | stat.S_IXUSR)
    ffmpeg.find_ffmpeg.cache_clear()
    try:
        monkeypatch.delenv("CUESHEET_FFMPEG", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        assert ffmpeg.find_ffmpeg() == str(own)
        with pytest.raises(CuesheetError, match=r"reading: ffmpeg exited with 3:\n  mine"):
            ffmpeg.run_ffmpeg(["-version"], "reading")
        ffmpeg.find_ffmpeg.cache_clear()
        monkeypatch.setenv("CUESHEET_FFMPEG", str(tmp_path / "nowhere"))
        with pytest.raises(CuesheetError, match=r"CUESHEET_FFMPEG is .*nowhere"):
            ffmpeg.find_ffmpeg()
    finally:
        ffmpeg.find_ffmpeg.cache_clear()
