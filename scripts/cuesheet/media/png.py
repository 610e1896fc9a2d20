"""PNG files, lossless and fast.

Measured on a 640x480 camera frame: fpng 1.3 ms, zlib with one filter 7.5 ms, OpenCV level 1 15 ms,
Pillow level 1 16 ms, Pillow's default 75 ms; files are a quarter larger than OpenCV's.
"""

from pathlib import Path

import fpng


def write_png(path: Path | str, data: bytes, width: int, height: int) -> None:
    """Write `height` x `width` x 3 bytes (RGB, row by row) as an 8-bit RGB PNG."""
    if len(data) != width * height * 3:
        raise ValueError(f"{len(data)} bytes are not {width}x{height} RGB pixels")
    Path(path).write_bytes(fpng.from_bytes(data, width, height, 3))
