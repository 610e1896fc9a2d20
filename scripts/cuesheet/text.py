"""Text helpers: the closest valid name, ranges of episode numbers, comparison of labels."""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

_ARTICLES = frozenset(("a", "an", "the"))
# Texts that people leave in the task field while they try something out.
_PLACEHOLDERS = {"debug", "test", "tbd", "todo", "n/a", "na", "untitled", "default"}


def is_placeholder(task: str) -> bool:
    """Return whether a task is empty or a placeholder such as "test" or "todo"."""
    return task.strip().strip(".").casefold() in {"", *_PLACEHOLDERS}


def did_you_mean(wrong: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the name in `names` that was most likely meant, or None.

    Case and dashes do not count, and `front` finds `observation.images.front`.
    """
    by_plain = {_plain(name): name for name in names}
    plain = _plain(wrong)
    if plain in by_plain:
        return by_plain[plain]
    ends = [name for one, name in by_plain.items() if plain and one.endswith(f".{plain}")]
    if len(ends) == 1:
        return ends[0]
    near = difflib.get_close_matches(plain, by_plain, n=1, cutoff=cutoff)
    if near:
        return by_plain[near[0]]
    last_parts = {one.rpartition(".")[2]: name for one, name in by_plain.items()}
    near = difflib.get_close_matches(plain.rpartition(".")[2], last_parts, n=1, cutoff=cutoff)
    return last_parts[near[0]] if near else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def as_ranges(episodes: Collection[int]) -> str:
    """Write {0, 3, 5, 6, 7} as `0, 3, 5-7`, the way `episodes` is written."""
    ranges = to_ranges(episodes)
    words = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    if len(words) > 12:
        words = [*words[:10], "...", words[-1]]
    return ", ".join(words)


def counted(count: int, noun: str) -> str:
    """Write a number with its noun: "1 file", "1,200 files", "2 entries"."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def describe_range(episode_indices: Iterable[int]) -> str:
    """Return episode numbers in words: "episodes 0 to 11", or with gaps "episodes 0-3, 5, 7-9"."""
    numbers = sorted(episode_indices)
    if not numbers:
        return "no episodes"
    if len(numbers) > 1 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"episodes {numbers[0]} to {numbers[-1]}"
    return f"episode{'s' if len(numbers) > 1 else ''} {as_ranges(numbers)}"


def to_ranges(episodes: Iterable[int]) -> list[list[int]]:
    """Return [[0, 3], [7, 7]] for 0, 1, 2, 3, 7."""
    ranges: list[list[int]] = []
    for index in sorted(episodes):
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ranges


def from_ranges(ranges: Iterable[Sequence[int]]) -> list[int]:
    """Return the numbers in the ranges of `to_ranges`."""
    return [index for first, last in ranges for index in range(first, last + 1)]


def normalized(text: str) -> str:
    """Return the words and numbers of a text in lower case, without articles and punctuation."""
    return " ".join(word for word in re.findall(r"\w+", text.casefold()) if word not in _ARTICLES)


def is_exact(first: str, second: str) -> bool:
    """Tell whether two labels are equal after normalization; two empty ones are not."""
    return normalized(first) == normalized(second) != ""


def token_f1(first: str, second: str) -> float:
    """Return the F1 of the words of two labels, with repetitions; 0 if one label is empty."""
    words, others = Counter(normalized(first).split()), Counter(normalized(second).split())
    shared = (words & others).total()
    return 2 * shared / (words.total() + others.total()) if shared else 0.0
