"""Cuts an episode out of its video file: yuv420p, no sound, exactly the episode's frames.

A clip is H.264, or AV1 if the source's stream can be copied and the settings allow it. The frames
keep their distances in time; a clip of images has a constant rate. The index (moov) precedes the
frames, so that a browser can start playback before it has the whole file. H.264 in yuv420p needs
even sizes: the last column or row of a frame of odd width or height is repeated. A display rotation
is removed.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from cuesheet.errors import CuesheetError
from cuesheet.files import atomic_path, temporary_folder
from cuesheet.media.decode import RgbFrame, any_pts, ffmpeg_input
from cuesheet.media.ffmpeg import copies_rotation, passthrough_options, run_ffmpeg, write_frames
from cuesheet.media.packets import (
    EpisodeFrames,
    demux_from,
    locate_range,
    open_video,
    unreadable,
    video_stream,
)

# Keyframes and boxes are in the pixels of the stored frame, so a clip must not be rotated either.
_NO_ROTATION = "sidedata=mode=delete:type=DISPLAYMATRIX"


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
    width: int,
    height: int,
    fps: float,
    settings: ClipSettings,
    label: str,
) -> None:
    """Write the clip of an image camera, `length` frames at `fps`.

    Raises CuesheetError if frames are missing or differ in size.
    """
    rate = Fraction(fps).limit_denominator(100_000)
    arguments = ["-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{width}x{height}"]
    arguments += ["-framerate", str(rate), "-i", "-"]
    arguments += _encoding(width, height, "", settings, 1 / rate, fps)
    with atomic_path(clip) as temporary:
        write_frames(
            [*arguments, str(temporary)],
            (_sized(frame, width, height, label) for frame in frames),
            label,
        )
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
    source = episode.source
    first, last = episode.pts[0], episode.pts[-1]
    select = f"between(pts,{first},{last})"
    chosen = set(episode.pts)
    between = {
        packet.pts for packet in source.packets if packet.shown and first < packet.pts < last
    }
    if others := sorted(between - chosen):
        select += f"*not({any_pts(others)})"
    filters = f"select='{select}',setpts=PTS-STARTPTS,{_NO_ROTATION}"
    base = source.time_base
    run_ffmpeg(
        [
            *("-y", *ffmpeg_input(source, chosen), *passthrough_options()),
            *("-frames:v", str(len(episode.pts))),
            *_encoding(source.width, source.height, filters, settings, base, episode.fps),
            str(target),
        ],
        f"{episode.label}: encoding the clip",
    )
    if copies_rotation():
        _remove_rotation(target, episode.label)


def _remove_rotation(clip: Path, label: str) -> None:
    """Remove the display rotation of a clip.

    It is known only once a frame is decoded. Raises CuesheetError if the clip cannot be read.
    """
    try:
        with open_video(clip, label) as container:
            stream = video_stream(container, label)
            first = next(container.decode(stream), None)
            if first is None or first.rotation == 0:
                return
            container.seek(0)
            with temporary_folder() as folder:
                upright = folder / "upright.mp4"
                packets = (packet for packet in container.demux(stream) if packet.size)
                _write_upright(upright, stream, packets)
                content = upright.read_bytes()
    except av.FFmpegError as error:
        raise unreadable(f"{label}: {clip}", error) from error
    clip.write_bytes(content)


def _encoding(
    width: int,
    height: int,
    filters: str,
    settings: ClipSettings,
    time_base: Fraction,
    fps: float,
) -> list[str]:
    """Return the output options: even size, libx264, only the video, index first, one thread.

    The encoder's time base is set, because times would be rounded to whole frame periods otherwise.
    The duration is set, because some releases of ffmpeg write 0 for the last frame, which players
    then skip.
    """
    chain = [filters] if filters else []
    duration = max(1, round(1 / (fps * time_base)))
    if width % 2 or height % 2:
        right, bottom = width % 2, height % 2
        chain.append(f"pad={width + right}:{height + bottom}")
        chain.append(f"fillborders=right={right}:bottom={bottom}:mode=smear")
    return [
        *("-filter_threads", "1", *(("-vf", ",".join(chain)) if chain else ())),
        *("-map_metadata", "-1", "-an", "-sn", "-dn"),
        *("-c:v", "libx264", "-preset", settings.preset, "-crf", str(settings.crf)),
        *("-pix_fmt", "yuv420p", "-threads", "1"),
        *("-enc_time_base", f"{time_base.numerator}/{time_base.denominator}"),
        *("-bsf:v", f"setts=pts=PTS:dts=DTS:duration={duration}"),
        *("-fflags", "+bitexact", "-flags:v", "+bitexact", "-movflags", "+faststart", "-f", "mp4"),
    ]


def _sized(frame: RgbFrame, width: int, height: int, label: str) -> bytes:
    if (frame.width, frame.height) != (width, height):
        raise CuesheetError(
            f"{label}: frame {frame.frame_index} has {frame.width} x {frame.height} pixels, frame "
            f"0 has {width} x {height}; all frames of a camera in an episode must have one size"
        )
    return frame.data


def _verify(clip: Path, length: int, label: str) -> None:
    found = count_frames(clip, label)
    if found != length:
        raise CuesheetError(
            f"{label}: the clip has {found} frames, but the episode has {length}; the video may be "
            "truncated or damaged: compare it with the original and copy it again"
        )
