"""A run is reproduced from its cache without a model server, or names what is not cached."""

import re
import shutil

import pytest
from workflow_runs import contents

pytestmark = pytest.mark.workflow

DATA = "results/demo_v3/annotated/data/chunk-000/file-000.parquet"
REPLAY = {"serve": "replay", "model": "cuesheet-demo-1"}


def annotated_files(work):
    return contents(work.path / "results/demo_v3/annotated")


@pytest.fixture
def published(finished_demo, tmp_path, demo_v3):
    """A copy of a finished run, without its results; nothing but the cache is left."""
    work = finished_demo.copy_to(tmp_path / "published")
    shutil.rmtree(work.path / "results")
    shutil.rmtree(work.path / ".cuesheet")
    shutil.rmtree(work.path / ".snakemake")
    work.configure(dataset=str(demo_v3), vlm=REPLAY)
    return work


def test_a_published_run_is_reproduced_bit_for_bit_without_a_server(published, finished_demo):
    published.run()
    assert annotated_files(published) == annotated_files(finished_demo)
    runs = list((published.path / ".cuesheet/runs").iterdir())
    assert len(runs) == 1
    assert not list(runs[0].glob("replica-*"))
    summary = published.json("results/demo_v3/summary.json")
    assert summary["calls"]["cache_hits"] == summary["calls"]["total"] > 0
    assert summary["models"] == [{"name": "cuesheet-demo-1", "served_by": "replay"}]


def test_an_answer_that_is_missing_is_named_and_nothing_is_made_up(
    published, finished_demo, demo_v3
):
    published.configure(dataset=str(demo_v3), vlm=REPLAY, episodes=[0, 1])
    calls = finished_demo.json("results/demo_v3/plan/000001.json")["provenance"]["calls"]
    call = next(call for call in calls if call["name"].startswith("segment"))
    key = call["key"]
    (published.path / ".cache/vlm" / key[:2] / f"{key}.json").unlink()
    done = published.run("--keep-going", check=False)
    assert done.returncode != 0
    assert re.search(
        rf"call 'segment[^']*' \(demo_v3/000001\).*not in the cache.*{key}", done.output
    )
    assert "vlm.serve" in done.output
    assert "Traceback" not in done.output
    results = published.path / "results/demo_v3"
    assert {path.stem for path in (results / "plan").iterdir()} == {"000000"}
    assert not (published.path / DATA).exists()
    failed = published.json("results/demo_v3/failed/annotate_plan/000001.json")
    assert failed["call"]["key"] == key
    assert failed["call"]["outcome"] == "failed"
