"""Shards: stable, even, complete; the lease on one; the seconds that are counted."""

import json

import pytest

from cuesheet.cluster.assignment import assign, read_assignment, size_of, write_assignment
from cuesheet.config.models import Config
from cuesheet.errors import CuesheetError
from cuesheet.serving.usage import Usage
from cuesheet.text import from_ranges, to_ranges


def durations(count: int, first: int = 0) -> dict[int, float]:
    """Seconds of episodes, between 10 and 40, the same at every call."""
    return {index: 10.0 + (index * 7919) % 31 for index in range(first, first + count)}


HOUR = {"video_s": 3600.0}


def test_every_episode_is_in_one_shard_and_shards_are_of_equal_length():
    lengths = durations(10_000)
    shards = assign(lengths, HOUR, [])
    assert sorted(index for shard in shards for index in shard) == sorted(lengths)
    totals = [sum(lengths[index] for index in shard) for shard in shards]
    assert max(totals) <= 3600.0
    assert max(totals) - min(totals) <= 2 * 40.0


def test_no_episode_changes_its_shard_when_others_are_added():
    before = assign(durations(1000), HOUR, [])
    for more in (1001, 1100, 5000):
        after = assign(durations(more), HOUR, before)
        for old, new in zip(before, after, strict=False):
            assert new[: len(old)] == old
        assert sum(map(len, after)) == more
        before = after
    # Also one that comes first, as in a dataset that was assembled again.
    assert assign({-1: 5.0, **durations(1000)}, HOUR, assign(durations(1000), HOUR, []))[0][:3] == [
        0,
        1,
        2,
    ]


def test_an_episode_that_was_recorded_again_moves_no_other():
    before = assign(durations(1000), HOUR, [])
    assert assign({**durations(1000), 17: 900.0}, HOUR, before) == before


def test_episodes_that_no_longer_exist_leave_their_shard():
    before = assign(durations(100), {"episodes": 10}, [])
    rest = {index: 1.0 for index in range(100) if not 20 <= index < 30}
    after = assign(rest, {"episodes": 10}, before)
    assert after[2] == []
    assert after[3] == before[3]


def test_episodes_per_shard_limits_every_shard():
    shards = assign(durations(25), {"episodes": 10}, [])
    assert [len(shard) for shard in shards] == [10, 10, 5]
    grown = assign(durations(38), {"episodes": 10}, shards)
    assert [len(shard) for shard in grown] == [10, 10, 10, 8]


def test_an_episode_longer_than_a_shard_is_alone_in_its_shard():
    shards = assign({0: 10.0, 1: 9000.0, 2: 10.0}, HOUR, [])
    assert [index for shard in shards for index in shard] == [0, 1, 2]
    assert all(shards)


def test_the_size_follows_from_the_settings():
    settings = Config().cluster
    assert size_of(settings) == {"video_s": 30 * 5 * 60}
    assert size_of(settings.model_copy(update={"episodes_per_shard": 7})) == {"episodes": 7}


def test_an_assignment_is_reused_until_the_size_changes(tmp_path):
    path = tmp_path / "assignment.json"
    shards = assign(durations(500), HOUR, [])
    assert read_assignment(path, HOUR) == []
    write_assignment(path, HOUR, shards)
    assert read_assignment(path, HOUR) == shards
    assert read_assignment(path, {"video_s": 60.0}) == []
    written = path.stat().st_mtime_ns
    write_assignment(path, HOUR, shards)
    assert path.stat().st_mtime_ns == written
    path.write_text("{")
    with pytest.raises(CuesheetError, match="Delete it"):
        read_assignment(path, HOUR)


def test_ranges_are_read_back():
    assert to_ranges([7, 0, 1, 2]) == [[0, 2], [7, 7]]
    assert from_ranges(to_ranges(range(5))) == [0, 1, 2, 3, 4]


# The seconds


def test_every_second_is_counted_once(tmp_path):
    now, state = [0.0], ["idle"]
    usage = Usage(tmp_path / "usage.json", {"shard": "00001"}, 2, lambda: state[0], lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds
        usage.tick()

    passes(3.0)
    state[0] = "starting"
    passes(10.0)
    state[0] = "ready"
    with usage.busy("plan"):
        passes(4.0)
        with usage.busy("vqa"), usage.busy("vqa"), usage.busy("vqa"):
            passes(8.0)
    passes(5.0)
    usage.write(ended=True)
    written = json.loads((tmp_path / "usage.json").read_text())
    assert written["seconds"] == {
        "unused": 3.0,
        "loading": 10.0,
        "busy": 12.0,
        "idle": 5.0,
        "failed": 0.0,
    }
    assert written["busy_by_stage"] == {"plan": 6.0, "vqa": 6.0}
    assert written["calls"] == {"plan": 1, "vqa": 3}
    assert (written["gpus"], written["shard"], written["ended"]) == (2, "00001", True)
