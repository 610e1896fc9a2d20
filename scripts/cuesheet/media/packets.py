"""Locates the frames of an episode among the packets of a video file.

A file holds many consecutive episodes. The presentation times (pts) of the packets decide; they are
read without decoding, and only around the episode. Frame 0 of the file is the first frame that is
shown (edit lists are applied, and the first pts may be other than 0). The range [from_s, to_s) of
an episode is in seconds from that frame.
"""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.stream import VideoStream

from cuesheet.artifacts.sampling import nearest_index
from cuesheet.errors import CuesheetError

# Distance of the first search for an I-frame before a wanted time; doubled until one is found.
_FIRST_STEP_S = 0.5
# Relative difference that the rates of data and video may have: 29.97 and 30 differ by 0.001.
_PACE = 0.01
# FFmpeg's names of the demuxers for MP4 and MOV, Matroska and WebM, and AVI.
CONTAINER_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
# The largest frame that is decoded: beyond any camera, and 200 MB as RGB.
MAX_PIXELS = 1 << 26


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded frame. Times are in units of the stream's time base."""

    pts: int
    dts: int
    keyframe: bool
    shown: bool  # false: decoded only because others depend on it, removed by an edit list


@dataclass(frozen=True, slots=True)
class PacketRange:
    """Consecutive packets of a file in decoding order, starting at an I-frame."""

    path: Path
    time_base: Fraction
    first_dts: int  # of the file's first packet
    origin_pts: int  # of the file's first frame
    packets: tuple[Packet, ...]
    width: int
    height: int
    codec: str  # FFmpeg's name, e.g. "h264", "av1"
    pixel_format: str

    @property
    def starts_file(self) -> bool:
        """Tell whether the range starts at the file's first packet."""
        return self.packets[0].dts <= self.first_dts

    def seconds(self, pts: int) -> float:
        """Return the time of a pts in seconds from the file's first frame."""
        return float((pts - self.origin_pts) * self.time_base)


@dataclass(frozen=True, slots=True)
class EpisodeFrames:
    """The frames of one episode: `pts[i]` is the pts of frame i in the stream's time base."""

    source: PacketRange
    pts: tuple[int, ...]
    fps: float
    label: str  # "episode 3, camera observation.images.front, <file>", for messages


def locate_episode(
    path: Path | str,
    *,
    from_s: float,
    to_s: float,
    timestamps_s: Sequence[float],
    fps: float,
    label: str,
) -> EpisodeFrames:
    """Find the frame of every timestamp: the nearest to `from_s` + timestamp within the episode.

    `timestamps_s` (seconds from the episode's start, increasing) has one entry per frame; `label`
    opens the messages. If the timestamps do not fit but the video has exactly as many frames and
    nearly the same length (wall-clock timestamps, or 29.97 frames per second instead of 30), the
    n-th frame belongs to the n-th timestamp.

    Raises CuesheetError if the range holds fewer frames than timestamps, if a timestamp is
    farther than half a frame period from every frame, and if two fall on one frame.
    """
    label = f"{label}, {path}"
    source, candidates = _frames_between(path, from_s, to_s, fps, label)
    _require_enough(candidates, len(timestamps_s), from_s, to_s, label)
    times = [source.seconds(pts) for pts in candidates]
    wanted = [from_s + float(timestamp) for timestamp in timestamps_s]
    try:
        pts = _choose(candidates, times, wanted, fps, label)
    except CuesheetError:
        if len(wanted) != len(times) or len(times) < 2:
            raise
        pace = (times[-1] - times[0]) / (wanted[-1] - wanted[0])
        if abs(pace - 1) > _PACE:
            raise
        pts = tuple(candidates)
    return EpisodeFrames(source=source, pts=pts, fps=fps, label=label)


