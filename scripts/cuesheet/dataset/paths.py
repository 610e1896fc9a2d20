"""The templates in info.json that say where a dataset's files lie."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from cuesheet.errors import CuesheetError


class PathTemplate:
    """A path template of info.json; refuses paths that lead out of the dataset."""

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
        try:
            path = str(self._template).format(**values)
        except (KeyError, IndexError, ValueError) as error:
            raise CuesheetError(
                f"{self._name}: meta/info.json has {self._key} = {self._template!r}, which cannot "
                f"be filled in ({error!r}); it may use {', '.join(values)}."
            ) from None
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise CuesheetError(
                f"{self._name}: meta/info.json has {self._key} = {self._template!r}, which leads "
                "out of the dataset's folder; expected a path inside it."
            )
        return str(pure)
