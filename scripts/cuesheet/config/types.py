"""Types of settings: which values they accept, and their description in words."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

PositiveFloat = Annotated[float, Field(gt=0)]

_RANGE = re.compile(r"^(\d+)(?:-(\d+))?$")
_LARGEST_EPISODE = 10_000_000  # a guard against a slip such as 0-99999999999


@dataclass(frozen=True)
class Expected:
    """Describes the accepted values in words, for types that do not."""

    words: str


def parse_episodes(value: object) -> list[int] | None:
    """Turn `[0, 3, "5-9"]`, `"0,3,5-9"` or `7` into a sorted list of distinct episode indices.

    Raises ValueError that names the invalid item.
    """
    if value is None or value in ("all", "null"):
        return None
    items = value if isinstance(value, list) else str(value).split(",")
    chosen: set[int] = set()
    for item in items:
        match = _RANGE.match(str(item).strip())
        if not match:
            raise ValueError(
                f"{item!r} is neither an episode number nor a range; write for example "
                "[0, 3, 5-9] or all"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the range {item!r} ends before it starts; write {last}-{first}")
        if last > _LARGEST_EPISODE:
            raise ValueError(f"{item!r} is beyond {_LARGEST_EPISODE}, the largest episode number")
        chosen.update(range(first, last + 1))
    if not chosen:
        raise ValueError("the list is empty; leave the key out (or write all) for every episode")
    return sorted(chosen)


def null_is_none(value: object) -> object:
    """Treat the text `null` as None: Snakemake's `--config` passes nested values as text."""
    return None if value in ("null", "~", "") else value


def _with_plain_values(value: object) -> object:
    """Convert text to plain values in a free mapping: the text `false` becomes false."""
    if isinstance(value, dict):
        return {key: _with_plain_values(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_plain_values(item) for item in value]
    if isinstance(value, str):
        try:
            plain = yaml.safe_load(value)
        except yaml.YAMLError:
            return value
        return plain if plain is None or isinstance(plain, (bool, int, float)) else value
    return value


Text = Annotated[str | None, BeforeValidator(null_is_none)]
Mapping = Annotated[dict[str, Any] | None, BeforeValidator(_with_plain_values)]
Episodes = Annotated[
    list[int] | None,
    BeforeValidator(parse_episodes),
    Expected("`all`, or a list of numbers and ranges such as `[0, 3, 5-9]`"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "null"},
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^(all|\s*\d+(-\d+)?\s*(,\s*\d+(-\d+)?\s*)*)$"},
                {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "anyOf": [
                            {"type": "integer", "minimum": 0},
                            {"type": "string", "pattern": r"^\s*\d+(-\d+)?\s*$"},
                        ]
                    },
                },
            ]
        }
    ),
]


class Section(BaseModel):
    """Part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _undo_yaml_booleans(cls, value: object, info: ValidationInfo) -> object:
        """Restore `off`, which YAML reads as false, and reject true and false as numbers."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        branches = (annotation, *get_args(annotation))
        if value is False and any("off" in get_args(branch) for branch in branches):
            return "off"
        if isinstance(value, bool) and annotation in (int, float):
            return str(value).lower()
        return value
