"""The objects that English step labels and tasks name."""

import re
from collections.abc import Iterable

_PARTICLES = {"up", "down", "away", "back", "out", "off", "over", "around", "together", "again"}
_BREAKS = {
    *("and", "then", "or", "into", "onto", "on", "in", "inside", "to", "toward", "towards", "from"),
    *("with", "by", "at", "of", "for", "under", "below", "above", "behind", "beside", "near"),
    *("between", "through", "across", "along", "against", "next", "until", "while", "so", "that"),
}
_DETERMINERS = {
    *("the", "a", "an", "its", "their", "both", "all", "each", "this", "that", "one", "another"),
    *("your", "every", "some", "two", "three"),
}
# Words that name no object when they stand alone.
_NOT_OBJECTS = {
    *("it", "them", "him", "her", "object", "objects", "item", "items", "thing", "things", "task"),
    *("left", "right", "top", "bottom", "side", "front", "end", "start", "position", "step"),
    *("place", "home", "arm", "hand", "robot", "gripper", "open", "closed", "still", "both"),
    "other",
}
_MAX_WORDS = 4
# Second verbs of tasks such as "pick and place the cup".
_VERBS = {
    *("place", "pick", "put", "move", "push", "pull", "open", "close", "lift", "turn", "insert"),
    *("reach", "grasp", "grab", "let", "go", "hold", "drop", "release", "stack", "pour", "slide"),
}
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9'-]*|[,;:.]")


def objects_in(texts: Iterable[str]) -> list[str]:
    """Return the objects that imperative sentences name, each once, in order of appearance.

    "put the red cup into the sink" names "red cup" and "sink". The first word of a sentence is its
    verb. Texts in other scripts yield nothing.
    """
    found: dict[str, None] = {}
    for text in texts:
        if text.isascii():
            found.update(dict.fromkeys(_phrases(text.lower())))
    return list(found)


def _phrases(text: str) -> list[str]:
    phrases: list[str] = []
    words: list[str] = []
    expects_verb = True
    for word in [*_WORD.findall(text), "."]:
        if word in ".,;:" or word in _BREAKS:
            _finish(words, phrases)
            words = []
            expects_verb = word in ".,;:" or word in ("and", "then", "or")
            continue
        is_verb = expects_verb and (word in _VERBS or not phrases)
        expects_verb = False
        if not is_verb and word not in _PARTICLES | _DETERMINERS | _VERBS:
            words.append(word)
    return phrases


def _finish(words: list[str], phrases: list[str]) -> None:
    if words and len(words) <= _MAX_WORDS and words[-1] not in _NOT_OBJECTS:
        phrases.append(" ".join(words))
