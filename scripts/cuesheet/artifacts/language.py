"""The language rows of the dataset format: fields, styles, order, features and the `say` tool.

Two columns are added to a LeRobot dataset: `language_persistent`, the same list of rows on every
frame of an episode, and `language_events`, the rows of a single frame. A row has a speaker (role),
a text (content) or tool calls, and a style. The Arrow types of the columns are in `language_arrow`,
so that code that only handles rows does not import pyarrow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat

PERSISTENT_COLUMN: Final = "language_persistent"
EVENTS_COLUMN: Final = "language_events"
LANGUAGE_COLUMNS = (PERSISTENT_COLUMN, EVENTS_COLUMN)

# The active subtask of each frame as a number, for LeRobot 0.4. Written only if it is enabled.
SUBTASK_COLUMN = "subtask_index"

# Columns that earlier annotation tools left in data files; the merge drops them.
STALE_COLUMNS = (SUBTASK_COLUMN, "tools")

# Name of rows without a style in counts and reports.
SPEECH = "speech"


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Arguments(_Exact):
    text: str


class Function(_Exact):
    name: str
    arguments: Arguments


class ToolCall(_Exact):
    type: str
    function: Function


class LanguageRow(_Exact):
    """A row as it is stored in annotation files. `timestamp`: seconds from the episode's start."""

    role: str
    content: str | None
    style: str | None
    timestamp: FiniteFloat
    camera: str | None
    tool_calls: list[ToolCall] | None


Row = dict[str, Any]
"""A `LanguageRow` as plain data, as it is written to annotation files and data files."""


@dataclass(frozen=True)
class Style:
    """The format's rules for a style: its column, the roles that may use it, its camera."""

    column: Literal["language_persistent", "language_events"]
    roles: tuple[str, ...]
    camera: Literal["none", "required"] = "none"


# `trace` is a known style of the format that Cuesheet does not write; `motion` is optional.
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

# Entries of info.json. The tool has the form of OpenAI function tools.
SUBTASK_FEATURE: Mapping[str, Any] = {"dtype": "int64", "shape": [1], "names": None}
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


def say(text: str) -> list[dict[str, Any]]:
    """Return the tool calls of a speech row as plain data."""
    return [{"type": "function", "function": {"name": "say", "arguments": {"text": text}}}]


def style_name(style: str | None) -> str:
    """Return the name of a style for counts and reports. In the format, speech has no style."""
    return SPEECH if style is None else style


def sort_persistent(rows: Iterable[Row]) -> list[Row]:
    """Sort by timestamp, style and role; rows that are equal in these keep their order."""
    return sorted(rows, key=lambda row: (row["timestamp"], row["style"] or "", row["role"]))


def sort_events(rows: Iterable[Row]) -> list[Row]:
    """Sort the events of one frame by style, role and camera; equal rows keep their order."""
    return sorted(rows, key=lambda row: (row["style"] or "", row["role"], row.get("camera") or ""))


def count_styles(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Count rows by style, in the order of the table of styles."""
    counts = {style_name(style): 0 for style in STYLES}
    for row in rows:
        name = style_name(row["style"])
        counts[name] = counts.get(name, 0) + 1
    return {name: count for name, count in counts.items() if count}
