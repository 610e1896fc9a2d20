"""Limits of what one run may request (`vlm.budget`)."""

from collections.abc import Mapping
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
            if limit is not None and spent >= limit:
                return f"vlm.budget.{name} is used up: {round(spent, 4):,} of {limit:,}"
        return None


def share_of_budget(config: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Return a run's settings with `share` (0 to 1) of its budget, for one of its shards."""
    vlm = dict(config.get("vlm") or {})
    budget = dict(vlm.get("budget") or {})
    for name, limit in budget.items():
        if isinstance(limit, int | float):
            budget[name] = limit * share if name == "cost" else max(1, round(limit * share))
    return {**config, "vlm": {**vlm, "budget": budget}} if budget else dict(config)
