"""The language rows of the dataset format: styles, order, features, tool.

Two columns are added to a LeRobot dataset: `language_persistent`, the same list of rows on every
frame of an episode, and `language_events`, rows on the one frame they belong to. A row is who
speaks (role), what (content, or tool calls), and in which style. The Arrow types of the columns are
in `language_arrow`, so that what only handles rows need not import pyarrow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

PERSISTENT_COLUMN = "language_persistent"
EVENTS_COLUMN = "language_events"
LANGUAGE_COLUMNS = (PERSISTENT_COLUMN, EVENTS_COLUMN)

# Columns that earlier annotation tools left in data files; the merge drops them.
STALE_COLUMNS = ("subtask_index", "tools")

# What a row without a style is called in counts and reports.
SPEECH = "speech"


class ToolFunction(TypedDict):
    name: str
    arguments: dict[str, str]


class ToolCall(TypedDict):
    type: str
    function: ToolFunction


class Row(TypedDict):
    """A row as the annotation files hold it. `timestamp`: seconds from the episode's start."""

    role: str
    content: str | None
    style: str | None
    timestamp: NotRequired[float]
    camera: str | None
    tool_calls: list[ToolCall] | None


@dataclass(frozen=True)
class Style:
    """What the format says of a style: its column, the roles that may use it, its camera."""

    column: Literal["language_persistent", "language_events"]
    roles: tuple[str, ...]
    camera: Literal["none", "required"] = "none"


# `motion` and `trace` are known styles of the format that Cuesheet does not write.
STYLES: Mapping[str | None, Style] = {
    "subtask": Style(PERSISTENT_COLUMN, ("assistant",)),
    "plan": Style(PERSISTENT_COLUMN, ("assistant",)),
    "memory": Style(PERSISTENT_COLUMN, ("assistant",)),
    "task_aug": Style(PERSISTENT_COLUMN, ("user",)),
    "motion": Style(PERSISTENT_COLUMN, ("user", "assistant")),
    "trace": Style(EVENTS_COLUMN, ("user", "assistant"), camera="required"),
    "interjection": Style(EVENTS_COLUMN, ("user",)),
    "vqa": Style(EVENTS_COLUMN, ("user", "assistant"), camera="required"),
    None: Style(EVENTS_COLUMN, ("assistant",)),
}

# Entries of info.json. The tool is in the form of OpenAI function tools.
LANGUAGE_FEATURE: Mapping[str, Any] = {"dtype": "language", "shape": [1], "names": None}
SAY_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "say",
        "description": "Speaks a short sentence to the person the robot works with.",
        "parameters": {
            "type": "object",
            "properties": {
                "text": {"type": "string", "description": "The words to speak."},
            },
            "required": ["text"],
        },
    },
}


def say(text: str) -> list[ToolCall]:
    """The tool calls of a speech row."""
    return [{"type": "function", "function": {"name": "say", "arguments": {"text": text}}}]


def style_name(style: str | None) -> str:
    """A style's name in counts and reports; speech has none in the format."""
    return SPEECH if style is None else style


def sort_persistent(rows: Iterable[Row]) -> list[Row]:
    """By timestamp, style, role; rows equal in these keep their order."""
    return sorted(rows, key=lambda row: (row["timestamp"], row["style"] or "", row["role"]))


def sort_events(rows: Iterable[Row]) -> list[Row]:
    """The events of one frame by style, role, camera; rows equal in these keep their order."""
    return sorted(rows, key=lambda row: (row["style"] or "", row["role"], row.get("camera") or ""))


def count_styles(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Rows by style, in the order of the table of styles."""
    counts = {style_name(style): 0 for style in STYLES}
    for row in rows:
        name = style_name(row["style"])
        counts[name] = counts.get(name, 0) + 1
    return {name: count for name, count in counts.items() if count}
