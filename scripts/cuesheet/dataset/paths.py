"""The templates in info.json that name a dataset's data and video files."""

import re
import string
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from cuesheet.errors import CuesheetError

# A plain padding such as 03d. Anything else has no use in a file name, and a width of a billion
# digits fills the memory.
_PADDING = re.compile(r"(0?\d{1,2})?d?")


class PathTemplate:
    """A path template of info.json; rejects paths that lead out of the dataset."""

    def __init__(self, info: Mapping[str, Any], key: str, default: str, name: str) -> None:
        self._template = info.get(key) or default
        self._key = key
        self._label = f"{name}: meta/info.json has {key} = {str(self._template)[:120]!r}"
        self._cached: dict[tuple[Any, ...], str] = {}

    def format(self, **values: Any) -> str:
        """Return the path for these values. Raises CuesheetError if the template is invalid."""
        key = tuple(values.values())
        if key not in self._cached:
            if not self._cached:
                self._check_fields(values)
            self._cached[key] = self._path(values)
        return self._cached[key]

    def _check_fields(self, values: Mapping[str, Any]) -> None:
        if not isinstance(self._template, str):
            raise CuesheetError(f"{self._label}; expected text.")
        try:
            parts = list(string.Formatter().parse(self._template))
        except ValueError as error:
            raise CuesheetError(f"{self._label}, which cannot be filled in ({error}).") from None
        for _, field, padding, conversion in parts:
            if field is None:
                continue
            if field not in values or conversion or not _PADDING.fullmatch(padding or ""):
                shown = f"{{{field}{f':{padding}' if padding else ''}}}"[:80]
                raise CuesheetError(
                    f"{self._label}, which has the field {shown}; it may use "
                    f"{', '.join(values)}, padded with at most two digits such as :03d."
                )

    def _path(self, values: Mapping[str, Any]) -> str:
        try:
            path = self._template.format(**values)
        except ValueError as error:
            raise CuesheetError(f"{self._label}, which cannot be filled in ({error}).") from None
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "\0" in path:
            raise CuesheetError(
                f"{self._label}, which leads out of the dataset; expected a path inside its folder."
            )
        if self._key == "data_path" and pure.parts[:1] != ("data",):
            raise CuesheetError(f"{self._label}; expected a path that starts with data/.")
        return str(pure)
