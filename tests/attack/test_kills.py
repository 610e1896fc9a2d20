"""The small form of the kills; `python tests/attack/kills.py` runs the full form."""

import pytest
from attack import kills

pytestmark = pytest.mark.workflow


def test_a_run_that_was_killed_is_finished_by_the_next_one(demo_v3, tmp_path):
    said: list[str] = []
    with kills.demo_server(tmp_path) as upstream:
        harness = kills.Harness(tmp_path, demo_v3, upstream, episodes="0", targets=("datasets",))
        results = kills.run_kills(harness, list(kills.SMALL), seed=3, say=said.append)
    print("\n".join(said))
    assert [result for result in results if result.problems] == []
    assert len(results) >= len(kills.SMALL) - 1
    assert sum(result.outcome.startswith("struck") for result in results) >= 5
