"""Limits of what one run may request (`vlm.budget`)."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Budget:
    """Maximum requests, tokens and cost of a run; None: no limit. Prices are per million tokens."""

    requests: int | None = None
    tokens: int | None = None
    cost: float | None = None
    input_price: float = 0.0
    output_price: float = 0.0

    @classmethod
    def of(cls, vlm: Mapping[str, Any]) -> "Budget":
        """Return the budget of the settings `vlm.budget` and `vlm.price`."""
        price = vlm.get("price") or {}
        return cls(
            **(vlm.get("budget") or {}),
            input_price=price.get("input", 0.0),
            output_price=price.get("output", 0.0),
        )

    def exhausted(self, requests: int, prompt_tokens: int, reply_tokens: int) -> str | None:
        """Return which limit is reached, in words, or None."""
        tokens = prompt_tokens + reply_tokens
        cost = (prompt_tokens * self.input_price + reply_tokens * self.output_price) / 1e6
        for name, spent, limit in (
            ("requests", requests, self.requests),
            ("tokens", tokens, self.tokens),
            ("cost", cost, self.cost),
        ):
            if limit == 0:
                return f"nothing of vlm.budget.{name} is left for this job"
            if limit is not None and spent >= limit:
                return f"vlm.budget.{name} is used up: {round(spent, 4):,} of {limit:,}"
        return None


def share_of_budget(
    config: Mapping[str, Any],
    start: float,
    end: float,
    usages: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return a run's settings with the budget of one of its jobs.

    The share of the job is [start, end) of 0 to 1; the shares of all jobs, even very small ones,
    add up to the budget. What earlier attempts of the job used (`usage.json`) is subtracted.
    """
    vlm = dict(config.get("vlm") or {})
    budget = dict(vlm.get("budget") or {})
    spent = _spent(usages, vlm.get("price") or {})
    for name, limit in budget.items():
        if isinstance(limit, int | float):
            # Floating-point sums of shares miss whole numbers.
            first, last = (round(limit * edge, 6) for edge in (start, end))
            share = last - first if name == "cost" else math.floor(last) - math.floor(first)
            budget[name] = max(0, share - spent[name])
    return {**config, "vlm": {**vlm, "budget": budget}} if budget else dict(config)


def _spent(usages: Iterable[Mapping[str, Any]], price: Mapping[str, Any]) -> Counter[str]:
    spent = Counter[str]()
    for usage in usages:
        sent = Counter(usage.get("sent") or {})
        prompt, reply = sent["prompt_tokens"], sent["completion_tokens"]
        cost = (prompt * price.get("input", 0.0) + reply * price.get("output", 0.0)) / 1e6
        spent.update({"requests": sent["requests"], "tokens": prompt + reply, "cost": cost})
    return spent
