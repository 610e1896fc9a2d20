"""Contact sheets: many frames in one image, each with its time burned in."""

import functools
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cuesheet.artifacts.episode import Keyframe

# Height of the burned-in time as a share of the tile's height. For tiles 224 px wide it is 20 to
# 27 px, about one visual patch (28 px) of the common models.
TEXT_HEIGHT = 0.12


@dataclass(frozen=True)
class Sheet:
    """A grid of frames in reading order; the image is drawn when it is first used."""

    frames: tuple[Keyframe, ...]
    columns: int
    tile_size: tuple[int, int]  # width and height (px)

    @property
    def times_s(self) -> tuple[float, ...]:
        return tuple(frame.timestamp_s for frame in self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image (px)."""
        rows = math.ceil(len(self.frames) / self.columns)
        return self.columns * self.tile_size[0], rows * self.tile_size[1]

    @functools.cached_property
    def image(self) -> Image.Image:
        """The image. Unused tiles in the last row are black."""
        image = Image.new("RGB", self.size)
        width, height = self.tile_size
        for position, frame in enumerate(self.frames):
            row, column = divmod(position, self.columns)
            image.paste(_tile(frame, self.tile_size), (column * width, row * height))
        return image


def _tile(frame: Keyframe, size: tuple[int, int]) -> Image.Image:
    with Image.open(frame.path) as source:
        tile = source.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(tile)
    text = f"{frame.timestamp_s:.2f}s"
    # Digits are about 0.72 of the font size high: scale the font so that they have TEXT_HEIGHT.
    font = ImageFont.load_default(size=max(8, round(TEXT_HEIGHT * size[1] / 0.72)))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    margin = max(2, round(0.02 * size[1]))
    plate_top = size[1] - (bottom - top) - 2 * margin
    draw.rectangle((0, plate_top, right - left + 2 * margin, size[1]), fill=(0, 0, 0))
    draw.text((margin - left, plate_top + margin - top), text, fill=(255, 255, 255), font=font)
    return tile


def compose(
    frames: Sequence[Keyframe], *, columns: int, per_sheet: int, tile_width: int
) -> list[Sheet]:
    """Arrange `frames` in sheets of at most `per_sheet` tiles, `columns` per row.

    All tiles are `tile_width` px wide; their height keeps the aspect ratio of the frames.
    """
    across = min(columns, len(frames))
    sheets = []
    for start in range(0, len(frames), per_sheet):
        shown = frames[start : start + per_sheet]
        height = max(1, round(tile_width * shown[0].height / shown[0].width))
        sheets.append(Sheet(tuple(shown), across, (tile_width, height)))
    return sheets


def describe_layout(sheets: Sequence[Sheet]) -> str:
    """Return the text that explains the sheets to a model: one line of times per sheet."""
    noun = "contact sheet" if len(sheets) == 1 else "contact sheets"
    lines = [f"Images: {len(sheets)} {noun}, {sheets[0].columns} columns, read row by row."]
    for number, sheet in enumerate(sheets, 1):
        lines.append(f"Sheet {number}: " + " ".join(f"{time:.2f}" for time in sheet.times_s))
    lines += [
        "A sheet is a grid of frames of one video in the order of time, from left to right, then",
        "from top to bottom. The time of each frame, in seconds, is burned into its lower left",
        "corner; tiles without a frame are black.",
    ]
    return "\n".join(lines)


def encode(image: Image.Image, image_format: str, jpeg_quality: int) -> tuple[bytes, str]:
    """Encode an image as `jpeg` or `png`. Return the bytes and their media type."""
    buffer = io.BytesIO()
    if image_format == "jpeg":
        image.save(buffer, "JPEG", quality=jpeg_quality)
    else:
        image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), f"image/{image_format}"


def load_formats() -> None:
    """Import Pillow's modules for the common image formats."""
    Image.preinit()


def encode_file(path: Path, image_format: str, jpeg_quality: int) -> tuple[bytes, str]:
    """Return the PNG at `path`, unchanged or converted to JPEG, and its media type."""
    if image_format == "png":
        return path.read_bytes(), "image/png"
    with Image.open(path) as image:
        return encode(image.convert("RGB"), image_format, jpeg_quality)
