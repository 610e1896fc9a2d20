"""Cuts an episode out of its video file: yuv420p, no sound, exactly the episode's frames.

A clip is H.264, or AV1 if the source's stream can be copied and the settings allow it. The frames
keep their distances in time; a clip of images has a constant rate. The index (moov) precedes the
frames, so that a browser can start playback before it has the whole file. H.264 in yuv420p needs
even sizes: the last column or row of a frame of odd width or height is repeated. A display rotation
is removed.
"""

import dataclasses
import errno
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.frame import PictureType
from av.video.stream import VideoStream

from cuesheet.errors import CuesheetError
from cuesheet.files import atomic_path, temporary_folder
from cuesheet.media.decode import RgbFrame, decode_video, filter_graph, filtered
from cuesheet.media.packets import (
    EpisodeFrames,
    demux_from,
    locate_range,
    open_video,
    unreadable,
    video_stream,
)


@dataclass(frozen=True, slots=True)
class ClipSettings:
    """How clips are encoded.

    Streams of the codecs in `copied` are copied if that gives exactly the same frames; all others
    are encoded as H.264.
    """

    preset: str = "ultrafast"
    crf: int = 23
    copied: frozenset[str] = frozenset({"h264"})

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "ClipSettings":
        """Return the settings in the configuration's section `media`."""
        copied = {"auto": {"h264", "av1"}, "h264": {"h264"}}[settings["clip_codec"]]
        return cls(
            preset=settings["clip_preset"],
            crf=settings["clip_crf"],
            copied=frozenset(copied) if settings["clip_copy"] else frozenset(),
        )


def write_clip(clip: Path | str, episode: EpisodeFrames, settings: ClipSettings) -> str:
    """Write the clip of an episode in a video file; return "copied" or "encoded".

    Raises CuesheetError if the source cannot be read or the clip has the wrong number of frames.
    """
    with atomic_path(clip) as temporary:
        if episode.source.codec in settings.copied and can_copy(episode):
            try:
                _copy(temporary, episode)
                _verify(temporary, len(episode.pts), episode.label)
                way = "copied"
            except (CuesheetError, av.FFmpegError):
                # For example, mp4 does not accept the packets. Encoding always works.
                way = "encoded"
        else:
            way = "encoded"
        if way == "encoded":
            _encode(temporary, episode, settings)
            _verify(temporary, len(episode.pts), episode.label)
    return way


class ClipCutter:
    """Cuts ranges of frames out of an episode's clip at `path`."""

    def __init__(self, path: Path | str, *, length: int, end_s: float, fps: float) -> None:
        self._path = Path(path)
        frames = locate_range(path, from_s=0.0, to_s=end_s, length=length, fps=fps, label="clip")
        if frames is None:
            raise CuesheetError(
                f"{path} has more than the {length} frames of its episode; delete it and run again"
            )
        self._frames = frames

    def cut(self, start_frame: int, end_frame: int) -> bytes:
        """Return the frames [start_frame, end_frame) as an H.264 clip.

        If these are all frames, the clip itself is returned.
        """
        frames = self._frames
        if (start_frame, end_frame) == (0, len(frames.pts)):
            return self._path.read_bytes()
        part = dataclasses.replace(frames, pts=frames.pts[start_frame:end_frame])
        with temporary_folder() as folder:
            target = folder / "part.mp4"
            write_clip(target, part, ClipSettings(copied=frozenset()))
            return target.read_bytes()


def write_clip_of_images(
    clip: Path | str,
    frames: Iterable[RgbFrame],
    *,
    length: int,
    fps: float,
    settings: ClipSettings,
    label: str,
) -> None:
    """Write the clip of an image camera, `length` frames at `fps`.

    Raises CuesheetError if frames are missing or differ in size.
    """
    time_base = 1 / Fraction(fps).limit_denominator(100_000)
    with atomic_path(clip) as temporary:
        numbered = enumerate(map(_video_frame, frames))
        _write_h264(temporary, numbered, time_base, fps, settings, label)
        _verify(temporary, length, label)


def can_copy(episode: EpisodeFrames) -> bool:
    """Return whether the episode's packets can be copied.

    They can if the source is yuv420p, the episode starts on an I-frame, and its packets are
    contiguous in decoding order, so that no frame depends on one outside.
    """
    source = episode.source
    if source.pixel_format != "yuv420p":
        return False
    positions = {packet.pts: i for i, packet in enumerate(source.packets) if packet.shown}
    first = positions[episode.pts[0]]
    inside = source.packets[first : first + len(episode.pts)]
    return (
        source.packets[first].keyframe
        and all(packet.shown for packet in inside)
        and sorted(packet.pts for packet in inside) == list(episode.pts)
    )


def count_frames(clip: Path | str, label: str) -> int:
    """Return the number of frames that a player shows, counted without decoding.

    Raises CuesheetError if the file cannot be read.
    """
    try:
        with open_video(clip, label) as container:
            stream = video_stream(container, label)
            packets = container.demux(stream)
            return sum(1 for packet in packets if packet.size and not packet.is_discard)
    except (av.FFmpegError, OSError) as error:
        raise unreadable(f"{label}: {clip}", error) from error


def _copy(target: Path, episode: EpisodeFrames) -> None:
    with open_video(episode.source.path, episode.label) as container:
        stream = video_stream(container, episode.label)
        _write_upright(target, stream, _packets_of(container, stream, episode))


