"""Leases: one holder at a time, taken over when the holder has ended."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cuesheet.lease import STALE_AFTER_S, Lease, LeaseLostError

HOLDER = """
import sys, time
from cuesheet.lease import Lease
assert Lease(sys.argv[1], {"job_id": "17"}).try_acquire() is None
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lease")],
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_a_lease_is_free_as_soon_as_its_holder_on_this_machine_has_ended(tmp_path, holder):
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
    past = time.time() - STALE_AFTER_S - 5
    os.utime(path, (past, past))
    assert lease.try_acquire() is None


def test_a_holder_notices_that_its_lease_was_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("cuesheet.lease.RENEW_EVERY_S", 0.0)
    first, second = Lease(tmp_path / "lease", {}), Lease(tmp_path / "lease", {"job_id": "5"})
    assert first.try_acquire() is None
    first.renew()
    (tmp_path / "lease").unlink()
    assert second.try_acquire() is None
    with pytest.raises(LeaseLostError, match="job 5"):
        first.renew()
    first.release()
    assert (tmp_path / "lease").exists()


def test_of_many_that_wait_for_a_dead_holder_exactly_one_gets_the_lease(tmp_path, holder):
    path = tmp_path / "lease"
    holder.kill()
    holder.wait()
    for _ in range(20):
        content = json.loads(path.read_text()) | {"pid": 2**22 + 1, "token": "dead"}
        path.unlink()
        path.write_text(json.dumps(content))
        barrier = threading.Barrier(8)
        results = []

        def acquire(barrier=barrier, results=results):
            lease = Lease(path, {})
            barrier.wait()
            results.append(lease.try_acquire())

        waiting = [threading.Thread(target=acquire) for _ in range(8)]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()
        assert sum(result is None for result in results) == 1
        assert sorted(p.name for p in tmp_path.iterdir()) == ["lease"]


def test_a_holder_that_died_while_it_took_a_lease_over_blocks_nobody(tmp_path, holder):
    path = tmp_path / "lease"
    holder.kill()
    holder.wait()
    (tmp_path / "lease.removal").write_text(path.read_text())
    assert Lease(path, {}).try_acquire() is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lease"]


def test_a_lease_that_cannot_be_read_is_held_until_it_is_stale(tmp_path):
    path = tmp_path / "lease"
    path.write_text("{")
    assert Lease(path, {}).try_acquire() is not None
    past = time.time() - STALE_AFTER_S - 5
    os.utime(path, (past, past))
    assert Lease(path, {}).try_acquire() is None


def test_a_disk_without_hard_links_has_leases_too(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr("os.link", refuse)
    first, second = Lease(tmp_path / "lease", {"job_id": "1"}), Lease(tmp_path / "lease", {})
    assert first.try_acquire() is None
    assert second.try_acquire()["job_id"] == "1"
    first.release()
    assert second.try_acquire() is None
