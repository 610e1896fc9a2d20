"""The words of a task: its clauses, verbs and things."""

import re
from dataclasses import dataclass, replace

# Verbs by what they do; the first of a family stands for it.
FAMILIES: dict[str, tuple[str, ...]] = {
    "grasp": ("grasp", "grab", "pick", "take", "lift", "hold", "fetch", "get", "raise", "grip"),
    "place": (
        "place", "put", "set", "drop", "lay", "stack", "insert", "plug", "return", "deposit",
        "leave", "bring", "carry", "move", "transfer", "deliver", "hang", "load", "store",
        "throw", "toss",
    ),
    "push": ("push", "slide", "sweep", "shove", "nudge", "wipe", "drag", "pull", "roll", "clean"),
    "open": ("open", "unlock", "uncover", "unfold"),
    "close": ("close", "shut", "lock", "cover", "fold"),
    "press": ("press", "tap", "hit", "touch", "poke", "click"),
    "turn": ("turn", "rotate", "twist", "flip", "screw", "unscrew", "spin", "tilt", "pour"),
    "reach": ("reach", "approach", "go"),
    "other": (
        "arrange", "assemble", "attach", "build", "cut", "detach", "disassemble", "empty", "fill",
        "find", "give", "hammer", "hand", "kick", "mix", "organize", "pack", "play", "remove",
        "separate", "shake", "sort", "stir", "tidy", "throw", "use", "wash", "water", "wrap",
        "zip", "unzip", "unplug", "unstack", "align", "scoop", "serve", "switch", "balance",
    ),
}  # fmt: skip
FAMILY_OF = {verb: family for family, verbs in reversed(FAMILIES.items()) for verb in verbs}
PARTICLES = {"up", "down", "out", "off", "away", "over", "back", "on"}
PREPOSITIONS = {
    "to", "into", "in", "onto", "on", "from", "with", "at", "inside", "under", "over", "between",
    "next", "behind", "beside", "off", "out", "by", "against", "through", "towards", "toward",
    "using", "above", "below", "near", "for", "across", "along", "without", "so", "until",
}  # fmt: skip
ADVERBS = {
    "sideways", "upright", "horizontally", "vertically", "upside", "clockwise", "counterclockwise",
    "gently", "slowly", "carefully", "quickly", "fully", "completely", "halfway", "again",
    "forward", "backward", "forwards", "backwards", "left", "right",
}  # fmt: skip
DETERMINERS = {"a", "an", "the", "this", "that", "these", "those", "some", "all", "both", "each"}
PRONOUNS = {"it", "them", "one"}
MASSES = ("everything", "something", "anything")


@dataclass(frozen=True)
class Clause:
    """`grasp the cover`: verb "grasp", thing "the cover", rest "". `verb` keeps its particle."""

    verb: str
    family: str
    thing: str
    rest: str

    def imperative(self) -> str:
        """The clause as an order, lower case."""
        return " ".join(part for part in (self.verb, self.thing, self.rest) if part)


@dataclass(frozen=True)
class Task:
    """A task and its clauses; no clause where it does not begin with a verb that is known."""

    text: str
    clauses: tuple[Clause, ...]

    @property
    def thing(self) -> str:
        """What is handled, with its determiner, or "" where the words do not say."""
        for clause in self.clauses:
            if clause.thing:
                return clause.thing
        return ""

    @property
    def order(self) -> str:
        """The task as the end of "I will ...": no capital letter, no final stop."""
        return lower_first(self.text.strip().rstrip(".!?").strip())


def lower_first(text: str) -> str:
    """Small first letter, unless the first word is one of capitals or "I"."""
    first = text.split(" ", 1)[0]
    return text if len(first) > 1 and first.isupper() else text[:1].lower() + text[1:]


