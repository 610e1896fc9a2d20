"""Verbs and objects of subtask labels, and whether two labels agree in them.

The parser knows imperative English labels such as "pick up the red block and place it in the bowl".
It uses word lists, not a language model: docs/evaluation.md states the rules.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

_WORDS = {
    "determiners": "a an the this that these those its his her their some each both",
    "pronouns": "it them itself him one ones",
    "prepositions": """to into onto in on from with of at by above below under underneath near
        toward towards until through around across along against between behind beside inside
        outside for over upon while before after using via next past within without""",
    "particles": "up down away off out back over apart together open closed shut",
}
_DETERMINERS, _PRONOUNS, _PREPOSITIONS, _PARTICLES = (
    frozenset(words.split()) for words in _WORDS.values()
)
# Prepositions that are particles after certain verbs: "turn on the lamp".
_VERBS_WITH_PARTICLE = {
    "on": frozenset(("turn", "switch", "put", "power")),
    "in": frozenset(("plug", "screw", "push")),
}
_FIXED_VERBS = ("let go of", "let go", "take hold of", "get hold of", "make contact with")
_ALIASES = {"pick": "pick up"}
_CONJUNCTIONS = frozenset(("and", "then", "or", "but"))
_SUBJECT = re.compile(r"^(?:the |a )?(?:robot|arm|gripper|robot arm|robot gripper) (?=\w+s\b)")


@dataclass(frozen=True)
class LabelParts:
    """The actions and the objects that a label names.

    Attributes:
        verbs: one per clause, in lower case, with its particle: `pick up`.
        objects: noun phrases without articles, in order: `red block`, `bowl`.
    """

    verbs: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()


@functools.lru_cache(maxsize=20_000)
def parse_label(label: str) -> LabelParts:
    """Return the verbs and objects of a label."""
    text = _SUBJECT.sub("", " ".join(re.findall(r"[\w'-]+", label.casefold())))
    verbs: list[str] = []
    objects: list[str] = []
    for clause in _clauses(text.split()):
        verb, rest = _take_verb(clause)
        if verb:
            verbs.append(verb)
        objects += _noun_phrases(rest)
    return LabelParts(tuple(verbs), tuple(objects))


def first_verb(label: str) -> str:
    """Return the first verb of a label with its particle, or an empty string."""
    return next(iter(parse_label(label).verbs), "")


def same_verbs(first: str, second: str) -> bool:
    """Return whether two labels have the same verbs in the same order, whatever their endings."""
    verbs, others = parse_label(first).verbs, parse_label(second).verbs
    return [_stem_verb(verb) for verb in verbs] == [_stem_verb(verb) for verb in others]


def same_objects(first: str, second: str) -> bool:
    """Return whether the objects that both labels name, compared in order, do not contradict.

    Two noun phrases agree if their last words are equal and all further words of one are in the
    other: `block` agrees with `red block`, but `red block` does not agree with `blue block`. A
    label that names no object does not agree with one that names some.
    """
    objects, others = parse_label(first).objects, parse_label(second).objects
    if bool(objects) != bool(others):
        return False
    return all(_same_thing(a, b) for a, b in zip(objects, others, strict=False))


def has_object(label: str) -> bool:
    """Return whether a label names an object."""
    return bool(parse_label(label).objects)


def _same_thing(first: str, second: str) -> bool:
    *modifiers, head = map(_stem_noun, first.split())
    *others, other_head = map(_stem_noun, second.split())
    subset = set(modifiers) <= set(others) or set(others) <= set(modifiers)
    return head == other_head and subset


def _clauses(words: list[str]) -> Iterator[list[str]]:
    """Split at a conjunction if a verb follows it: "and place it", but not "and the plate"."""
    clause: list[str] = []
    for index, word in enumerate(words):
        if word in _CONJUNCTIONS and _starts_clause(words[index + 1 :]):
            yield clause
            clause = []
        else:
            clause.append(word)
    yield clause


def _starts_clause(words: list[str]) -> bool:
    if words and words[0] in _CONJUNCTIONS:  # "and then"
        words = words[1:]
    if len(words) < 2 or words[0] in _DETERMINERS | _PRONOUNS | _PREPOSITIONS:
        return False
    return words[1] in _DETERMINERS | _PRONOUNS | _PREPOSITIONS | _PARTICLES


def _take_verb(words: list[str]) -> tuple[str, list[str]]:
    """Return the verb of a clause, particle included, and the words after it."""
    while words and (words[0].endswith("ly") or words[0] in _CONJUNCTIONS):
        words = words[1:]
    text = " ".join(words)
    for fixed in _FIXED_VERBS:
        if f"{text} ".startswith(f"{fixed} "):
            return fixed, words[len(fixed.split()) :]
    if not words:
        return "", []
    verb, rest = words[0], words[1:]
    for place in (0, len(rest) - 1):  # "turn on the lamp", "turn the lamp on"
        if rest and _is_particle(verb, rest[place]):
            return f"{verb} {rest[place]}", rest[:place] + rest[place + 1 :]
    return _ALIASES.get(verb, verb), rest


def _is_particle(verb: str, word: str) -> bool:
    return word in _PARTICLES or _stem(verb) in map(_stem, _VERBS_WITH_PARTICLE.get(word, ()))


def _noun_phrases(words: list[str]) -> Iterator[str]:
    phrase: list[str] = []
    separators = _DETERMINERS | _PRONOUNS | _PREPOSITIONS | _PARTICLES | _CONJUNCTIONS
    for word in [*words, "and"]:
        if word in separators or word.endswith("ly"):
            if phrase:
                yield " ".join(phrase)
            phrase = []
        else:
            phrase.append(word)


def _stem_verb(verb: str) -> str:
    word, _, particle = verb.partition(" ")
    alias = _ALIASES if not particle else {}
    stems = {_stem(short): full for short, full in alias.items()}
    return stems.get(_stem(word)) or f"{_stem(word)} {particle}".strip()


def _stem(word: str) -> str:
    """Cut inflections off a verb: place, places, placed and placing all become `plac`."""
    for ending in ("ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 2:
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "sl":  # gripp(ing), but press
        word = word[:-1]
    return word


def _stem_noun(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word
