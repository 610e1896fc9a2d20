"""Reads JSON of models and servers, which may have NaN, infinity and raw control characters."""

import json
import math
from typing import Any


def load_finite(text: str | bytes) -> Any:
    """Read JSON without NaN and infinity. Raises ValueError, RecursionError."""
    # Not strict: with `maxLength`, vLLM's grammar allows raw control characters in strings.
    return json.loads(text, strict=False, parse_constant=_reject, parse_float=_finite)


def load_with_nulls(text: str) -> Any:
    """Read JSON with None for NaN and infinity. Raises ValueError, RecursionError."""
    return json.loads(
        text, strict=False, parse_constant=lambda name: None, parse_float=_finite_or_none
    )


def _reject(name: str) -> Any:
    raise ValueError(f"{name} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _reject(text)
    return value


def _finite_or_none(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None
