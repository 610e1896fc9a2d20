"""Coordinates as model families emit them, turned into pixels of the source frame.

Sources: the model cards and processors of the Qwen families. Qwen2-VL and Qwen3-VL ground in
thousandths of width and height, Qwen2.5-VL in pixels of the image as its processor resized it.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cuesheet.errors import SurroundingsError

Convention = Literal["pixels", "resized_pixels", "thousandths"]

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
_HASH = re.compile(r"[0-9a-f]{12,}")
# Patch edge (14 px) times merge size (2) and the default pixel limits of Qwen2.5-VL's processor.
_QWEN25_FACTOR = 28
_QWEN25_MIN_PIXELS = 4 * 28 * 28
_QWEN25_MAX_PIXELS = 16384 * 28 * 28


@dataclass(frozen=True)
class PixelLimits:
    """Area (px) within which the processor of Qwen2.5-VL keeps the images that it resizes."""

    min_pixels: int = _QWEN25_MIN_PIXELS
    max_pixels: int = _QWEN25_MAX_PIXELS

    @classmethod
    def of(cls, mm_processor_kwargs: Mapping[str, Any] | None) -> "PixelLimits":
        """The limits that a processor keeps which is given `mm_processor_kwargs`.

        They are `min_pixels` and `max_pixels`, or `size: {shortest_edge, longest_edge}`, which in
        spite of its names counts pixels too; where both are given the former win, as in the
        processors and in vLLM. Raises SurroundingsError for what is no count of pixels.
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
                    f"vlm.sampling.mm_processor_kwargs.{key} is {value!r}; expected a count of "
                    "pixels, for example 401408"
                )
            limits[name] = int(value)
        return cls(**limits)


@dataclass(frozen=True)
class CoordinateFrame:
    """What the numbers of a model's reply count in, for one image of `width` x `height` px."""

    convention: Convention
    width: int
    height: int
    limits: PixelLimits = PixelLimits()  # of Qwen2.5-VL's processor, for resized_pixels

    @property
    def extent(self) -> tuple[float, float]:
        """The numbers that stand for the right and the lower edge."""
        if self.convention == "thousandths":
            return 1000.0, 1000.0
        if self.convention == "resized_pixels":
            return qwen25_size(self.width, self.height, self.limits)
        return float(self.width), float(self.height)

    def describe(self) -> str:
        """The line that tells the model what to answer in."""
        if self.convention == "thousandths":
            return "Coordinates: 0 to 1000 of width and height"
        width, height = self.extent
        return f"Coordinates: pixels of the image, origin top left, {width:.0f} x {height:.0f}"

    def point(self, point: Sequence[float]) -> list[float] | None:
        """A point in source pixels, or None if it lies outside the frame."""
        x, y = self._scale(point)
        if not (0 <= x < self.width and 0 <= y < self.height):
            return None
        return [round(x, 1), round(y, 1)]

    def box(self, box: Sequence[float]) -> list[float] | None:
        """A box [x_min, y_min, x_max, y_max] in source pixels, cut to the frame, ordered.

        None if nothing of at least one pixel is left of it.
        """
        x0, y0 = self._scale(box[:2])
        x1, y1 = self._scale(box[2:])
        left, right = sorted((x0, x1))
        top, bottom = sorted((y0, y1))
        cut = [
            round(min(max(value, 0.0), limit), 1)
            for value, limit in (
                (left, self.width),
                (top, self.height),
                (right, self.width),
                (bottom, self.height),
            )
        ]
        if cut[2] - cut[0] < 1 or cut[3] - cut[1] < 1:
            return None
        return cut

    def _scale(self, point: Sequence[float]) -> tuple[float, float]:
        right, bottom = self.extent
        return point[0] * self.width / right, point[1] * self.height / bottom


def convention_of(model: str, configured: str) -> Convention:
    """Return the convention of `model`, unless one is configured; pixels for unknown families."""
    if configured != "auto":
        return configured
    return family_convention(model) or "pixels"


def family_convention(model: str) -> Convention | None:
    """Return the convention of a model's family; None if the family is unknown.

    Understands hub names, Ollama tags, ModelScope's escapes, paths into a hub cache, and local
    folders, whose config.json names the architecture.
    """
    for name in (*_names(model), _architecture(model)):
        squeezed = re.sub(r"[^a-z0-9]", "", name.lower())
        for family, convention in _FAMILIES:
            if family in squeezed:
                return convention
    return None


def _names(model: str) -> list[str]:
    """Return the parts of a model's name or path that may name its family, the likeliest first."""
    parts = [part for part in model.replace("\\", "/").split("/") if part]
    cached = [part for part in parts if part.startswith("models--")]
    named = [part for part in parts if part != "snapshots" and not _HASH.fullmatch(part.lower())]
    return [name.replace("___", ".") for name in (*cached[-1:], *named[-1:])]


def _architecture(model: str) -> str:
    try:
        config = json.loads((Path(model) / "config.json").read_bytes())
        return str(config["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def qwen25_size(
    width: int,
    height: int,
    limits: PixelLimits = PixelLimits(),
) -> tuple[float, float]:
    """Width and height (px) to which Qwen2.5-VL's processor resizes an image.

    Both are multiples of 28, the area lies within the limits, the aspect ratio nearly stays.
    """
    factor = _QWEN25_FACTOR
    new_width = max(factor, round(width / factor) * factor)
    new_height = max(factor, round(height / factor) * factor)
    area = width * height
    if new_width * new_height > limits.max_pixels:
        shrink = math.sqrt(area / limits.max_pixels)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
    elif new_width * new_height < limits.min_pixels:
        grow = math.sqrt(limits.min_pixels / area)
        new_width = math.ceil(width * grow / factor) * factor
        new_height = math.ceil(height * grow / factor) * factor
    return float(new_width), float(new_height)
