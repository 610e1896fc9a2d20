import itertools
import random

import pytest

from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.subtasks import (
    Subtask,
    Window,
    clean_spans,
    enforce_limits,
    join_windows,
    remaining_plan,
)


@pytest.fixture
def episode() -> Episode:
    """10 s at 10 frames per second."""
    return Episode("demo", 0, "stack the cups", 10.0, [index / 10 for index in range(100)], {})


def clean(spans, episode, window=None, min_subtask_s=1.5, max_subtasks=8):
    window = window or Window(0, episode.length)
    return clean_spans(
        spans, window, episode, min_subtask_s=min_subtask_s, max_subtasks=max_subtasks
    )


def test_spans_become_a_segmentation_without_gaps_or_overlaps(episode):
    segmentation = clean([(0.5, 3, "reach"), (3.4, 6, "grasp"), (5.5, 9, "lift")], episode)
    assert [(part.start_frame, part.end_frame) for part in segmentation] == [
        (0, 34),
        (34, 55),
        (55, 100),
    ]
    assert [part.label for part in segmentation] == ["reach", "grasp", "lift"]


def test_spans_out_of_order_are_put_in_order(episode):
    segmentation = clean([(6, 10, "lift"), (0, 3, "reach"), (3, 6, "grasp")], episode)
    assert [part.label for part in segmentation] == ["reach", "grasp", "lift"]


def test_nonsense_spans_are_dropped(episode):
    spans = [
        (float("nan"), 2, "a"),
        (5, 3, "b"),
        (50, 60, "c"),
        (1, float("inf"), "d"),
        (0, 9, "e"),
    ]
    assert clean(spans, episode) == [Subtask(0, 100, "e")]
    assert clean([(50, 60, "c"), (3, 4, "  ")], episode) == []


def test_of_two_spans_that_begin_on_one_frame_the_longer_stays(episode):
    assert clean([(0, 1, "short"), (0.02, 9, "long")], episode) == [Subtask(0, 100, "long")]


def test_the_minimum_length_is_enforced_and_the_longer_label_stays(episode):
    segmentation = clean([(0, 4, "reach"), (4, 5, "twitch"), (5, 10, "lift")], episode)
    assert [part.label for part in segmentation] == ["reach", "lift"]
    assert segmentation[0].end_frame == 50


def test_a_span_of_exactly_the_minimum_stays(episode):
    segmentation = clean([(0, 1.5, "reach"), (1.5, 10, "lift")], episode)
    assert [part.end_frame for part in segmentation] == [15, 100]


def test_the_maximum_number_is_enforced(episode):
    spans = [(second, second + 1, f"step {second}") for second in range(10)]
    segmentation = clean(spans, episode, min_subtask_s=0, max_subtasks=3)
    assert len(segmentation) == 3
    assert segmentation[0].start_frame == 0
    assert segmentation[-1].end_frame == 100


def test_an_episode_shorter_than_the_minimum_has_one_subtask(episode):
    segmentation = clean([(0, 0.3, "a"), (0.3, 0.9, "b")], episode, Window(0, 10))
    assert segmentation == [Subtask(0, 10, "b")]


def test_a_short_span_joins_the_neighbor_with_the_same_label(episode):
    segmentation = [Subtask(0, 20, "reach"), Subtask(20, 25, "lift"), Subtask(25, 100, "Lift")]
    merged = enforce_limits(segmentation, episode, min_subtask_s=1.5, max_subtasks=None)
    assert merged == [Subtask(0, 20, "reach"), Subtask(20, 100, "Lift")]


def test_a_step_cut_by_a_window_edge_becomes_one_again(episode):
    segmentations = [
        [Subtask(0, 20, "reach"), Subtask(20, 50, "lift")],
        [Subtask(50, 80, "Lift"), Subtask(80, 100, "place")],
    ]
    assert join_windows(segmentations, episode, min_subtask_s=1.5) == [
        Subtask(0, 20, "reach"),
        Subtask(20, 80, "lift"),
        Subtask(80, 100, "place"),
    ]


def test_equal_labels_inside_a_window_stay_two_subtasks(episode):
    segmentation = [Subtask(0, 40, "press"), Subtask(40, 100, "press")]
    assert join_windows([segmentation], episode, min_subtask_s=1.5) == segmentation


def test_any_spans_whatever_give_a_segmentation_within_the_limits(episode):
    generator = random.Random(1)
    for _ in range(300):
        spans = [
            (generator.uniform(-3, 13), generator.uniform(-3, 13), generator.choice("abcde"))
            for _ in range(generator.randrange(1, 30))
        ]
        start = generator.randrange(0, 80)
        window = Window(start, generator.randrange(start + 1, 101))
        segmentation = clean(spans, episode, window, max_subtasks=4)
        if not segmentation:
            continue
        assert segmentation[0].start_frame == window.start_frame
        assert segmentation[-1].end_frame == window.end_frame
        assert all(a.end_frame == b.start_frame for a, b in itertools.pairwise(segmentation))
        assert len(segmentation) <= 4
        seconds = [part.end_s(episode) - part.start_s(episode) for part in segmentation]
        assert len(segmentation) == 1 or min(seconds) >= 1.5 - 1e-6


def test_the_plan_lists_what_is_left():
    assert remaining_plan(["reach for the cup", "lift it"]) == "1. reach for the cup\n2. lift it"
