"""A run that has used up its budget sends no further requests, and keeps what it has."""

import asyncio

import pytest
from chat_server import completion, serving
from gateway_setup import gateway_before

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
    shared = share_of_budget(config, 0.25)
    assert shared["vlm"] == {"model": "m", "budget": {"requests": 2, "cost": 0.25}}
    assert config["vlm"]["budget"] == {"requests": 10, "cost": 1.0}
    assert share_of_budget(config, 0.001)["vlm"]["budget"]["requests"] == 1
    assert share_of_budget({"seed": 1}, 0.5) == {"seed": 1}


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
