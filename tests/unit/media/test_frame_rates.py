"""`decode_keyframes` decodes the frames that the stages request, at every frame rate."""

import dataclasses
import itertools

import numpy as np
import pytest
from media_sources import single

from cuesheet.artifacts.episode import read_episode
from cuesheet.artifacts.sampling import select_keyframes
from cuesheet.media import keyframes
from cuesheet.media.decode import RgbFrame

RATES = [1, 2, 3, 5, 7, 10, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 23.976, 29.97, 59.94]
CAMERA = "observation.images.cam"


@pytest.fixture(autouse=True)
def tiny_frames(monkeypatch):
    def camera_frames(row, camera, *, root, frame_indices, decoder):
        for index in frame_indices:
            yield RgbFrame(index, 2, 2, bytes(12))

    monkeypatch.setattr(keyframes, "camera_frames", camera_frames)


def indexed_episode(tmp_path, fps, offset_s, seconds=3.1):
    row = single(tmp_path / "made.mp4", max(2, round(seconds * fps)), fps, 2, 2).episode
    times = np.asarray(row.timestamps, np.float64) + offset_s
    return dataclasses.replace(row, timestamps=times.astype(np.float32).tolist())


@pytest.mark.parametrize("fps", RATES)
def test_every_stage_finds_its_frames_decoded(fps, tmp_path):
    settings = [(2.0, 1.0, 1, 0.0), (4.0, 2.0, 2, 0.0), (3.0, 1.5, 1, 0.02), (0.7, 0.3, 3, 7.5)]
    for number, (per_second, hz, frames, offset_s) in enumerate(settings):
        row = indexed_episode(tmp_path, fps, offset_s)
        selection = select_keyframes(row.shortest_timestamps, per_second, hz, frames)
        folder = tmp_path / str(number)
        keyframes.write_keyframes(
            folder,
            row,
            dataset="made",
            root=tmp_path,
            cameras=[CAMERA],
            selection=selection,
            decoder="pyav",
        )
        episode = read_episode(folder)
        assert [f.frame_index for f in episode.frames_at(CAMERA, episode.grid)] == selection.grid
        assert [f.frame_index for f in episode.frames_at(CAMERA, episode.vqa)] == selection.vqa
        assert {0, episode.length - 1} <= set(episode.grid)


@pytest.mark.parametrize("fps", RATES)
def test_selected_frames_are_the_nearest_to_their_times(fps, tmp_path):
    for rate, offset_s in itertools.product((0.5, 1.0, 2.0, 3.0, 4.0, 10.0), (0.0, 0.02, 7.5)):
        times = indexed_episode(tmp_path, fps, offset_s).shortest_timestamps
        selection = select_keyframes(times, rate, rate, 1)
        ticks = times[0] + np.arange(int((times[-1] - times[0]) * rate + 5e-4) + 1) / rate
        distances = np.abs(np.asarray(times)[:, None] - ticks)
        nearest = distances.min(axis=0)
        for index in selection.vqa:
            assert np.any(distances[index] <= nearest + 1e-9)
        for chosen in (selection.grid, selection.vqa):
            assert np.all(distances[chosen].min(axis=0) <= nearest + 1e-9)
