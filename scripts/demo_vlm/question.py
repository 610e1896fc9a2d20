"""Parses the lines of a question that do not depend on the wording of the prompt."""

import re
from dataclasses import dataclass, field

NUMBER = r"-?\d+(?:\.\d+)?"
_UNKNOWN = {"", "unknown", "none", "n/a"}


@dataclass(frozen=True)
class SheetLayout:
    """Columns of the contact sheets and the times (s) of each sheet's tiles."""

    columns: int
    times_s: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Question:
    """What the lines say; None or empty if a line is missing."""

    task: str = ""
    sheets: SheetLayout | None = None
    image_times_s: dict[int, float] = field(default_factory=dict)
    clip_s: tuple[float, float] | None = None
    window_s: tuple[float, float] | None = None
    max_subtasks: int | None = None
    min_subtask_s: float | None = None
    memory: str = ""
    finished: str = ""
    starting: str = ""
    span_s: tuple[float, float] | None = None
    first_label: str = ""
    predicted_label: str = ""
    reference_label: str = ""
    coming: str = ""
    last: str = ""
    kind: str = ""
    manner: str = ""
    coordinates: tuple[float, float] | None = None
    rephrasings: int | None = None
    axes: dict[str, int] = field(default_factory=dict)
    steps: dict[int, str] = field(default_factory=dict)


def parse(text: str) -> Question:
    """Read the lines out of the question. Lines that are missing or broken are left empty."""
    return Question(
        task=_line(text, "Task"),
        sheets=_sheets(text),
        image_times_s={
            int(number): float(time)
            for number, time in re.findall(rf"(?m)^[ \t]*Image (\d+):\s*({NUMBER})\s*s\b", text)
        },
        clip_s=_range(text, "Clip"),
        window_s=_range(text, "Window"),
        max_subtasks=_whole(text, r"^[ \t]*Limits:.*?at most (\d+)"),
        min_subtask_s=_real(text, rf"^[ \t]*Limits:.*?at least ({NUMBER})\s*s"),
        memory=_line(text, "Memory so far"),
        finished=_line(text, "Just finished"),
        starting=_line(text, "Starting now"),
        span_s=_range(text, "Span"),
        first_label=_line(text, "First label"),
        predicted_label=_line(text, "Predicted label"),
        reference_label=_line(text, "Reference label"),
        coming=_line(text, "Coming subtask"),
        last=_line(text, "Last subtask"),
        kind=_line(text, "Kind").lower(),
        manner=_line(text, "Manner").lower(),
        coordinates=_coordinates(text),
        rephrasings=_whole(text, r"^[ \t]*Rephrasings wanted:\s*(\d+)"),
        axes={
            name: int(count)
            for name, count in re.findall(r"(?m)^[ \t]*Axis ([a-z_]+):\s*(\d+)", text)
        },
        steps={
            int(number): label.strip()
            for number, label in re.findall(r"(?m)^[ \t]*Step (\d+):[ \t]*(.+)$", text)
        },
    )


@dataclass(frozen=True)
class Topic:
    """What one visual question is about."""

    target: str = ""
    names: str = ""  # objects that were asked about
    already_asked: bool = False


def topic(text: str) -> Topic:
    """Read the lines about the object of a visual question."""
    return Topic(
        target=_line(text, "Ask about"),
        names=_line(text, "Already asked about"),
        already_asked=re.search(r"(?m)^[ \t]*Do not ask again:", text) is not None,
    )


def section(text: str, name: str) -> str:
    """Return the lines about one field of a reply with several questions."""
    _, _, rest = text.partition(f"Field `{name}`:")
    return re.split(r"(?m)^[ \t]*Field `", rest)[0]


def _line(text: str, name: str) -> str:
    match = re.search(rf"(?m)^[ \t]*{re.escape(name)}:[ \t]*(.*)$", text)
    value = match.group(1).strip() if match else ""
    return "" if value.lower().rstrip(".") in _UNKNOWN else value


def _range(text: str, name: str) -> tuple[float, float] | None:
    match = re.search(rf"(?m)^[ \t]*{name}:\s*({NUMBER})\s*to\s*({NUMBER})\s*s\b", text)
    return (float(match.group(1)), float(match.group(2))) if match else None


def _whole(text: str, pattern: str) -> int | None:
    match = re.search(pattern, text, re.MULTILINE)
    return int(match.group(1)) if match else None


def _real(text: str, pattern: str) -> float | None:
    match = re.search(pattern, text, re.MULTILINE)
    return float(match.group(1)) if match else None


def _sheets(text: str) -> SheetLayout | None:
    head = re.search(r"(?m)^[ \t]*Images: .*?(\d+) columns?\b", text)
    rows = re.findall(rf"(?m)^[ \t]*Sheet \d+:((?:[ \t]+{NUMBER}(?=\s|$))+)", text)
    if not head or not rows:
        return None
    times = tuple(tuple(float(value) for value in row.split()) for row in rows)
    return SheetLayout(max(1, int(head.group(1))), times)


def _coordinates(text: str) -> tuple[float, float] | None:
    """Return the coordinates of the right and the lower edge of the image."""
    line = _line(text, "Coordinates")
    size = re.search(rf"({NUMBER})\s*x\s*({NUMBER})\s*$", line)
    if size:
        return float(size.group(1)), float(size.group(2))
    if re.match(r"0 to 1000\b", line):
        return 1000.0, 1000.0
    return None
