"""Checks of the lists of labels in `plan.vocabulary`."""

from typing import Any

MAX_LABEL_WORDS = 8


def check_vocabulary(value: Any) -> Any:
    """Return the setting unchanged. Raises ValueError if a list of labels is not usable."""
    if isinstance(value, str):
        return value
    lists = value if isinstance(value, dict) else {"": value}
    for task, labels in lists.items():
        place = f"task {task!r}: " if task else ""
        if not labels:
            raise ValueError(f"{place}the list is empty; write `off` for any labels")
        _check_labels(labels, place)
    return value


def _check_labels(labels: list[str], place: str) -> None:
    seen: set[str] = set()
    for label in labels:
        words = label.split()
        if not words:
            raise ValueError(f"{place}a label is empty; remove it")
        if len(words) > MAX_LABEL_WORDS:
            raise ValueError(
                f"{place}the label {label!r} has {len(words)} words; a label has at most "
                f"{MAX_LABEL_WORDS}"
            )
        key = " ".join(words).casefold()
        if key in seen:
            raise ValueError(f"{place}the label {label!r} is there twice; remove one")
        seen.add(key)
