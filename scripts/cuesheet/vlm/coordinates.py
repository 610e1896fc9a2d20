"""Converts the coordinates that a model family emits to pixels of the source frame.

Sources: the model cards and processors of the Qwen families. Qwen2-VL and Qwen3-VL use thousandths
of width and height, Qwen2.5-VL pixels of the image as its processor resized it.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from cuesheet.errors import SurroundingsError
from cuesheet.files import read_json

Convention = Literal["pixels", "resized_pixels", "thousandths", "fractions"]
Value = TypeVar("Value")

# By family name in lower case, letters and digits only; the first match wins. Sources: model cards
# and processors; MiMo-VL and Cosmos-Reason1 are built on Qwen2.5-VL.
_FAMILIES: tuple[tuple[str, Convention], ...] = (
    ("qwen25vl", "resized_pixels"),
    ("qwen25omni", "resized_pixels"),
    ("mimovl", "resized_pixels"),
    ("cosmosreason1", "resized_pixels"),
    ("qwen", "thousandths"),
    ("cosmosreason2", "thousandths"),
    ("internvl", "thousandths"),
    ("gemini", "thousandths"),
    ("glm", "thousandths"),
    ("claude", "pixels"),
    ("gpt", "pixels"),
    ("cuesheetdemo", "pixels"),
)
# A wrong convention is inferred from at least so many boxes and points: if this share of them is
# outside the frame, or if all are in the upper left corner of this share of width and height.
_FEWEST_TO_JUDGE = 5
_OUTSIDE_SHARE = 0.3
_CORNER_SHARE = 0.2
_HASH = re.compile(r"[0-9a-f]{12,}")
# Patch edge (14 px) times merge size (2) and the default pixel limits of Qwen2.5-VL's processor.
_QWEN25_FACTOR = 28
_QWEN25_MIN_PIXELS = 4 * 28 * 28
_QWEN25_MAX_PIXELS = 16384 * 28 * 28


@dataclass(frozen=True)
class PixelLimits:
    """Smallest and largest area (px) of an image that the processor of Qwen2.5-VL resizes."""

    min_pixels: int = _QWEN25_MIN_PIXELS
    max_pixels: int = _QWEN25_MAX_PIXELS

    def updated(self, mm_processor_kwargs: Mapping[str, Any] | None) -> "PixelLimits":
        """Return these limits with what `mm_processor_kwargs` sets.

        The keys are `min_pixels` and `max_pixels`, or `size: {shortest_edge, longest_edge}`, which
        despite the names also counts pixels. If both are given, the former win, as in the
        processors and in vLLM. Raises SurroundingsError if a value is not a number of pixels.
        """
        given = mm_processor_kwargs or {}
        size = given.get("size")
        size = size if isinstance(size, Mapping) else {}
        limits = {}
        for name, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
            flat = given.get(name)
            value = size.get(edge) if flat is None else flat
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
                key = name if flat is not None else f"size.{edge}"
                raise SurroundingsError(
                    f"vlm.sampling.mm_processor_kwargs.{key} is {value!r}; expected a number "
                    "of pixels, for example 401408"
                )
            limits[name] = int(value)
        return replace(self, **limits)


@dataclass(frozen=True)
class CoordinateFrame:
    """The unit of the coordinates in a reply, for one image of `width` x `height` px."""

    convention: Convention
    width: int
    height: int
    limits: PixelLimits = PixelLimits()  # of Qwen2.5-VL's processor, for resized_pixels

    @property
    def extent(self) -> tuple[float, float]:
        """The coordinates of the right and the lower edge."""
        if self.convention == "thousandths":
            return 1000.0, 1000.0
        if self.convention == "fractions":
            return 1.0, 1.0
        if self.convention == "resized_pixels":
            return qwen25_size(self.width, self.height, self.limits)
        return float(self.width), float(self.height)

    def describe(self) -> str:
        """Return the line that tells the model which coordinates to use."""
        if self.convention == "thousandths":
            return "Coordinates: 0 to 1000 of width and height"
        if self.convention == "fractions":
            return "Coordinates: fractions of width and height, from 0 to 1"
        width, height = self.extent
        return f"Coordinates: pixels of the image, origin top left, {width:.0f} x {height:.0f}"

    def point(self, point: Sequence[float]) -> list[float] | None:
        """Return a point in source pixels, or None if it is outside the frame."""
        x, y = self._scale(point)
        if not (0 <= x < self.width and 0 <= y < self.height):
            return None
        return [round(x, 1), round(y, 1)]

    def box(self, box: Sequence[float]) -> list[float] | None:
        """Return a box [x_min, y_min, x_max, y_max] in source pixels, clipped to the frame.

        The corners are put in order. None if the rest is less than a pixel wide or high.
        """
        corners = self._scale(box[:2]), self._scale(box[2:])
        left, right = sorted(round(min(max(x, 0.0), self.width), 1) for x, _ in corners)
        top, bottom = sorted(round(min(max(y, 0.0), self.height), 1) for _, y in corners)
        return None if right - left < 1 or bottom - top < 1 else [left, top, right, bottom]

    def _scale(self, point: Sequence[float]) -> tuple[float, float]:
        right, bottom = self.extent
        return point[0] * self.width / right, point[1] * self.height / bottom


@dataclass
class CoordinateCheck:
    """Collects the boxes and points of replies, and tells if their convention seems to be wrong."""

    convention: Convention
    total: int = 0
    outside: int = 0
    in_corner: int = 0
    fractions: int = 0

    def add(self, values: Sequence[float], frame: CoordinateFrame) -> None:
        """Count a box or point (x, y, ...) as the model wrote it."""
        right, bottom = frame.extent
        shares = [value / (bottom if i % 2 else right) for i, value in enumerate(values)]
        self.total += 1
        # Models often draw boxes a little beyond the edge; that is not a wrong convention.
        self.outside += not all(-0.02 <= share <= 1.02 for share in shares)
        self.in_corner += all(0 <= share <= _CORNER_SHARE for share in shares)
        self.fractions += all(0 <= value <= 1 for value in values)

    def warning(self) -> str | None:
        """Return a warning that names the setting, or None if nothing is suspicious."""
        if self.total < _FEWEST_TO_JUDGE:
            return None
        if self.outside >= _OUTSIDE_SHARE * self.total:
            found = f"{self.outside} of {self.total} boxes and points are outside the frame"
        elif self.in_corner == self.total:
            found = f"all {self.total} boxes and points are in the upper left corner"
        else:
            return None
        others = [name for name in get_args(Convention) if name != self.convention]
        if self.fractions == self.total:
            others = ["fractions"]
        else:
            others.remove("fractions")
        return (
            f"vqa: {found}. The model probably does not use {self.convention}; set "
            f"vlm.coordinates to {' or '.join(others)}, and check the boxes in the report"
        )


def unknown_family_notice(model: str, configured: str, root: str = "") -> str | None:
    """Return a notice if the convention of `model` can only be assumed, else None."""
    known = [family_of(name, _FAMILIES) for name in (root, model)]
    if configured != "auto" or any(known):
        return None
    return (
        f"the coordinate convention of the model {model} is unknown; pixels are assumed. If boxes "
        "in the report are misplaced, set vlm.coordinates (thousandths for most models trained on "
        "grounding since 2025, resized_pixels for fine-tunes of Qwen2.5-VL)"
    )


def convention_of(
    model: str, configured: Convention | Literal["auto"], root: str = ""
) -> Convention:
    """Return the convention of `model`, unless one is configured; pixels for unknown families.

    `root`: the model behind a served name, as its server lists it.
    """
    return explain_convention(model, configured, root)[0]


def explain_convention(
    model: str, configured: Convention | Literal["auto"], root: str = ""
) -> tuple[Convention, str]:
    """Return the convention of `model`, and why it is assumed."""
    if configured != "auto":
        return configured, "vlm.coordinates"
    named = [(family, (family, convention)) for family, convention in _FAMILIES]
    for name, origin in ((root, f"the server's model {root}"), (model, f"the model name {model}")):
        if found := family_of(name, named):
            return found[1], f"{origin} is of the family {found[0]}"
    return "pixels", f"the family of {model} is unknown, so this is a guess; see vlm.coordinates"


def default_relabeling(model: str) -> Literal["off", "span", "neighbors"]:
    """Return what the model's family should see of a segment that it labels again.

    Qwen models label a segment best alone, Gemini models together with its neighbors.
    """
    return family_of(model, (("qwen", "span"), ("gemini", "neighbors"))) or "off"


def family_of(model: str, table: Iterable[tuple[str, Value]]) -> Value | None:
    """Return the value of the first family in `table` that a model's name or folder names.

    Understands hub names, Ollama tags, ModelScope's escapes, paths into a hub cache, and local
    folders, whose config.json names the architecture.
    """
    if not model:
        return None
    rows = list(table)
    for name in (*_names(model), _architecture(model)):
        squeezed = re.sub(r"[^a-z0-9]", "", name.lower())
        for family, value in rows:
            if family in squeezed:
                return value
    return None


def _names(model: str) -> list[str]:
    """Return the parts of a model's name or path that may name its family, best first."""
    parts = [part for part in model.replace("\\", "/").split("/") if part]
    cached = [part for part in parts if part.startswith("models--")]
    named = [part for part in parts if part != "snapshots" and not _HASH.fullmatch(part.lower())]
    return [name.replace("___", ".") for name in (*cached[-1:], *named[-1:])]


def _architecture(model: str) -> str:
    return str(read_json(Path(model) / "config.json").get("model_type", ""))


def qwen25_size(
    width: int, height: int, limits: PixelLimits = PixelLimits(), edge: int = _QWEN25_FACTOR
) -> tuple[float, float]:
    """Return the width and height (px) to which Qwen2.5-VL's processor resizes an image.

    Both are multiples of `edge`, the area is within the limits, and the aspect ratio is nearly
    kept. Other processors of the same kind have another `edge` and other limits.
    """
    new_width = max(edge, round(width / edge) * edge)
    new_height = max(edge, round(height / edge) * edge)
    area = width * height
    if new_width * new_height > limits.max_pixels:
        shrink = math.sqrt(area / limits.max_pixels)
        new_width = max(edge, math.floor(width / shrink / edge) * edge)
        new_height = max(edge, math.floor(height / shrink / edge) * edge)
    elif new_width * new_height < limits.min_pixels:
        grow = math.sqrt(limits.min_pixels / area)
        new_width = math.ceil(width * grow / edge) * edge
        new_height = math.ceil(height * grow / edge) * edge
    return float(new_width), float(new_height)
