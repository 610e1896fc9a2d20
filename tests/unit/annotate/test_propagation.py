"""Corrected episodes are carried over to others of their task, with a confidence."""

from dataclasses import replace

import numpy as np
from synthetic_robots import Robot, layout_of, record_all

from cuesheet.annotate.propagation import Reference, propagate, trajectory_of_signals
from cuesheet.artifacts.episode import Episode
from cuesheet.signals.alignment import Trajectory
from cuesheet.signals.extract import measure
from cuesheet.signals.record import Record

RECORDS = [one.record for one in record_all(Robot(), 4)]
LAYOUT = layout_of(RECORDS)
SPANS = [{"start_s": s, "label": f"step {s}"} for s in (0.0, 1.7, 3.4)]


def trajectory(record: Record) -> Trajectory:
    return trajectory_of_signals(measure(LAYOUT, record, "made", 0))


def episode(record: Record) -> Episode:
    return Episode("made", 1, "task", 30.0, record.timestamps_s.tolist(), {})


def slower(record: Record) -> Record:
    """The same movement at two thirds of the speed."""
    frames = np.linspace(0, record.length - 1, record.length * 3 // 2).round().astype(int)
    times = np.arange(len(frames)) / 30
    return Record(times, record.state[frames], record.action[frames])


def test_an_identical_episode_has_identical_boundaries_and_full_confidence() -> None:
    first = trajectory(RECORDS[0])
    found = propagate(episode(RECORDS[0]), first, [Reference(7, first, SPANS)])
    starts = [part.start_s(episode(RECORDS[0])) for part in found.subtasks]
    assert np.allclose(starts, [0.0, 1.7, 3.4], atol=0.02)
    assert (found.source_episode, round(found.confidence, 3)) == (7, 1.0)


def test_a_slower_episode_has_its_boundaries_later() -> None:
    slow = slower(RECORDS[0])
    found = propagate(
        episode(slow), trajectory(slow), [Reference(7, trajectory(RECORDS[0]), SPANS)]
    )
    starts = [part.start_s(episode(slow)) for part in found.subtasks]
    assert np.allclose(starts, [0.0, 2.55, 5.1], atol=0.25)


def test_a_boundary_at_a_stroke_is_at_the_same_stroke_of_the_other_episode() -> None:
    source, target = (measure(LAYOUT, one, "made", 0) for one in (RECORDS[0], slower(RECORDS[0])))
    ends_s = [stroke.end_s for stroke in source.grippers[0].strokes]
    between_s = (ends_s[0] + source.grippers[0].strokes[1].start_s) / 2
    starts_s = sorted([0.0, *ends_s, between_s])
    spans = [{"start_s": start_s, "label": f"step {start_s}"} for start_s in starts_s]
    slow = episode(slower(RECORDS[0]))
    found = propagate(
        slow, trajectory_of_signals(target), [Reference(7, trajectory_of_signals(source), spans)]
    )
    starts = {part.label: part.start_s(slow) for part in found.subtasks}
    strokes = zip(ends_s, target.grippers[0].strokes, strict=True)
    assert all(abs(starts[f"step {end_s}"] - stroke.end_s) < 0.04 for end_s, stroke in strokes)
    assert abs(starts[f"step {between_s}"] - 1.5 * between_s) < 0.25


def test_another_task_and_noise_lower_the_confidence() -> None:
    target = trajectory(slower(RECORDS[0]))
    unrelated = [Reference(n, trajectory(RECORDS[n]), []) for n in (1, 2)]

    def confidence(source: Record) -> float:
        known = [Reference(7, trajectory(source), SPANS), *unrelated]
        return propagate(episode(slower(RECORDS[0])), target, known).confidence

    random = np.random.default_rng(0)
    noisy = replace(RECORDS[0], state=RECORDS[0].state + random.normal(0, 0.2, (1, 7)))
    assert confidence(RECORDS[0]) > 0.7 > 0.5 > confidence(RECORDS[3])
    assert confidence(RECORDS[0]) > confidence(noisy)


def test_without_a_state_or_with_one_frame_nothing_breaks() -> None:
    first = trajectory(RECORDS[0])
    empty = Trajectory(first.times_s, np.zeros((len(first.times_s), 0)))
    assert propagate(episode(RECORDS[0]), empty, [Reference(7, first, SPANS)]) is None
    one = Record(RECORDS[0].timestamps_s[:1], RECORDS[0].state[:1], RECORDS[0].action[:1])
    found = propagate(episode(one), trajectory(one), [Reference(7, first, SPANS)])
    assert [(part.start_frame, part.end_frame) for part in found.subtasks] == [(0, 1)]
