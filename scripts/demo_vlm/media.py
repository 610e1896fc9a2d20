"""Images and clips of a request, decoded to RGB arrays."""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np

# Frames of a clip that are kept, evenly spread: enough for 2 per second over half a minute.
MAX_CLIP_FRAMES = 64


class MediaError(ValueError):
    """An image or clip of the request cannot be read; the message is for the caller."""


@dataclass(frozen=True)
class Clip:
    """Frames (H x W x 3 uint8 RGB) of a clip and their times (s) from its first frame on.

    `frame_count` counts all frames of the clip, also those that were not kept; `duration_s` lasts
    to the end of the last frame.
    """

    frames: list[np.ndarray]
    times_s: list[float]
    frame_count: int
    duration_s: float


@dataclass(frozen=True)
class Media:
    """All images (H x W x 3 uint8 RGB) and clips of a request, in order."""

    images: list[np.ndarray] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)


def load_bytes(url: str) -> bytes:
    """Return the bytes of a base64 `data:` URL or of a `file:` URL. Raises MediaError."""
    head, _, payload = url.partition(",")
    if head.startswith("data:") and head.endswith(";base64"):
        try:
            return base64.b64decode(payload, validate=True)
        except ValueError as error:
            raise MediaError(f"a data URL holds no valid base64: {error}") from error
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        path = Path(unquote(parts.path))
        try:
            return path.read_bytes()
        except OSError as error:
            raise MediaError(f"{path} cannot be read: {error.strerror}") from error
    raise MediaError(
        f"URLs such as {url[:40]!r} are not fetched: send a data: URL with base64, or file:// if "
        "the server shares the disk"
    )


def decode_image(data: bytes) -> np.ndarray:
    """Return a JPEG or PNG as H x W x 3 uint8 RGB. Raises MediaError."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # no bytes at all
        image = None
    if image is None:
        raise MediaError(f"{len(data)} bytes cannot be decoded: expected a whole JPEG or PNG")
    return image


def decode_clip(data: bytes) -> Clip:
    """Return at most MAX_CLIP_FRAMES frames of a clip that PyAV can read. Raises MediaError."""
    # Imported here: most requests hold no clip, and the import costs as much as answering one.
    import av

    frames, times = [], []
    try:
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.video[0]
            step = -(-stream.frames // MAX_CLIP_FRAMES) or 1
            rate = float(stream.average_rate or 1)
            for number, frame in enumerate(container.decode(stream)):
                times.append(frame.time or 0.0)
                if number % step == 0:
                    frames.append(frame.to_ndarray(format="rgb24"))
    except (av.FFmpegError, IndexError) as error:
        raise MediaError(f"a clip of {len(data)} bytes cannot be decoded: {error}") from error
    if not frames:
        raise MediaError("a clip holds no frame")
    since_first = [time - times[0] for time in times]
    return Clip(frames, since_first[::step], len(times), since_first[-1] + 1 / rate)
