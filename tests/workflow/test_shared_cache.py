"""Two runs of the same dataset, in two folders, with one cache: each request is sent once."""

import json

import pytest
from processes import kill_all, processes_in
from workflow_runs import Workdir, until

pytestmark = pytest.mark.workflow


def test_two_runs_at_once_that_share_a_cache_pay_once(
    tmp_path, counting_server, demo_v3, finished_demo
):
    counting_server.delay_s = 0.2
    works = [Workdir(tmp_path / name) for name in ("one", "two")]
    for work in works:
        work.configure(
            dataset=str(demo_v3),
            episodes=[0],
            vlm={
                **counting_server.vlm,
                "cache_dir": str(tmp_path / "cache"),
                "concurrency": 4,
            },
        )
    runs = [work.start("annotations") for work in works]
    try:
        until(lambda: all(run.poll() is not None for run in runs), "two runs", 300)
    finally:
        kill_all(processes_in(tmp_path))
    assert [run.returncode for run in runs] == [0, 0]
    sent = [json.dumps(request, sort_keys=True) for request in counting_server.asked]
    assert len(sent) == len(set(sent))
    for stage in ("plan", "interjections", "vqa"):
        file = f"results/demo_v3/{stage}/000000.json"
        expected = finished_demo.json(file)
        for work in works:
            found = work.json(file)
            assert found["events"] == expected["events"]
            assert found["persistent"] == expected["persistent"]
    hits = [
        call["cache_hit"]
        for work in works
        for stage in ("plan", "interjections", "vqa")
        for path in (work.path / f"results/demo_v3/{stage}").glob("*.json")
        for call in json.loads(path.read_text())["provenance"]["calls"]
    ]
    assert hits.count(False) <= len(sent) < 0.6 * len(hits)
    assert list((tmp_path / "cache/claims").iterdir()) == []
