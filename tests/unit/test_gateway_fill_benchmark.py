"""The measure of how full a server is kept: its numbers are those that a hand works out."""

import importlib.util

import pytest


@pytest.fixture(scope="module")
def benchmark(repository):
    path = repository / "benchmarks" / "gateway_fill.py"
    spec = importlib.util.spec_from_file_location("benchmark_gateway_fill", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shares_of_the_time_by_hand(benchmark):
    slow = benchmark.SlowServer(1.0)
    # Two at once from 1 to 4 s and from 5 to 8 s of 10 s; one call in all the rest.
    slow.changes = [(0, 1), (1, 2), (4, 1), (5, 2), (8, 1), (10, 0)]
    found = slow.shares(2)
    assert found["span_s"] == 10
    assert found["ramp_s"] == 1
    assert found["mean"] == pytest.approx(1.6)
    assert found["full"] == pytest.approx(0.6)
    assert found["full_with_work"] == pytest.approx(6 / 8)
    assert found["used_with_work"] == pytest.approx(14 / 8 / 2)


async def test_every_call_of_every_episode_is_asked_once_and_never_too_many(benchmark, monkeypatch):
    monkeypatch.setenv("CUESHEET_PROGRESS", "off")
    found = await benchmark.measure(episodes=2, concurrency=4, reply_s=0.02)
    per_episode = 3 + benchmark.MEMORIES + benchmark.INTERJECTIONS + benchmark.QUESTIONS
    assert found["calls"] == 2 * per_episode
    assert 0 < found["mean"] <= 4
    assert found["wall_s"] >= found["ideal_s"]
