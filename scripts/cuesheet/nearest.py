"""The nearest right name to a wrong one."""

import difflib
from collections.abc import Iterable


def nearest(wrong: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name in `names` that was most likely meant, or None.

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
