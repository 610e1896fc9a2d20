"""Acts that a task names but no subtask of its episode does, such as a pick without a place."""

import re
from collections.abc import Iterable

# Verbs of one act. A subtask does an act if its label begins with one of its verbs.
_ACTS = {
    "pick": "pick grasp grab take lift get fetch collect pinch",
    "place": "place put set drop insert stack release let position load deposit return lay hang",
    "open": "open unlock",
    "close": "close shut",
    "push": "push slide press shove",
    "pull": "pull slide drag",
    "pour": "pour empty fill",
    "wipe": "wipe clean sweep scrub",
    "fold": "fold",
    "turn": "turn rotate twist flip spin screw unscrew",
    "cut": "cut slice",
    "stir": "stir mix",
}
_VERBS = {act: frozenset(words.split()) for act, words in _ACTS.items()}
_CLAUSES = re.compile(r"\s*(?:[,;.]|\band\b|\bthen\b|\bafter that\b)\s*", re.IGNORECASE)
_POLITE = {"please", "robot", "now", "first", "finally", "next", "carefully", "gently"}


def missing_acts(task: str, labels: Iterable[str]) -> list[str]:
    """Return the verbs of the task whose act no label does, in the order of the task."""
    done = {act for label in labels for verb in _first_verbs(label) for act in _acts_of(verb)}
    missing: list[str] = []
    for verb in _first_verbs(task):
        acts = _acts_of(verb)
        if acts and not acts & done and verb not in missing:
            missing.append(verb)
    return missing


def _first_verbs(text: str) -> list[str]:
    verbs = []
    for clause in _CLAUSES.split(text.lower()):
        words = [word for word in re.findall(r"[a-z]+", clause) if word not in _POLITE]
        verbs += words[:1]
    return verbs


def _acts_of(verb: str) -> set[str]:
    return {act for act, verbs in _VERBS.items() if verb in verbs}