def upper_first(text: str) -> str:
    """Capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def parse(text: str) -> Task:
    """Take the words of a task apart; any text is accepted."""
    text = " ".join(text.replace("_", " ").split())
    clauses: list[Clause] = []
    body = re.sub(r"^(please|robot)[, ]+", "", text.strip().rstrip(".!?"), flags=re.IGNORECASE)
    for piece in _split(body):
        clause = _clause(piece)
        if clause is not None:
            clauses.append(clause)
        elif clauses:
            last = clauses[-1]
            clauses[-1] = replace(last, rest=f"{last.rest} and {piece}".strip())
    # "Pick and place a puck": the first verb takes the thing of the next.
    for index in range(len(clauses) - 2, -1, -1):
        if not clauses[index].thing and not clauses[index].rest:
            clauses[index] = replace(clauses[index], thing=clauses[index + 1].thing)
    return Task(text, tuple(clauses))


def _split(text: str) -> list[str]:
    pieces = re.split(
        r"(?:\s*[,;.]\s*|\s+)(?:and then|then|and|before|after that)\s+|[,;]\s*", text
    )
    joined: list[str] = []
    for piece in pieces:
        piece = piece.strip()
        if not piece:
            continue
        if joined and family_of(piece.split()[0]) is None:
            joined[-1] += f" and {piece}"
        else:
            joined.append(piece)
    return joined


def family_of(verb: str) -> str | None:
    """The family of an imperative verb, or None where it is not known."""
    return FAMILY_OF.get(verb.lower())


def _clause(piece: str) -> Clause | None:
    words = piece.split()
    family = family_of(words[0])
    if family is None:
        return None
    verb, rest = words[0].lower(), words[1:]
    if rest and rest[0].lower() in PARTICLES and not (len(rest) > 1 and rest[0] in {"on", "over"}):
        verb, rest = f"{verb} {rest[0].lower()}", rest[1:]
    cut = len(rest)
    for index, word in enumerate(rest):
        lower = word.lower()
        # "the left button": what stands between a determiner and its noun is no adverb.
        loose = index + 1 == len(rest) or rest[index + 1].lower() in PREPOSITIONS | {"down"}
        if lower in PREPOSITIONS or (lower in ADVERBS and (loose or index == 0)):
            cut = index
            break
    thing = " ".join(rest[:cut])
    tail = rest[cut:]
    if thing and thing.split()[-1].lower() in PARTICLES and len(thing.split()) > 1:
        head, _, particle = thing.rpartition(" ")
        verb, thing = f"{verb} {particle.lower()}", head
    return Clause(verb, family, _definite(thing), " ".join(_definite_inside(tail)))


def _definite(noun: str) -> str:
    """`a puck` and `puck` become `the puck`; pronouns and other determiners stay."""
    words = noun.split()
    if not words:
        return ""
    first = words[0].lower()
    if first in {"a", "an"}:
        return " ".join(["the", *words[1:]])
    if first in DETERMINERS | PRONOUNS or first.isdigit() or first in MASSES:
        return " ".join([first, *words[1:]])
    return f"the {noun}"


def _definite_inside(words: list[str]) -> list[str]:
    return ["the" if word.lower() in {"a", "an"} else word for word in words]


def bare(noun: str) -> str:
    """A noun without its determiner."""
    words = noun.split()
    return " ".join(words[1:] if words and words[0].lower() in DETERMINERS else words)


_IRREGULAR = {
    "bring": "brought", "build": "built", "cut": "cut", "find": "found", "get": "got",
    "give": "gave", "go": "went", "hang": "hung", "hit": "hit", "hold": "held", "keep": "kept",
    "lay": "laid", "leave": "left", "let": "let", "make": "made", "put": "put", "set": "set",
    "shut": "shut", "spin": "spun", "sweep": "swept", "take": "took", "throw": "threw",
    "shake": "shook", "do": "did", "stand": "stood", "slide": "slid", "feed": "fed",
    "stick": "stuck", "draw": "drew", "drive": "drove", "tear": "tore", "hide": "hid",
    "catch": "caught", "see": "saw",
}  # fmt: skip
_DOUBLED = {"grab", "drop", "grip", "tap", "flip", "drag", "stop", "wrap", "zip", "unzip", "plug",
            "unplug", "stir", "scrub", "dip", "snap", "strip", "swap", "clip", "pin"}  # fmt: skip


def past(verb: str) -> str:
    """The past tense of a base form."""
    lower = verb.lower()
    if lower in _IRREGULAR:
        return _IRREGULAR[lower]
    if lower in _DOUBLED:
        return f"{lower}{lower[-1]}ed"
    if lower.endswith("e"):
        return f"{lower}d"
    if lower.endswith("y") and lower[-2:-1] not in "aeiou":
        return f"{lower[:-1]}ied"
    return f"{lower}ed"


def past_sentence(order: str) -> str:
    """`Grasp the cover and close it` as `I grasped the cover and closed it.`"""
    order = order.strip().rstrip(".!?")
    if not order:
        return "I finished a step."
    words = lower_first(order).split()
    extra = {"let", "keep", "stop", "start", "continue", "finish", "wait", "stand", "make"}
    if family_of(words[0]) is None and words[0] not in extra:
        return f"I did this step: {order}."
    words[0] = past(words[0])
    for index in range(2, len(words)):
        known = family_of(words[index]) is not None or words[index] in {"let", "stop"}
        if words[index - 1] in {"and", "then"} and known:
            words[index] = past(words[index])
    return f"I {' '.join(words)}."
