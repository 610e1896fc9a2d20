"""The choices that stages make before they ask."""

from collections import Counter

import pytest

from cuesheet.annotate.interjections import (
    KINDS,
    begins_act,
    choose_subtask_starts,
    draw_in_turn,
)
from cuesheet.annotate.object_names import objects_in
from cuesheet.annotate.segmentation import split_windows
from cuesheet.annotate.task_text import is_short
from cuesheet.annotate.vqa_topics import draw_topics, group_frames
from cuesheet.artifacts.episode import Keyframe
from cuesheet.artifacts.subtasks import Window
from cuesheet.text import is_placeholder

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


def choose(starts, episode_index=0, seed=0, count=3, label="open the box"):
    return choose_subtask_starts(
        [{"start_s": start, "label": label} for start in starts],
        seed=seed,
        episode_index=episode_index,
        not_before_s=2.0,
        count=count,
    )


def test_interjections_are_at_subtask_starts_later_than_the_limit_in_order():
    starts = [0.0, 1.5, 2.0, 3.0, 4.5, 6.0, 8.0]
    for episode_index in range(50):
        positions = choose(starts, episode_index)
        assert len(positions) == 3
        assert positions == sorted(positions)
        assert all(starts[position] > 2.0 for position in positions)


def test_places_of_interjections_depend_on_seed_and_episode_alone():
    starts = [float(second) for second in range(20)]
    assert choose(starts, 4) == choose(starts, 4)
    assert len({tuple(choose(starts, episode)) for episode in range(20)}) > 5
    assert len({tuple(choose(starts, 4, seed)) for seed in range(20)}) > 5


def test_if_too_few_subtasks_start_late_all_are_taken():
    assert choose([0.0, 1.0, 2.5]) == [2]
    assert choose([0.0, 1.0]) == []
    assert choose([0.0, 3.0, 5.0], count=0) == []


@pytest.mark.parametrize(
    "label",
    [
        *("let go of the cup", "Release the handle", "move away from the table", "move back"),
        *("wait", "return to the home position", "retract the arm", "open the gripper"),
    ],
)
def test_nobody_asks_the_robot_to_let_go_or_to_move_away(label):
    assert not begins_act(label)
    assert choose([0.0, 3.0, 5.0], label=label) == []


@pytest.mark.parametrize(
    "label",
    [
        *("pick up the cup", "drop the ball into the box", "return the cup to the shelf"),
        *("open the drawer", "move the cup back to the shelf", "stopper the bottle"),
    ],
)
def test_a_person_may_ask_for_every_other_act(label):
    assert begins_act(label)


def test_every_kind_is_drawn_before_one_is_drawn_again():
    drawn = draw_in_turn(KINDS, 12, "seed")
    assert Counter(drawn[:5]) == Counter(drawn[5:10]) == Counter(KINDS)
    assert drawn == draw_in_turn(KINDS, 12, "seed")
    assert len({tuple(draw_in_turn(KINDS, 5, str(seed))) for seed in range(20)}) > 10


def keyframes(*indices, camera="front"):
    return [Keyframe(camera, index, index / 10, None, 64, 64) for index in indices]


def topics(count=25, camera="front", objects=(), per_call=1, **changes):
    groups = [keyframes(*range(10 * n, 10 * n + per_call), camera=camera) for n in range(count)]
    return draw_topics(groups, TYPES, objects=objects, **{"seed": 0, "episode_index": 0, **changes})


def test_a_request_is_about_consecutive_frames():
    frames = keyframes(0, 1, 2, 10, 11, 12, 20)
    groups = [[frame.frame_index for frame in group] for group in group_frames(frames, 2)]
    assert groups == [[0, 1], [2], [10, 11], [12], [20]]
    assert [len(group) for group in group_frames(frames, 1)] == [1] * 7


@pytest.mark.parametrize("per_call", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 4, 25, 33])
def test_question_types_are_drawn_equally_often_and_differ_within_a_request(count, per_call):
    drawn = topics(count, per_call=per_call)
    for request in drawn:
        kinds = [topic.question_type for topic in request]
        assert len(set(kinds)) == per_call
        assert sorted(kinds, key=lambda kind: kind not in ("bbox", "keypoint")) == kinds
    counts = Counter(topic.question_type for request in drawn for topic in request)
    numbers = [counts[kind] for kind in TYPES]
    assert sum(numbers) == count * per_call
    assert max(numbers) - min(numbers) <= 1


def test_no_object_is_drawn_twice_for_one_type_and_the_names_tell_which_were():
    seen = {kind: [] for kind in TYPES}
    for (topic,) in topics(60, objects=["cup", "sink"]):
        kind = topic.question_type
        assert list(topic.names) == seen[kind]
        if topic.target:
            assert topic.target not in seen[kind]
            seen[kind].append(topic.target)
    assert set(seen["bbox"]) == {"cup", "sink", "robot gripper"}
    assert set(seen["count"]) == {"cup", "sink"}
    assert set(seen["spatial"]) == {
        "cup and sink",
        "cup and robot gripper",
        "sink and robot gripper",
    }


def test_what_is_drawn_depends_on_camera_episode_and_seed():
    first = topics(200)
    assert first == topics(200)
    assert first != topics(200, camera="wrist")
    assert first != topics(200, episode_index=1)
    assert first != topics(200, seed=1)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("put the red cup into the sink", ["red cup", "sink"]),
        ("Pick up the blue block.", ["blue block"]),
        ("pick and place a puck on the plate", ["puck", "plate"]),
        ("let go of the handle", ["handle"]),
        ("open the top drawer, then close it", ["top drawer"]),
        ("move it to the left", []),
        ("把红色杯子放进碗里", []),
        ("", []),
    ],
)
def test_objects_are_the_noun_phrases_of_a_label(text, names):
    assert objects_in([text]) == names
