"""The sentences of the demo model, built from the words of the request."""

import re
from collections.abc import Mapping, Sequence

_STOP = {"and", "then", "into", "onto", "on", "in", "to", "from", "with", "by", "at", "off", "of"}
_PARTICLES = {"up", "down", "out", "away", "back"}
# Verbs of the labels of this model that have several words.
_PHRASAL = {"reach": [("for",)], "let": [("go", "of")], "move": [("toward",)]}
_POLITE = re.compile(r"^(please|robot,|now)\s+", re.IGNORECASE)

# Starts of labels that mean the same.
_SAME = {"reach for": "move to", "let go of": "release"}

REPHRASINGS = (
    "Please {task}.",
    "Could you {task}?",
    "I need you to {task}.",
    "Your job now is to {task}.",
    "Go ahead and {task}.",
    "Would you {task}, please?",
    "The goal is to {task}.",
    "I would like you to {task}.",
    "Robot, {task}.",
    "Can you {task} for me?",
    "It is time to {task}.",
    "Make sure to {task}.",
    "Try to {task}.",
    "Next, {task}.",
    "Let us see you {task}.",
    "What I want is for you to {task}.",
)
INTERJECTIONS = {
    "reminder": "Remember to {step}.",
    "correction": "Not yet that, {step} first.",
    "preference": "I would like you to {step} next.",
    "permission": "You can {step} now.",
    "question": "Could you {step}?",
}
# By a word of the manner that is asked for.
SPEECH = {
    "object": "{Thing} comes next.",
    "action": "Time to {step}.",
    "agreement": "Okay, I will {step}.",
    "see": "{Thing} is in view, so I {step}.",
    "words": "On it.",
    "": "I am about to {step}.",
}


def imperative(task: str) -> str:
    """Return the task as a command in the middle of a sentence: no full stop, lower case first."""
    text = _POLITE.sub("", " ".join(task.split())).rstrip(".!? ")
    return text[:1].lower() + text[1:]


def verb_and_object(task: str) -> tuple[str, str]:
    """Return the first verb and its object: "pick up", "the red cup"; defaults for no task."""
    words = imperative(task).split()
    if not words:
        return "move", "the object"
    verb = words.pop(0).strip(",")
    for particles in _PHRASAL.get(verb, ()):
        if words[: len(particles)] == list(particles):
            verb, words = " ".join([verb, *particles]), words[len(particles) :]
    if words and words[0].lower() in _PARTICLES:
        verb += f" {words.pop(0)}"
    if len(words) > 2 and words[0] == "and":  # "pick and place a puck"
        verb += f" and {words[1]}"
        words = words[2:]
    thing = []
    for word in words:
        if word.lower().strip(",") in _STOP or len(thing) == 4:
            break
        thing.append(word.strip(","))
    if not thing:
        return verb, "the object"
    if thing[0].lower() not in ("the", "a", "an", "both", "all"):
        thing.insert(0, "the")
    return verb, " ".join(thing)


def labels(task: str, count: int) -> list[str]:
    """Return one imperative label per segment."""
    verb, thing = verb_and_object(task)
    if count == 1:
        whole = imperative(task)
        return [whole if 0 < len(whole.split()) <= 8 else f"{verb} {thing}"]
    middle = [f"{verb} {thing}", f"move {thing}"]
    inner = [middle[min(position, 1)] for position in range(count - 2)]
    last = f"let go of {thing}" if inner else f"{verb} {thing}"
    return [f"reach for {thing}", *inner, last]


def reworded(names: Sequence[str]) -> list[str]:
    """Return labels that mean the same in other words."""
    found = []
    for name in names:
        start = next((one for one in _SAME if name.startswith(f"{one} ")), None)
        found.append(_SAME[start] + name[len(start) :] if start else name)
    return found


def merged(labels: Mapping[int, str]) -> dict[str, list[int]]:
    """Return the numbers of the labels that mean the same, by the label that is used for them."""
    found: dict[str, list[int]] = {}
    first = {other: one for one, other in _SAME.items()}
    for number, label in labels.items():
        start = next((one for one in first if label.startswith(f"{one} ")), None)
        name = first[start] + label[len(start) :] if start else label
        found.setdefault(name, []).append(number)
    return found


def rephrasings(task: str, count: int) -> list[str]:
    """Return up to `count` different sentences that ask for the task."""
    text = imperative(task) or "do the task"
    return [form.format(task=text) for form in REPHRASINGS][:count]


def interjection(step: str, kind: str) -> str:
    """Return what a person says before a step."""
    text = imperative(step) or "go on"
    return INTERJECTIONS.get(kind, INTERJECTIONS["preference"]).format(step=text)


def speech(step: str, manner: str) -> str:
    """Return what the robot says before a step."""
    text = imperative(step) or "go on"
    thing = verb_and_object(step)[1]
    form = next(form for word, form in SPEECH.items() if word in manner)
    return form.format(step=text, Thing=thing[:1].upper() + thing[1:])


def memory(before: str, finished: str) -> str:
    """Return the last memory sentence and one for the step that has just ended."""
    sentences = re.findall(r"[^.]+\.", before)[-1:]
    done = f"I completed this step: {imperative(finished) or 'nothing yet'}."
    return " ".join(sentence.strip() for sentence in [*sentences, done])


def share_a_word(first: str, second: str) -> bool:
    """Tell whether two labels share a word of more than three letters."""
    sets = [{w for w in re.findall(r"\w+", text.lower()) if len(w) > 3} for text in (first, second)]
    return bool(sets[0] & sets[1])