def _packets_of(
    container: av.container.InputContainer, stream: av.VideoStream, episode: EpisodeFrames
) -> Iterator["av.Packet[Any]"]:
    """Yield the packets of an episode, with times from 0."""
    first_pts = episode.pts[0]
    remaining = len(episode.pts)
    for packet in demux_from(container, stream, first_pts, episode.source.first_dts):
        if remaining == len(episode.pts) and packet.pts != first_pts:
            continue
        if packet.pts is None or packet.dts is None:
            raise CuesheetError(f"{episode.label}: a packet has no time")
        packet.pts -= first_pts
        packet.dts -= first_pts
        yield packet
        remaining -= 1
        if remaining == 0:
            break


def _write_upright(
    target: Path, stream: av.VideoStream, packets: Iterable["av.Packet[Any]"]
) -> None:
    """Write packets of `stream` as they are, without a display rotation."""
    options = {"movflags": "+faststart"}  # the index precedes the frames
    with av.open(str(target), "w", format="mp4", options=options) as output:
        copied = output.add_stream_from_template(stream, opaque=True)  # no encoder is needed
        copied.set_display_rotation(0)
        for packet in packets:
            packet.stream = copied
            output.mux(packet)


def _encode(target: Path, episode: EpisodeFrames, settings: ClipSettings) -> None:
    base = episode.source.time_base
    _write_h264(target, _frames_of(episode), base, episode.fps, settings, episode.label)


def _frames_of(episode: EpisodeFrames) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield the decoded frames of an episode, with times from 0."""
    first_pts = episode.pts[0]
    try:
        for pts, frame in decode_video(episode, set(episode.pts)):
            yield pts - first_pts, frame
    except (av.FFmpegError, OSError) as error:
        raise unreadable(episode.label, error) from error


def _write_h264(
    target: Path,
    frames: Iterable[tuple[int, av.VideoFrame]],
    time_base: Fraction,
    fps: float,
    settings: ClipSettings,
    label: str,
) -> None:
    """Encode `frames`, each with its pts in units of `time_base`, in one thread.

    Raises CuesheetError if there are none, if they differ in size, or if encoding fails.
    """
    # Without the encoder's version in the file, other releases write the same bytes.
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    duration = max(1, round(1 / (fps * time_base)))  # players skip a last frame of duration 0
    stream: VideoStream | None = None
    try:
        with av.open(str(target), "w", format="mp4", options=options) as output:
            for number, (pts, frame) in enumerate(frames):
                size = (frame.width, frame.height, frame.format.name)
                if stream is None:
                    first_size = size
                    graph = filter_graph(frame, time_base, *_to_even_yuv420p(frame))
                if size != first_size:
                    raise CuesheetError(
                        f"{label}: frame {number} has {size[0]} x {size[1]} pixels ({size[2]}), "
                        f"frame 0 has {first_size[0]} x {first_size[1]} ({first_size[2]}); all "
                        "frames of a camera in an episode must have one size and format"
                    )
                frame.pts = pts
                converted = filtered(graph, frame)
                converted.pict_type = PictureType.NONE  # the encoder places its own I-frames
                if stream is None:
                    stream = _add_h264(output, converted, time_base, fps, settings)
                _mux(output, stream.encode(converted), duration)
            if stream is None:
                raise CuesheetError(f"{label}: the video has no frames that can be decoded")
            _mux(output, stream.encode(None), duration)
    except (av.FFmpegError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # `atomic_path` names the full disk
        raise CuesheetError(f"{label}: the clip cannot be encoded ({error})") from error


def _video_frame(frame: RgbFrame) -> av.VideoFrame:
    import numpy as np  # for image cameras only: jobs of videos start faster without it

    pixels = np.frombuffer(frame.data, np.uint8).reshape(frame.height, frame.width, 3)
    return av.VideoFrame.from_ndarray(pixels, format="rgb24")


def _to_even_yuv420p(frame: av.VideoFrame) -> list[tuple[str, str]]:
    """Return the filters that repeat the last column or row of odd sizes and convert the pixels."""
    right, bottom = frame.width % 2, frame.height % 2
    filters = [("scale", "flags=bicubic:out_range=tv"), ("format", "yuv420p")]
    if right or bottom:
        filters.insert(0, ("fillborders", f"right={right}:bottom={bottom}:mode=smear"))
        filters.insert(0, ("pad", f"{frame.width + right}:{frame.height + bottom}"))
    return filters


def _add_h264(
    output: av.container.OutputContainer,
    frame: av.VideoFrame,
    time_base: Fraction,
    fps: float,
    settings: ClipSettings,
) -> VideoStream:
    """Add a stream for frames like `frame`."""
    options = {"preset": settings.preset, "crf": str(settings.crf), "flags": "+bitexact"}
    rate = Fraction(fps).limit_denominator(100_000)
    stream = output.add_stream("libx264", rate=rate, options=options)
    codec = stream.codec_context
    # Times would be rounded to whole frame periods otherwise.
    codec.time_base = stream.time_base = time_base
    codec.thread_count = 1
    codec.width, codec.height, codec.pix_fmt = frame.width, frame.height, frame.format.name
    for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(codec, name, getattr(frame, name))
    return stream


def _mux(
    output: av.container.OutputContainer, packets: Iterable["av.Packet[Any]"], duration: int
) -> None:
    for packet in packets:
        packet.duration = duration
        output.mux(packet)


def _verify(clip: Path, length: int, label: str) -> None:
    found = count_frames(clip, label)
    if found != length:
        raise CuesheetError(
            f"{label}: the clip has {found} frames, but the episode has {length}; the video may be "
            "truncated or damaged: compare it with the original and copy it again"
        )