def _choose(
    candidates: Sequence[int],
    times: Sequence[float],
    wanted_s: Sequence[float],
    fps: float,
    label: str,
) -> tuple[int, ...]:
    """Return the pts among `candidates`, shown at `times`, that is nearest to each wanted time."""
    # One thousandth more for timestamps that are stored as float32.
    tolerance_s = 0.5 / fps * 1.001
    chosen: list[int] = []
    for index, wanted in enumerate(wanted_s):
        nearest = nearest_index(times, wanted)
        if abs(times[nearest] - wanted) > tolerance_s:
            raise CuesheetError(
                f"{label}: frame {index} should be at {wanted:.6f} s of the video, but the nearest "
                f"of the episode's frames is at {times[nearest]:.6f} s, more than half a frame "
                f"period ({0.5 / fps:.6f} s) away; the metadata and the video do not agree"
            )
        if chosen and candidates[nearest] <= chosen[-1]:
            raise CuesheetError(
                f"{label}: frames {index - 1} and {index} (at {wanted:.6f} s) both fall on the "
                f"video's frame at {times[nearest]:.6f} s; the timestamps and the video do not "
                "agree"
            )
        chosen.append(candidates[nearest])
    return tuple(chosen)


def locate_range(
    path: Path | str, *, from_s: float, to_s: float, length: int, fps: float, label: str
) -> EpisodeFrames | None:
    """Return the `length` frames between `from_s` and `to_s`; None if there are more of them.

    This needs no timestamps; if it returns None, `locate_episode` selects frames by timestamp.
    Raises CuesheetError if there are fewer frames.
    """
    label = f"{label}, {path}"
    source, candidates = _frames_between(path, from_s, to_s, fps, label)
    _require_enough(candidates, length, from_s, to_s, label)
    if len(candidates) > length:
        return None
    return EpisodeFrames(source=source, pts=tuple(candidates), fps=fps, label=label)


def read_packets(path: Path | str, from_s: float, to_s: float, label: str) -> PacketRange:
    """Read the packets from the I-frame at or before `from_s` to the last one before `to_s`.

    Nothing is decoded. The range may end a little after `to_s`.
    Raises CuesheetError if the file cannot be read, has no video or frames without a time.
    """
    try:
        with open_video(path, label) as container:
            stream = video_stream(container, label)
            time_base = time_base_of(stream, label)
            first_dts, origin = _file_start(container, stream, label)
            begin = origin + int(from_s / time_base)
            end = origin + int(to_s / time_base) + 1
            packets: list[Packet] = []
            for raw in demux_from(container, stream, begin, first_dts):
                packet = _packet(raw, label)
                packets.append(packet)
                if packet.dts > end:
                    break
            codec = stream.codec_context
            return PacketRange(
                path=Path(path),
                time_base=time_base,
                first_dts=first_dts,
                origin_pts=origin,
                packets=tuple(packets),
                width=codec.width,
                height=codec.height,
                codec=codec.codec.canonical_name,
                pixel_format=codec.pix_fmt or "",
            )
    except (av.FFmpegError, OSError) as error:
        raise unreadable(label, error) from error


def open_video(path: Path | str, label: str) -> av.container.InputContainer:
    """Open a video file of a dataset, which is not trusted.

    Only container formats that hold the frames themselves are opened, and only local files. A
    playlist (HLS, DASH, ffconcat, SDP) could make FFmpeg read any file of this machine or network.
    Raises CuesheetError for a playlist, av.FFmpegError or OSError if the file cannot be opened.
    """
    options = {"format_whitelist": CONTAINER_FORMATS, "protocol_whitelist": "file"}
    try:
        return av.open(str(path), options=options)
    except av.FFmpegError:
        with Path(path).open("rb") as file:
            head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
        if head.startswith((b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"v=0")):
            raise CuesheetError(
                f"{label}: the file is a playlist, which refers to other files; expected a video "
                "(MP4, MOV, Matroska, WebM or AVI)"
            ) from None
        raise


def unreadable(label: str, error: Exception) -> CuesheetError:
    """Return the error for a file that FFmpeg's libraries cannot read."""
    reason = getattr(error, "strerror", None) or error
    return CuesheetError(
        f"{label}: the video cannot be read ({reason}); it may be truncated or damaged: compare it "
        "with the original and copy it again"
    )


