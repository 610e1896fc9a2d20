"""The sentences of the demo model, built from the words of the request."""

import re
from collections.abc import Mapping

_STOP = {"and", "then", "into", "onto", "on", "in", "to", "from", "with", "by", "at", "off", "of"}
_PARTICLES = {"up", "down", "out", "away", "back"}
# Verbs of the labels of this model that have several words.
_PHRASAL = ("reach for", "let go of", "move toward")
_POLITE = re.compile(r"^(please|robot,|now)\s+", re.IGNORECASE)

# Starts of labels that mean the same.
SAME = {"reach for": "move to", "let go of": "release"}

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
    text = imperative(task)
    verb = next((one for one in _PHRASAL if text.startswith(f"{one} ")), text.partition(" ")[0])
    words = text[len(verb) :].split()
    if words and words[0] in _PARTICLES:
        verb += f" {words.pop(0)}"
    if len(words) > 2 and words[0] == "and":  # "pick and place a puck"
        verb += f" and {words[1]}"
        words = words[2:]
    end = next((n for n, word in enumerate(words) if word.strip(",") in _STOP), len(words))
    thing = [word.strip(",") for word in words[: min(end, 4)]] or ["object"]
    if thing[0] not in ("the", "a", "an", "both", "all"):
        thing.insert(0, "the")
    return verb or "move", " ".join(thing)


def labels(task: str, count: int) -> list[str]:
    """Return one imperative label per segment; neighbors differ."""
    verb, thing = verb_and_object(task)
    whole = f"{verb} {thing}"
    if count == 1:
        return [imperative(task) if 0 < len(task.split()) <= 8 else whole]
    if count == 2:
        return [f"reach for {thing}", whole]
    inner = [(whole, f"move {thing}")[position % 2] for position in range(count - 2)]
    return [f"reach for {thing}", *inner, f"let go of {thing}"]


def replace_start(label: str, starts: Mapping[str, str]) -> str:
    """Return a label with another start of the same meaning, if `starts` has one for it."""
    for start, other in starts.items():
        if label.startswith(f"{start} "):
            return other + label[len(start) :]
    return label


def rephrasings(task: str, count: int) -> list[str]:
    """Return up to `count` different sentences that ask for the task."""
    text = imperative(task) or "do the task"
    return [form.format(task=text) for form in REPHRASINGS[:count]]


def interjection(step: str, kind: str) -> str:
    """Return what a person says before a step."""
    form = INTERJECTIONS.get(kind, INTERJECTIONS["preference"])
    return form.format(step=imperative(step) or "go on")


def speech(step: str, manner: str) -> str:
    """Return what the robot says before a step."""
    thing = verb_and_object(step)[1]
    form = next(form for word, form in SPEECH.items() if word in manner)
    return form.format(step=imperative(step) or "go on", Thing=thing[:1].upper() + thing[1:])


def memory(before: str, finished: str) -> str:
    """Return the last memory sentence and one for the step that has just ended."""
    sentences = re.findall(r"[^.]+\.", before)[-1:]
    done = f"I completed this step: {imperative(finished) or 'nothing yet'}."
    return " ".join(sentence.strip() for sentence in [*sentences, done])


def share_a_word(first: str, second: str) -> bool:
    """Tell whether two labels share a word of more than three letters."""
    words = [set(re.findall(r"\w{4,}", text.lower())) for text in (first, second)]
    return bool(words[0] & words[1])
