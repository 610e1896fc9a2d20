"""Agreement of two labels. Definitions: docs/evaluation.md."""

import re
from collections import Counter

_LEFT_OUT = frozenset(("a", "an", "the"))


def normalized(text: str) -> str:
    """Lower case, words and numbers only, without articles, one space between them."""
    return " ".join(word for word in re.findall(r"\w+", text.casefold()) if word not in _LEFT_OUT)


def is_exact(first: str, second: str) -> bool:
    """Whether two labels are the same once normalized; two empty ones are not."""
    return normalized(first) == normalized(second) != ""


def token_f1(first: str, second: str) -> float:
    """F1 of the words of two labels, counted as often as they occur; 0 where one is empty."""
    words, others = Counter(normalized(first).split()), Counter(normalized(second).split())
    shared = (words & others).total()
    return 2 * shared / (words.total() + others.total()) if shared else 0.0
