"""Measures the variety of the questions and the speech of a dataset."""

from collections import Counter
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from cuesheet.artifacts.stage_files import StageFile
from cuesheet.text import counted

_OPENING_WORDS = 3


@dataclass
class Wording:
    """Counts over the files that are added."""

    questions: Counter[str] = field(default_factory=Counter)
    question_types: Counter[str] = field(default_factory=Counter)
    openings: Counter[str] = field(default_factory=Counter)
    speech_words: list[int] = field(default_factory=list)

    def add(self, data: StageFile) -> None:
        """Add the visual questions and the robot's speech of one stage file."""
        self.questions.update(_normalized(pair.question) for pair in data.pairs)
        self.question_types.update(pair.type for pair in data.pairs)
        for row in data.events:
            for call in row.tool_calls or ():
                words = _normalized(call.function.arguments.text).split()
                self.openings[" ".join(words[:_OPENING_WORDS])] += 1
                self.speech_words.append(len(words))

    def as_json(self) -> dict[str, Any]:
        """Return the figures of the summary; shares are 0 if there is nothing to count."""
        speech, questions = self.openings.total(), self.questions.total()
        most = max(self.openings.values(), default=0)
        return {
            "questions": questions,
            "distinct_questions": len(self.questions),
            "question_types": dict(sorted(self.question_types.items())),
            "speech": speech,
            "distinct_openings": len(self.openings),
            "most_common_opening": round(most / speech, 3) if speech else 0.0,
            "mean_speech_words": round(mean(self.speech_words), 1) if speech else 0.0,
        }


def as_text(wording: dict[str, Any]) -> str:
    """Return the figures in one line; empty if there is nothing to count."""
    parts = []
    if wording["questions"]:
        share = wording["distinct_questions"] / wording["questions"]
        parts.append(f"{share:.0%} of the visual questions are distinct")
    if wording["speech"]:
        parts.append(
            f"{counted(wording['speech'], 'spoken sentence')} with "
            f"{counted(wording['distinct_openings'], 'distinct opening')} (the most common in "
            f"{wording['most_common_opening']:.0%}) and {wording['mean_speech_words']:g} words on "
            "average"
        )
    return "; ".join(parts)


def _normalized(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(" .?!")
