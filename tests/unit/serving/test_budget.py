"""A run that has used up its budget sends no further requests, and keeps what it has."""

import asyncio
from itertools import pairwise

import pytest
from chat_server import completion, serving
from gateway_setup import gateway_before

from cuesheet.config.vlm import VlmConfig
from cuesheet.serving.budget import Budget, share_of_budget

VLM = {
    "budget": {"requests": None, "tokens": 1000, "cost": 0.5},
    "price": {"input": 2.0, "output": 10.0, "gpu_hour": 0.0},
}


@pytest.mark.parametrize(
    ("spent", "says"),
    [
        ((3, 900, 99), None),
        ((3, 900, 100), "vlm.budget.tokens is used up: 1,000 of 1,000"),
        ((9, 0, 50_000), "vlm.budget.tokens is used up: 50,000 of 1,000"),
    ],
)
def test_the_limit_that_is_reached_is_named(spent, says):
    assert Budget.of(VLM).exhausted(*spent) == says


def test_the_cost_follows_from_the_prices_of_a_million_tokens():
    budget = Budget.of({**VLM, "budget": {"cost": 0.5}})
    assert budget.exhausted(1, 200_000, 9_999) is None
    assert budget.exhausted(1, 200_000, 10_000) == "vlm.budget.cost is used up: 0.5 of 0.5"


def test_without_limits_nothing_is_ever_used_up():
    assert Budget.of({"budget": {}, "price": {}}).exhausted(10**9, 10**12, 10**12) is None
    assert Budget.of({}) == Budget()


def test_a_shard_gets_its_share_of_the_budget():
    config = {"seed": 1, "vlm": {"model": "m", "budget": {"requests": 10, "cost": 1.0}}}
    shared = share_of_budget(config, 0.25, 0.5)
    assert shared["vlm"] == {"model": "m", "budget": {"requests": 3, "cost": 0.25}}
    assert config["vlm"]["budget"] == {"requests": 10, "cost": 1.0}
    assert share_of_budget({"seed": 1}, 0.5, 1.0) == {"seed": 1}


@pytest.mark.parametrize(("limit", "jobs"), [(10, 3), (10, 64), (5000, 157), (1, 7)])
def test_the_shares_of_all_jobs_add_up_to_the_budget(limit, jobs):
    config = {"vlm": {"budget": {"requests": limit, "tokens": 10 * limit}}}
    edges = [number / jobs for number in range(jobs + 1)]
    shares = [share_of_budget(config, *pair)["vlm"]["budget"] for pair in pairwise(edges)]
    assert sum(share["requests"] for share in shares) == limit
    assert sum(share["tokens"] for share in shares) == 10 * limit
    for share in shares:
        VlmConfig(budget=share)


def test_what_an_earlier_attempt_used_is_subtracted():
    budget = {"requests": 10, "tokens": 5000, "cost": 1.0}
    config = {"vlm": {"budget": budget, "price": {"input": 10.0, "output": 20.0}}}
    sent = {"requests": 3, "prompt_tokens": 2000, "completion_tokens": 1000}
    left = share_of_budget(config, 0.0, 1.0, [{"sent": sent}, {}])["vlm"]["budget"]
    assert left == {"requests": 7, "tokens": 2000, "cost": pytest.approx(0.96)}
    left = share_of_budget(config, 0.0, 1.0, 4 * [{"sent": sent}])["vlm"]["budget"]
    assert (left["requests"], left["tokens"]) == (0, 0)
    said = Budget.of({"budget": left}).exhausted(0, 0, 0)
    assert said == "nothing of vlm.budget.requests is left for this job"


async def test_requests_beyond_the_budget_are_not_sent_and_the_run_is_ended(tmp_path):
    ended = []
    async with (
        serving(lambda body, number: completion("{}")) as server,
        gateway_before(tmp_path, server.url) as running,
    ):
        dispatcher = running.gateway.dispatcher
        dispatcher.budget, dispatcher.on_fatal = Budget(requests=3), ended.append
        bodies = [
            {"model": "m", "messages": [{"role": "user", "content": str(n)}]} for n in "abcde"
        ]
        results = await asyncio.gather(
            *(dispatcher.complete(body, "demo/000000") for body in bodies), return_exceptions=True
        )
    assert server.calls == 3
    failed = [result for result in results if isinstance(result, Exception)]
    assert len(failed) == 2
    assert all("vlm.budget.requests is used up: 3 of 3" in str(error) for error in failed)
    assert len(ended) == 1
