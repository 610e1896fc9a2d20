"""Several prompt folders in one run: only requests that differ are sent twice."""

import shutil
from collections import Counter

import pytest
from workflow_runs import REPOSITORY, CountingServer, Workdir

from cuesheet.report.compare import compare

pytestmark = pytest.mark.workflow


def test_variants_of_the_prompts_share_every_call_that_is_the_same(
    workdir: Workdir, counting_server: CountingServer, demo_v3, tmp_path
):
    variant = tmp_path / "prompts"
    shutil.copytree(REPOSITORY / "config" / "prompts", variant)
    memory = variant / "plan_memory.md"
    memory.write_text(memory.read_text() + "\nOne short sentence.\n")
    workdir.configure(
        dataset={
            "usual": str(demo_v3),
            "brief": {"path": str(demo_v3), "prompts_dir": str(variant)},
        },
        episodes=[0],
        vlm=counting_server.vlm,
    )
    workdir.run("annotations")
    bodies = [repr(request["messages"]) for request in counting_server.asked]
    assert len(set(bodies)) == len(bodies)
    kinds = Counter(counting_server.kinds())
    assert kinds["Segmentation"] == kinds["Description"] == 1
    plans = [workdir.json(f"results/{name}/plan/000000.json") for name in ("usual", "brief")]
    memories = len(plans[0]["subtasks"]) - 1
    assert memories > 0
    assert kinds["Memory"] == 2 * memories
    assert plans[0]["provenance"]["prompts"] != plans[1]["provenance"]["prompts"]
    results = workdir.path / "results"
    assert "all runs have: 1" in compare([results / "usual", results / "brief"])
