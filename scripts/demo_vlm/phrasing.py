"""Other ways to say a task, and what a robot or a person says about it."""

import re
from collections.abc import Iterable, Iterator

from demo_vlm.words import (
    DETERMINERS,
    PARTICLES,
    PREPOSITIONS,
    PRONOUNS,
    family_of,
    lower_first,
    parse,
    past_sentence,
    upper_first,
)

# Pairs that can stand for each other in any order a robot is given.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "pick up": ("take", "grab", "lift"),
    "pick": ("take", "grab"),
    "grasp": ("grab", "grip", "take hold of"),
    "grab": ("grasp", "take hold of"),
    "take": ("grab",),
    "lift": ("raise", "lift up"),
    "place": ("put",),
    "put": ("place",),
    "insert": ("fit",),
    "push": ("shove",),
    "open": ("open up",),
    "close": ("shut",),
    "shut": ("close",),
    "press": ("push", "push down on"),
    "move": ("shift",),
    "slide": ("push",),
    "turn": ("rotate", "twist"),
    "rotate": ("turn", "twist"),
    "drop": ("release",),
    "wipe": ("rub",),
    "stack": ("pile",),
}
# How a sentence may begin before any of the wrapping words below.
_OPENINGS = ("okay: ", "when you are ready, ", "first of all, ", "this time, ", "as before, ")
_ORDERS = (
    "please {o}", "{o}, please", "could you {o}?", "your task is to {o}", "go ahead and {o}",
    "I need you to {o}", "can you {o}?", "I would like you to {o}", "now {o}",
    "the goal is to {o}", "robot, {o}", "would you please {o}?", "I want you to {o}", "try to {o}",
    "your job is to {o}", "what I need is for you to {o}", "it is time to {o}", "you should {o}",
    "kindly {o}", "next, {o}", "the task at hand is to {o}", "let me see you {o}",
    "I am asking you to {o}", "be so kind as to {o}", "you are asked to {o}", "you have to {o}",
    "would you mind starting to {o}?", "your aim is to {o}", "start now and {o}",
    "the plan is to {o}", "all you need to do is {o}", "do this: {o}",
)  # fmt: skip
_NOUNS = (
    "your task: {o}", "please do this: {o}", "the task is: {o}", "do the following: {o}",
    "what is to be done: {o}", "robot, this is your task: {o}", "the goal is this: {o}",
    "here is what I need: {o}", "could you do this: {o}?", "now do this: {o}",
    "I would like this done: {o}", "the job is as follows: {o}", "this is wanted: {o}",
    "kindly do the following: {o}", "your job: {o}", "next task: {o}", "carry this out: {o}",
)  # fmt: skip
_ARM = re.compile(
    r"\s*,?\s*\b(?:with|using|by)\s+(?:the|your|its|both|either)?\s*(?:robot'?s?\s+)?"
    r"(?:left|right|both|other)?\s*\b(?:arms?|hands?|grippers?)\b|"
    r"\s*,?\s*\b(?:left|right)-handed(?:ly)?\b|^(?:with|using)\s+(?:the|your)\s+"
    r"(?:left|right)\s+(?:arm|hand|gripper)\s*,\s*",
    re.IGNORECASE,
)
_ORIENTATION = re.compile(
    r"\s*,?\s*\b(?:sideways|upright|horizontally|vertically|upside[ -]down|(?:counter)?clockwise|"
    r"face (?:up|down)|(?:from|facing)\s+(?:the\s+)?(?:top|above|below|side|left|right|front|back|"
    r"up|down)(?:\s+side)?|at an angle|lengthwise|in an upright position)\b",
    re.IGNORECASE,
)
_GRASP = re.compile(
    r"\s*,?\s*\b(?:by|at)\s+(?:the|its)\s+\w+(?=$|[ ,.])|"
    r"\s*,?\s*\b(?:with|using)\s+(?:a|the)\s+(?:\w+\s+)?(?:grasp|grip|pinch)\b|"
    r"\s*\b(?:gently|firmly|tightly|carefully)\b",
    re.IGNORECASE,
)


def rephrasings(text: str, wanted: int, seen: Iterable[str] = ()) -> list[str]:
    """`wanted` sentences that ask for the same, all different, none equal to `text` or `seen`."""
    taken = {_key(text), *map(_key, seen)}
    found: list[str] = []
    for sentence in _candidates(text):
        if len(found) >= wanted:
            break
        if _key(sentence) not in taken:
            taken.add(_key(sentence))
            found.append(sentence)
    return found


def axis_rephrasings(text: str, axes: dict[str, int]) -> dict[str, list[str]]:
    """For each axis so many sentences; all of them differ from each other and from `text`."""
    removed = {
        "synonym": text,
        "omit_arm": _ARM.sub("", text),
        "omit_orientation": _ORIENTATION.sub("", text),
        "omit_grasp": _GRASP.sub("", text),
        "combined": _GRASP.sub("", _ORIENTATION.sub("", _ARM.sub("", text))),
    }
    seen = [text]
    result = {}
    for axis, wanted in axes.items():
        shorter = " ".join(removed.get(axis, text).split()) or text
        found = []
        if wanted and _key(shorter) not in {_key(sentence) for sentence in seen}:
            found = [_sentence(shorter)]
        found += rephrasings(shorter, wanted - len(found), [*seen, *found])
        seen += found
        result[axis] = found
    return result


