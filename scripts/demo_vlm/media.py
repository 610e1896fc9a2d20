"""Pictures and clips of a request, decoded to RGB arrays."""

import base64
import binascii
import io
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import cv2
import numpy as np

# Frames of a clip that are kept, evenly spread: enough for 2 per second over half a minute.
MAX_CLIP_FRAMES = 64


class MediaError(ValueError):
    """A image or clip of the request cannot be read; the message is for the caller."""


@dataclass(frozen=True)
class Clip:
    """Frames (H x W x 3 uint8 RGB) of a clip, their times (s) from its first frame on.

    `frame_count` counts all frames of the clip, also those that were not kept; `duration_s` lasts
    to the end of the last frame.
    """

    frames: tuple[np.ndarray, ...]
    times_s: tuple[float, ...]
    frame_count: int
    duration_s: float


@dataclass(frozen=True)
class Media:
    """All images (H x W x 3 uint8 RGB) and clips of a request, in order."""

    images: list[np.ndarray] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)


def load_bytes(url: str) -> bytes:
    """Return the bytes of a `data:` or `file:` URL. Raises MediaError."""
    if url.startswith("data:"):
        head, comma, payload = url.partition(",")
        if not comma:
            raise MediaError("a data URL has no comma between its media type and its data")
        if not head.endswith(";base64"):
            return unquote_to_bytes(payload)
        try:
            return base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError) as error:
            raise MediaError(f"a data URL holds no valid base64: {error}") from error
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        path = Path(unquote(parts.path))
        try:
            return path.read_bytes()
        except OSError as error:
            raise MediaError(f"{path} cannot be read: {error.strerror}") from error
    raise MediaError(
        f"URLs of the kind {url[:40]!r} are not fetched: send a data: URL, or file:// if the "
        "server shares the disk"
    )


def decode_image(data: bytes) -> np.ndarray:
    """Return a JPEG or PNG as H x W x 3 uint8 RGB. Raises MediaError."""
    if not data:
        raise MediaError("a image is empty (0 bytes)")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise MediaError(f"a image of {len(data)} bytes cannot be decoded: {error}") from error
    if image is None:
        raise MediaError(
            f"a image of {len(data)} bytes cannot be decoded: expected a whole JPEG or PNG"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_clip(data: bytes) -> Clip:
    """Return at most MAX_CLIP_FRAMES frames of a clip that PyAV can read. Raises MediaError."""
    # Imported here: most requests hold no clip, and the import costs as much as answering one.
    import av

    try:
        with av.open(io.BytesIO(data)) as container:
            if not container.streams.video:
                raise MediaError("a clip has no video stream")
            stream = container.streams.video[0]
            stream.thread_count = 1
            rate = float(stream.average_rate or 0) or 1.0
            total = stream.frames or 0
            step = max(1, -(-total // MAX_CLIP_FRAMES))
            frames: list[np.ndarray] = []
            times: list[float] = []
            count = 0
            first = last = 0.0
            for frame in container.decode(stream):
                time_s = count / rate if frame.time is None else float(frame.time)
                first = time_s if count == 0 else first
                last = time_s - first
                if count % step == 0:
                    frames.append(frame.to_ndarray(format="rgb24"))
                    times.append(last)
                    # The header may not say how many frames there are: thin out as they come.
                    if len(frames) > 2 * MAX_CLIP_FRAMES:
                        del frames[1::2], times[1::2]
                        step *= 2
                count += 1
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"a clip of {len(data)} bytes cannot be decoded: {error}") from error
    if not frames:
        raise MediaError("a clip holds no frame")
    return Clip(tuple(frames), tuple(times), count, last + 1 / rate)
