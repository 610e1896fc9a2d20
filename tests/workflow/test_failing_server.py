"""A model server of which every fifth call fails, in mixed ways: the dataset is the same."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pyarrow.parquet as pq
import pytest
from chat_server import serving
from faults import FAULTS, Plan
from processes import PATIENCE_S

from cuesheet.artifacts.stage_files import STAGES

pytestmark = pytest.mark.workflow

DATA = "results/demo_v3/annotated/data/chunk-000/file-000.parquet"
# All that a call recovers from. The demo model gives a correction the answer that it gave to
# the question. One kind of hang will do: each costs the whole time limit of a call.
KINDS = [
    kind
    for kind, fault in FAULTS.items()
    if fault.once in ("retried", "corrected", "read") and kind != "hang within the body"
]


@contextmanager
def faulty(upstream: str, plan: Plan) -> Iterator[str]:
    """The address of a server that passes calls on to `upstream` but for those of the plan."""
    addresses: list[str] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def run() -> None:
        async with aiohttp.ClientSession() as http:

            async def behave(body, number):
                # A second reply that cannot be used would be recorded as invalid.
                correcting = any(message["role"] == "assistant" for message in body["messages"])
                fault = None if correcting else plan.fault(body)
                async with http.post(f"{upstream}/v1/chat/completions", json=body) as response:
                    good = await response.json()
                return fault.spoil(good) if fault else good

            async with serving(behave, key=None, model="cuesheet-demo-1") as server:
                addresses.append(server.url)
                ready.set()
                await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(PATIENCE_S)


def annotated_rows(work):
    return {
        (stage, path.stem): {
            part: work.json(f"results/demo_v3/{stage}/{path.name}").get(part)
            for part in ("persistent", "events", "subtasks", "pairs", "warnings")
        }
        for stage in STAGES
        for path in sorted((work.path / "results/demo_v3" / stage).glob("*.json"))
    }


def test_with_a_fifth_of_the_calls_failing_the_dataset_is_the_same(
    workdir, finished_demo, demo_vlm_url, demo_v3
):
    plan = Plan(seed=1, share=0.2, kinds=KINDS)
    with faulty(demo_vlm_url, plan) as url:
        workdir.configure(
            dataset=str(demo_v3),
            vlm={
                "serve": "external",
                "model": "cuesheet-demo-1",
                "base_urls": [url],
                "timeout_s": 8,
            },
        )
        workdir.run()
    calls = [
        call
        for stage in STAGES
        for path in (workdir.path / "results/demo_v3" / stage).glob("*.json")
        for call in workdir.json(f"results/demo_v3/{stage}/{path.name}")["provenance"]["calls"]
    ]
    asked = {call["key"] for call in calls}
    print(f"{len(plan.struck)} of {len(asked)} requests struck: {dict(plan.injected)}")
    assert len(plan.struck) >= 0.1 * len(asked)
    assert len(plan.injected) >= 8
    assert sum(call["attempts"] for call in calls) > len(asked)
    assert {call["outcome"] for call in calls} == {"ok", "retried"}

    assert annotated_rows(workdir) == annotated_rows(finished_demo)
    table = pq.read_table(workdir.path / DATA)
    assert table.equals(pq.read_table(finished_demo.path / DATA))
    info = "results/demo_v3/annotated/meta/info.json"
    assert workdir.json(info) == finished_demo.json(info)