def _key(sentence: str) -> str:
    return re.sub(r"[^\w]+", " ", sentence.lower()).strip()


def _sentence(text: str) -> str:
    text = upper_first(" ".join(text.split()).strip())
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _candidates(text: str) -> Iterator[str]:
    task = parse(text)
    order = task.order
    if not order:
        return
    is_order = family_of(order.split()[0]) is not None
    variants = [order, *_swapped(order)] if is_order else [order]
    yield from (_sentence(variant) for variant in variants[1:])
    # One variant after the other, so that wrapping words and synonyms both vary from the start.
    wraps = _ORDERS if is_order else _NOUNS
    for turn in range(len(variants)):
        for index, wrap in enumerate(wraps):
            yield _sentence(wrap.format(o=variants[(turn + index) % len(variants)]))
    for opening in _OPENINGS:
        for wrap in wraps:
            yield _sentence(opening + wrap.format(o=order))


def _swapped(order: str) -> list[str]:
    """The order with its verbs, one or all, in other words."""
    found = []
    pair = re.fullmatch(
        r"(pick|grasp|grab) and (place|put) (.+?) (to|in|into|on|onto|at) (.+)", order
    )
    if pair:
        take, put, thing, where, goal = pair.groups()
        found.append(
            f"{take} up {thing} and {put} it {where} {goal}"
            if take == "pick"
            else f"{take} {thing} and {put} it {where} {goal}"
        )
        found.append(f"take {thing} and put it {where} {goal}")
    verbs = [verb for verb in SYNONYMS if re.search(rf"(?:^|\band ){re.escape(verb)}\b", order)]
    verbs = [v for v in verbs if not any(v != w and w.startswith(f"{v} ") for w in verbs)]
    for round_ in range(3):
        changed = order
        for verb in verbs:
            options = SYNONYMS[verb]
            if round_ >= len(options):
                continue
            # "Turn on the light" is not "rotate on the light".
            pattern = rf"(^|\band ){re.escape(verb)}\b(?! (?:on|off|out|over|and)\b)"
            changed = re.sub(pattern, rf"\g<1>{options[round_]}", changed, count=1)
        if changed != order:
            found.append(changed)
    definite = re.sub(r"\b(?:a|an) (?=\w)", "the ", order)
    if definite != order:
        found.append(definite)
    return list(dict.fromkeys(found))


def task_reply(text: str) -> str:
    """What the robot says when it is given the task `text`."""
    task = parse(text)
    order = task.order
    if not order:
        return "Okay, I am starting now."
    if family_of(order.split()[0]) is None:
        return f"Okay, I am starting on this: {order}."
    return f"Okay, I will {order}."


def interjection(coming: str, last: str) -> tuple[str, str]:
    """What a person says to ask for the step `coming`, and what the robot answers."""
    order = lower_first(coming.strip().rstrip(".!?")) or "go on"
    other = (_swapped(order) or [order])[0]
    forms = (
        "Now {o}, please.", "Could you {o} now?", "Please {o} next.", "All right, {o}.",
        "Next I would like you to {o}.",
    )  # fmt: skip
    # Which form is a matter of the words alone: the same request gets the same answer.
    asked = forms[sum(map(ord, order + last)) % len(forms)].format(o=other)
    if family_of(order.split()[0]) is None and order.split()[0] not in ("let", "line", "continue"):
        return f"Next step: {order}, please.", "Okay, I will do that now."
    return asked, f"Sure, I will {order}."


# How a step begins that leaves nothing behind which later steps depend on.
_PASSING = ("i reached", "i moved away", "i lined up", "i approached", "i moved the arm", "i went")
MAX_SENTENCES = 3


def memory(before: str, finished: str) -> str:
    """The memory so far and the step just finished, at most MAX_SENTENCES sentences.

    Steps that only moved the arm are dropped as soon as there is something else to remember.
    """
    kept = [part.strip() for part in re.split(r"(?<=[.!?])\s+", before.strip()) if part.strip()]
    new = past_sentence(finished)
    kept = [part for part in kept if not part.lower().startswith(_PASSING)]
    if kept and new.lower().startswith(_PASSING[1:2]):
        return " ".join(kept[-MAX_SENTENCES:])
    if new in kept:
        kept.remove(new)
    return " ".join([*kept, new][-MAX_SENTENCES:])


def share_a_word(first: str, second: str) -> bool:
    """Whether two labels have a word in common that is no article, preposition or particle."""
    small = DETERMINERS | PREPOSITIONS | PARTICLES | PRONOUNS
    parts = [set(re.findall(r"\w+", text.lower())) - small for text in (first, second)]
    return bool(parts[0] & parts[1])
