"""The templates in info.json that name a dataset's data and video files."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from cuesheet.errors import CuesheetError

_HUGE_PADDING = re.compile(r":[^}]*\d{3}")


class PathTemplate:
    """A path template of info.json; rejects paths that lead out of the dataset."""

    def __init__(self, info: Mapping[str, Any], key: str, default: str, name: str) -> None:
        self._template = info.get(key) or default
        self._key = key
        self._name = name
        self._made: dict[tuple[Any, ...], str] = {}

    def format(self, **values: Any) -> str:
        known = tuple(values.values())
        if known not in self._made:
            self._made[known] = self._checked(values)
        return self._made[known]

    def _checked(self, values: dict[str, Any]) -> str:
        shown = f"{self._name}: meta/info.json has {self._key} = {str(self._template)[:120]!r}"
        if _HUGE_PADDING.search(str(self._template)):
            raise CuesheetError(f"{shown}, which pads a number to 100 digits or more.")
        try:
            path = str(self._template).format(**values)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise CuesheetError(
                f"{shown}, which cannot be filled in ({error!r}); it may use {', '.join(values)}."
            ) from None
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise CuesheetError(
                f"{shown}, which leads out of the dataset's folder; expected a path inside it."
            )
        if self._key == "data_path" and pure.parts[:1] != ("data",):
            raise CuesheetError(f"{shown}; expected a path that starts with data/.")
        return str(pure)