def video_stream(container: av.container.InputContainer, label: str) -> VideoStream:
    """Return the first video stream.

    Raises CuesheetError if there is none, or if its frames are too large to decode.
    """
    if not container.streams.video:
        raise CuesheetError(f"{label}: the file has no video stream; expected one")
    stream = container.streams.video[0]
    check_frame_size(stream.codec_context.width, stream.codec_context.height, label)
    return stream


def time_base_of(stream: VideoStream, label: str) -> Fraction:
    """Return the unit of the stream's times in seconds. Raises CuesheetError if it has none."""
    if stream.time_base is None:
        raise CuesheetError(f"{label}: the video has no unit of time; it may be damaged")
    return stream.time_base


def check_frame_size(width: int, height: int, label: str) -> None:
    """Raise CuesheetError if a frame of this size is too large to decode."""
    if width * height > MAX_PIXELS:
        raise CuesheetError(
            f"{label}: the frame has {width} x {height} pixels; at most {MAX_PIXELS:,} pixels are "
            "decoded (8192 x 8192)"
        )


def demux_from(
    container: av.container.InputContainer,
    stream: VideoStream,
    pts: int,
    first_dts: int,
) -> Iterator["av.Packet[VideoStream]"]:
    """Yield packets in decoding order, from the last I-frame that is shown at or before `pts`.

    A seek finds I-frames by their decoding time, which may be earlier than the time at which they
    are shown. It is repeated farther back until the I-frame is early enough, at most to the start
    of the file, `first_dts`.
    """
    step = max(1, int(_FIRST_STEP_S / time_base_of(stream, "video")))
    target = pts
    while True:
        container.seek(max(target, first_dts), stream=stream, backward=True)
        packets = (packet for packet in container.demux(stream) if packet.size)
        first = next(packets, None)
        if first is None:
            return
        if first.is_keyframe and first.pts is not None and first.pts <= pts:
            break
        if target <= first_dts:
            break
        target -= step
        step *= 2
    yield first
    yield from packets


def _file_start(
    container: av.container.InputContainer, stream: VideoStream, label: str
) -> tuple[int, int]:
    """Return the decoding time of the first packet and the pts of the first frame shown."""
    first_dts: int | None = None
    first_pts: int | None = None
    for raw in container.demux(stream):
        if not raw.size:
            continue
        packet = _packet(raw, label)
        if first_dts is None:
            first_dts = packet.dts
        if first_pts is not None and packet.dts > first_pts:
            break
        if packet.shown and (first_pts is None or packet.pts < first_pts):
            first_pts = packet.pts
    if first_dts is None or first_pts is None:
        raise CuesheetError(f"{label}: the video has no frames")
    return first_dts, first_pts


def _packet(raw: "av.Packet[VideoStream]", label: str) -> Packet:
    if raw.pts is None:
        raise CuesheetError(
            f"{label}: the video has frames without a presentation time; convert it to mp4, for "
            "example with: ffmpeg -i FILE -c copy FILE.mp4"
        )
    dts = raw.pts if raw.dts is None else raw.dts
    return Packet(raw.pts, dts, raw.is_keyframe, not (raw.is_discard or raw.is_corrupt))


def _frames_between(
    path: Path | str, from_s: float, to_s: float, fps: float, label: str
) -> tuple[PacketRange, list[int]]:
    """Return the packets around an episode and the sorted pts of its frames.

    The limits are half a frame period early, halfway between the frames of two episodes.
    """
    if not Path(path).is_file():
        raise CuesheetError(f"{label}: the file does not exist")
    half_s = 0.5 / fps
    source = read_packets(path, from_s - half_s, to_s - half_s, label)
    shown = sorted({packet.pts for packet in source.packets if packet.shown})
    times = [source.seconds(pts) for pts in shown]
    begin = bisect.bisect_left(times, from_s - half_s)
    end = bisect.bisect_left(times, to_s - half_s)
    return source, shown[begin:end]


def _require_enough(
    found: Sequence[int], length: int, from_s: float, to_s: float, label: str
) -> None:
    if len(found) < length:
        raise CuesheetError(
            f"{label}: the episode has {length} frames, but the video has {len(found)} between "
            f"{from_s:.6f} s and {to_s:.6f} s; the file may be truncated, or the metadata belongs "
            "to another version of it"
        )
