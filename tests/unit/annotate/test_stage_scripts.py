"""The choices that stages make before they ask."""

import pytest

from cuesheet.annotate.interjections import choose_moments
from cuesheet.annotate.segmentation import split_windows
from cuesheet.annotate.task_text import is_placeholder, is_short
from cuesheet.annotate.vqa import question_type
from cuesheet.artifacts.episode import Keyframe
from cuesheet.artifacts.subtasks import Window

TYPES = ["bbox", "keypoint", "count", "attribute", "spatial"]


@pytest.mark.parametrize(
    "task",
    ["", "  ", "debug", "TBD", "todo.", "n/a", "untitled", "default", "test", "pick cup", "a"],
)
def test_short_tasks_and_placeholders_say_too_little(task):
    assert is_short(task)


@pytest.mark.parametrize("task", ["Open a drawer", "stack the red cups", "wipe table with sponge"])
def test_three_words_are_a_task(task):
    assert not is_short(task)


@pytest.mark.parametrize(
    "task", ["把红色杯子放进碗里", "赤いカップを取る", "ยกแก้วสีแดง", "把杯子放进bowl里"]
)
def test_scripts_without_spaces_are_judged_by_characters(task):
    assert not is_short(task)


@pytest.mark.parametrize("task", ["测试", "取る", "テスト。", "ยก"])
def test_a_word_of_a_script_without_spaces_says_too_little(task):
    assert is_short(task)


def test_korean_has_words():
    assert is_short("컵을 들어")
    assert not is_short("빨간 컵을 들어")


@pytest.mark.parametrize(
    ("task", "nothing"), [("", True), (" Test. ", True), ("pick cup", False), ("测试", False)]
)
def test_a_placeholder_says_nothing_a_short_task_something(task, nothing):
    assert is_placeholder(task) == nothing


def test_few_frames_are_one_window():
    assert split_windows([0, 5, 10], 12, 60) == [Window(0, 12)]


@pytest.mark.parametrize(("frames", "maximum"), [(61, 60), (120, 60), (121, 60), (7, 2), (100, 33)])
def test_windows_cover_the_episode_and_show_no_more_than_allowed(frames, maximum):
    shown = [index * 15 for index in range(frames)]
    length = shown[-1] + 9
    windows = split_windows(shown, length, maximum)
    assert windows[0].start_frame == 0
    assert windows[-1].end_frame == length
    counts = []
    for window, following in zip(windows, [*windows[1:], None], strict=True):
        if following is not None:
            assert window.end_frame == following.start_frame
        counts.append(sum(window.start_frame <= i < window.end_frame for i in shown))
    assert sum(counts) == frames
    assert max(counts) <= maximum
    assert max(counts) - min(counts) <= 1


def choose(starts, episode_index=0, seed=0, count=3):
    return choose_moments(
        starts, seed=seed, episode_index=episode_index, not_before_s=2.0, count=count
    )


def test_moments_are_subtask_starts_later_than_the_limit_in_order():
    starts = [0.0, 1.5, 2.0, 3.0, 4.5, 6.0, 8.0]
    for episode_index in range(50):
        moments = choose(starts, episode_index)
        assert len(moments) == 3
        assert moments == sorted(moments)
        assert all(starts[position] > 2.0 for position in moments)


def test_moments_depend_on_seed_and_episode_alone():
    starts = [float(second) for second in range(20)]
    assert choose(starts, 4) == choose(starts, 4)
    assert len({tuple(choose(starts, episode)) for episode in range(20)}) > 5
    assert len({tuple(choose(starts, 4, seed)) for seed in range(20)}) > 5


def test_where_too_few_subtasks_start_late_all_are_taken():
    assert choose([0.0, 1.0, 2.5]) == [2]
    assert choose([0.0, 1.0]) == []
    assert choose([0.0, 3.0, 5.0], count=0) == []


def drawn(frame_index, camera="front", episode_index=0, seed=0):
    frame = Keyframe(camera, frame_index, frame_index / 10, None, 64, 64)
    return question_type(TYPES, seed=seed, frame=frame, episode_index=episode_index)


def test_every_question_type_is_drawn_about_equally_often():
    counts = dict.fromkeys(TYPES, 0)
    for frame_index in range(2000):
        counts[drawn(frame_index)] += 1
    assert min(counts.values()) > 300


def test_the_drawn_type_depends_on_frame_camera_episode_and_seed():
    frames = range(200)
    first = [drawn(index) for index in frames]
    assert first == [drawn(index) for index in frames]
    assert first != [drawn(index, camera="wrist") for index in frames]
    assert first != [drawn(index, episode_index=1) for index in frames]
    assert first != [drawn(index, seed=1) for index in frames]
