"""Forms in which models write boxes and points if no grammar enforces a list of numbers."""

import contextlib
import json
from typing import Any

_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
_SIZES = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))


def as_box(value: Any) -> Any:
    """Return a box as [x_min, y_min, x_max, y_max] if its form is known, otherwise `value`."""
    value = _as_list(value)
    if isinstance(value, dict):
        for names in _CORNERS:
            if set(names) <= set(value):
                return [value[name] for name in names]
        for names in _SIZES:
            if set(names) <= set(value):
                with contextlib.suppress(TypeError, ValueError):
                    left, top, width, height = (float(value[name]) for name in names)
                    return [left, top, left + width, top + height]
    if isinstance(value, list) and len(value) == 2:  # two corners
        corners = [as_point(corner) for corner in value]
        if all(isinstance(corner, list) and len(corner) == 2 for corner in corners):
            return [*corners[0], *corners[1]]
    return value


def as_point(value: Any) -> Any:
    """Return a point as [x, y] if its form is known, otherwise `value`."""
    value = _as_list(value)
    return (
        [value["x"], value["y"]] if isinstance(value, dict) and {"x", "y"} <= set(value) else value
    )


def _as_list(value: Any) -> Any:
    """Read a list that is written as text, and a list of one list."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list | dict):
        return value[0]
    return value
