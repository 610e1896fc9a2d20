import numpy as np
import pytest

from cuesheet.artifacts.sampling import (
    grid_indices,
    nearest_index,
    select_keyframes,
    vqa_ticks,
)


def float32_times(count: int, fps: float) -> list[float]:
    return [float(str(np.float32(index / fps))) for index in range(count)]


@pytest.mark.parametrize("fps", [10, 24, 29.97, 30, 50, 60])
def test_grid_frames_are_the_nearest_to_the_grid_times(fps):
    times = float32_times(301, fps)
    for index in grid_indices(times, 2.0)[:-1]:
        tick = round(times[index] * 2) / 2
        assert abs(times[index] - tick) == min(abs(time - tick) for time in times)


def test_grid_has_the_first_and_the_last_frame():
    assert grid_indices(float32_times(76, 10), 2.0)[0] == 0
    assert grid_indices(float32_times(76, 10), 2.0)[-1] == 75
    assert grid_indices(float32_times(74, 10), 2.0)[-1] == 73


def test_a_tick_on_the_last_frame_is_selected_in_spite_of_float32():
    for fps in (10, 30, 60):
        times = float32_times(int(3 * fps) + 1, fps)
        assert vqa_ticks(times, 1.0, 1)[-1] == [len(times) - 1]


def test_ticks_take_consecutive_frames_and_stop_at_the_end():
    assert vqa_ticks(float32_times(22, 10), 1.0, 3) == [[0, 1, 2], [10, 11, 12], [20, 21]]


def test_denser_than_the_video_means_every_frame_once():
    assert grid_indices(float32_times(5, 10), 1000) == [0, 1, 2, 3, 4]


def test_keyframes_hold_what_every_stage_asks_for():
    times = float32_times(118, 20)
    selection = select_keyframes(times, 2.0, 3.0, 2)
    assert selection.grid == grid_indices(times, 2.0)
    assert selection.vqa == sorted({i for tick in vqa_ticks(times, 3.0, 2) for i in tick})
    assert selection.frame_indices == sorted({*selection.grid, *selection.vqa})
    assert select_keyframes(times, 2.0, None, 2).frame_indices == grid_indices(times, 2.0)


def test_one_frame_is_an_episode():
    assert select_keyframes([0.0], 2.0, 1.0, 4).frame_indices == [0]


def test_nearest_index_clamps_and_prefers_the_earlier_in_a_tie():
    times = [0.0, 1.0, 2.0]
    assert [nearest_index(times, t) for t in (-5, 0.5, 0.51, 1.9, 99)] == [0, 0, 1, 2, 2]


def test_irregular_timestamps_are_followed_not_the_frame_rate():
    assert grid_indices([0.0, 0.1, 0.2, 2.0, 2.1], 1.0) == [0, 2, 3, 4]
