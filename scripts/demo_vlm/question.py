"""Reads the labeled lines of a question, such as "Task: …"; the rest of the prompt may change."""

import re

_NUMBER = r"-?\d+(?:\.\d+)?"
_NOTHING = ("", "unknown", "none", "n/a")


class Question:
    """The text of a question. Lines that are missing or broken are read as empty."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.task = self.line("Task")

    def line(self, name: str) -> str:
        """Return the text of the line "NAME: …"."""
        match = re.search(rf"(?m)^[ \t]*{name}:[ \t]*(.*)$", self.text)
        value = match[1].strip() if match else ""
        return "" if value.lower().rstrip(".") in _NOTHING else value

    def numbered(self, name: str) -> dict[str, str]:
        """Return the texts of the lines "NAME 1: …", "NAME 2: …" by number (or other word)."""
        return dict(re.findall(rf"(?m)^[ \t]*{name} (\w+):[ \t]*(.+)$", self.text))

    def span_s(self, name: str) -> tuple[float, float] | None:
        """Return the times (s) of the line "NAME: 1.50 to 3.00 s"."""
        match = re.match(rf"({_NUMBER})\s*to\s*({_NUMBER})\s*s\b", self.line(name))
        return (float(match[1]), float(match[2])) if match else None

    def number(self, name: str, words: str = "") -> float | None:
        """Return the number that follows `words` in the line "NAME: …"."""
        match = re.search(rf"{words}\s*({_NUMBER})", self.line(name))
        return float(match[1]) if match else None

    def image_times_s(self) -> dict[int, float]:
        """Return the times (s) of single images by their number, from 1."""
        found = self.numbered("Image").items()
        return {
            int(number): float(text.split()[0])
            for number, text in found
            if number.isdigit() and re.match(rf"{_NUMBER}\s+s\b", text)
        }

    def sheet_columns(self) -> int:
        """Return the number of columns of contact sheets; 0 if the images are not sheets."""
        match = re.search(r"(\d+) columns?\b", self.line("Images"))
        return int(match[1]) if match else 0

    def sheet_times_s(self) -> list[list[float]]:
        """Return the times (s) of the tiles of each contact sheet, row by row."""
        rows = self.numbered("Sheet").values()
        return [[float(time) for time in re.findall(_NUMBER, row)] for row in rows]

    def extent(self) -> tuple[float, float] | None:
        """Return the coordinates that the right and the lower edge of the image have."""
        line = self.line("Coordinates")
        size = re.search(rf"({_NUMBER})\s*x\s*({_NUMBER})$", line)
        if size:
            return float(size[1]), float(size[2])
        return (1000.0, 1000.0) if line.startswith("0 to 1000 ") else None

    def field(self, name: str) -> "Question":
        """Return the part about one field of a reply with several questions."""
        _, _, rest = self.text.partition(f"Field `{name}`:")
        return Question(re.split(r"(?m)^[ \t]*Field `", rest)[0])
