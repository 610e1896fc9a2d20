"""Shards: stable, even, complete; the lease on one; the seconds that are counted."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cuesheet.cluster.assignment import deal_out, read_assignment, size_of, write_assignment
from cuesheet.cluster.lease import STALE_S, Lease, LeaseLostError
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
    shards = deal_out(lengths, HOUR, [])
    assert sorted(index for shard in shards for index in shard) == sorted(lengths)
    totals = [sum(lengths[index] for index in shard) for shard in shards]
    assert max(totals) <= 3600.0
    assert max(totals) - min(totals) <= 2 * 40.0


def test_no_episode_changes_its_shard_when_others_are_added():
    before = deal_out(durations(1000), HOUR, [])
    for more in (1001, 1100, 5000):
        after = deal_out(durations(more), HOUR, before)
        for old, new in zip(before, after, strict=False):
            assert new[: len(old)] == old
        assert sum(map(len, after)) == more
        before = after
    # Also one that comes first, as in a dataset that was assembled again.
    assert deal_out({-1: 5.0, **durations(1000)}, HOUR, deal_out(durations(1000), HOUR, []))[0][
        :3
    ] == [0, 1, 2]


def test_an_episode_that_was_recorded_again_moves_no_other():
    before = deal_out(durations(1000), HOUR, [])
    assert deal_out({**durations(1000), 17: 900.0}, HOUR, before) == before


def test_episodes_that_are_gone_leave_their_shard():
    before = deal_out(durations(100), {"episodes": 10}, [])
    rest = {index: 1.0 for index in range(100) if not 20 <= index < 30}
    after = deal_out(rest, {"episodes": 10}, before)
    assert after[2] == []
    assert after[3] == before[3]


def test_a_count_of_episodes_is_kept_to():
    shards = deal_out(durations(25), {"episodes": 10}, [])
    assert [len(shard) for shard in shards] == [10, 10, 5]
    grown = deal_out(durations(38), {"episodes": 10}, shards)
    assert [len(shard) for shard in grown] == [10, 10, 10, 8]


def test_an_episode_longer_than_a_shard_has_one_of_its_own():
    shards = deal_out({0: 10.0, 1: 9000.0, 2: 10.0}, HOUR, [])
    assert [index for shard in shards for index in shard] == [0, 1, 2]
    assert all(shards)


def test_the_size_follows_from_the_settings():
    settings = Config().cluster
    assert size_of(settings) == {"video_s": 30 * 5 * 60}
    assert size_of(settings.model_copy(update={"episodes_per_shard": 7})) == {"episodes": 7}


def test_an_assignment_is_kept_until_the_size_is_changed(tmp_path):
    path = tmp_path / "assignment.json"
    shards = deal_out(durations(500), HOUR, [])
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


# The lease


HOLDER = """
import sys, time
from cuesheet.cluster.lease import Lease
assert Lease(sys.argv[1], {"job_id": "17"}).try_acquire() is None
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path, repository):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lease")],
        env={**os.environ, "PYTHONPATH": str(repository / "scripts")},
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_a_lease_is_free_as_soon_as_its_holder_on_this_machine_is_gone(tmp_path, holder):
    lease = Lease(tmp_path / "lease", {"job_id": "18"})
    assert lease.try_acquire()["job_id"] == "17"
    holder.kill()
    holder.wait()
    assert lease.try_acquire() is None
    lease.release()
    assert not (tmp_path / "lease").exists()


def elsewhere(path: Path) -> None:
    """Make it look as if the holder were on another machine, whose processes are not seen here."""
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "node7"}))


def test_a_holder_elsewhere_is_over_when_it_has_been_silent(tmp_path, holder):
    path = tmp_path / "lease"
    elsewhere(path)
    lease = Lease(path, {})
    assert lease.try_acquire()["host"] == "node7"
    past = time.time() - STALE_S - 5
    os.utime(path, (past, past))
    assert lease.try_acquire() is None


def test_a_holder_that_was_taken_for_dead_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("cuesheet.cluster.lease.BEAT_S", 0.0)
    first, second = Lease(tmp_path / "lease", {}), Lease(tmp_path / "lease", {"job_id": "5"})
    assert first.try_acquire() is None
    first.beat()
    (tmp_path / "lease").unlink()
    assert second.try_acquire() is None
    with pytest.raises(LeaseLostError, match="job 5"):
        first.beat()
    first.release()
    assert (tmp_path / "lease").exists()


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
    usage.enter("plan")
    passes(4.0)
    usage.enter("vqa")
    usage.enter("vqa")
    usage.enter("vqa")
    passes(8.0)
    for stage in ("plan", "vqa", "vqa", "vqa"):
        usage.leave(stage)
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
