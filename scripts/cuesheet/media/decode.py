"""Decodes selected frames exactly, with ffmpeg, PyAV or torchcodec.

Every decoder returns the same bytes: the frame with exactly that pts, converted to RGB by FFmpeg's
scaler with its default flags (bicubic), which honors the range and matrix that the video states.
Frames are returned as stored: a display rotation is not applied.

Frames are selected by exact pts, never by a time that a decoder would round, and they are counted.
"""

import collections
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av

from cuesheet.errors import CuesheetError
from cuesheet.media.ffmpeg import input_options, passthrough_options, read_frames
from cuesheet.media.packets import (
    CONTAINER_FORMATS,
    EpisodeFrames,
    PacketRange,
    demux_from,
    open_video,
    unreadable,
    video_stream,
)

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder

# FFmpeg's expression parser fails above 100 consecutive terms: 1,000 frames are 20 groups of 50.
_TERMS = 50
_FRAMES_PER_PROCESS = 1000
# Codecs whose decoders can skip single frames that no other frame depends on. The decoder of AV1
# skips several frames at once.
_SKIPPING = frozenset({"h264", "hevc"})


@dataclass(frozen=True, slots=True)
class RgbFrame:
    """A decoded frame. `data` holds `height` x `width` x 3 bytes, RGB, row by row."""

    frame_index: int
    width: int
    height: int
    data: bytes


def decode_frames(
    episode: EpisodeFrames, frame_indices: Sequence[int], decoder: str
) -> Iterator[RgbFrame]:
    """Yield the frames of `frame_indices` (sorted, distinct) in order.

    `decoder` is "ffmpeg", "pyav" or "torchcodec".
    Raises CuesheetError if the file cannot be decoded, if the decoder does not return exactly these
    frames, or if it is not installed.
    """
    decode = _DECODERS[decoder]
    wanted = {episode.pts[index]: index for index in frame_indices}
    found = 0
    if not wanted:
        return
    for frame in decode(episode, wanted):
        found += 1
        yield frame
    if found != len(wanted):
        raise CuesheetError(
            f"{episode.label}: expected {len(wanted)} frames, but {decoder} returned {found}; the "
            "file may be truncated or damaged"
        )


def _by_ffmpeg(episode: EpisodeFrames, wanted: dict[int, int]) -> Iterator[RgbFrame]:
    ordered = sorted(wanted)
    for begin in range(0, len(ordered), _FRAMES_PER_PROCESS):
        chosen = ordered[begin : begin + _FRAMES_PER_PROCESS]
        yield from _by_one_ffmpeg(episode, chosen, wanted)


def _by_one_ffmpeg(
    episode: EpisodeFrames, chosen: Sequence[int], wanted: dict[int, int]
) -> Iterator[RgbFrame]:
    source = episode.source
    arguments = [*ffmpeg_input(source, set(chosen)), *passthrough_options()]
    select = _any_pts(chosen)
    arguments += ["-filter_threads", "1", "-vf", f"select='{select}',scale=flags=bicubic"]
    arguments += ["-frames:v", str(len(chosen)), "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    width, height = source.width, source.height
    frames = read_frames(arguments, width * height * 3, episode.label)
    for pts, data in zip(chosen, frames, strict=False):
        yield RgbFrame(wanted[pts], width, height, data)
    if next(frames, None) is not None:
        raise CuesheetError(
            f"{episode.label}: ffmpeg returned more bytes than {len(chosen)} frames of {width} x "
            f"{height} pixels"
        )


def ffmpeg_input(source: PacketRange, wanted: set[int]) -> list[str]:
    """Return options that make ffmpeg read from the I-frame before the first wanted pts.

    The frames keep their pts. Some frames before the first wanted one may be returned too.
    """
    options = ["-threads", "1", *input_options(CONTAINER_FORMATS)]
    start = decoding_runs(source, wanted)[0][0]
    if start > 0 or not source.starts_file:
        # Half a tick late, so that rounding to microseconds cannot select an earlier I-frame.
        seek_s = float((source.packets[start].dts + Fraction(1, 2)) * source.time_base)
        options += ["-seek_timestamp", "1", "-noaccurate_seek", "-ss", f"{seek_s:.6f}"]
    return [*options, "-copyts", "-noautorotate", "-i", str(source.path), "-map", "0:v:0"]


def _any_pts(chosen: Sequence[int]) -> str:
    """Return the ffmpeg expression that is not 0 for a frame with any of these pts."""
    groups = (
        "+".join(f"eq(pts,{pts})" for pts in chosen[begin : begin + _TERMS])
        for begin in range(0, len(chosen), _TERMS)
    )
    return "+".join(f"({group})" for group in groups)


def _by_pyav(episode: EpisodeFrames, wanted: dict[int, int]) -> Iterator[RgbFrame]:
    to_rgb = _RgbConverter(episode.source.time_base)
    try:
        for pts, frame in decode_video(episode, wanted):
            yield to_rgb(frame, wanted[pts])
    except (av.FFmpegError, OSError) as error:
        raise unreadable(episode.label, error) from error


def decode_video(
    episode: EpisodeFrames, wanted: Collection[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield the frames with these pts in order, each with its pts, as PyAV decodes them.

    Only the ranges from an I-frame to the last wanted frame that depends on it are decoded. Each
    frame is yielded as soon as it is decoded: a long group of pictures is never held.

    Raises:
        CuesheetError: the file is a playlist or has no video.
        av.FFmpegError, OSError: it cannot be read.
    """
    source = episode.source
    with open_video(source.path, episode.label) as container:
        stream = video_stream(container, episode.label)
        codec = stream.codec_context
        codec.thread_count = 1
        runs = decoding_runs(source, set(wanted))
        first = source.packets[runs[0][0]]
        packets = demux_from(container, stream, first.pts, source.first_dts)
        position = None
        for begin, end in runs:
            order = _PtsOrder(p.pts for p in source.packets[begin : end + 1] if p.pts in wanted)
            for packet in packets:
                if position is None:
                    if packet.pts != first.pts:
                        continue
                    position = runs[0][0]
                current, position = position, position + 1
                if current >= begin:
                    if source.codec in _SKIPPING:
                        # No other frame depends on the skipped frames.
                        codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                    yield from order.ready(codec.decode(packet))
                if current == end:
                    break
            yield from order.rest(codec.decode(None))
            codec.flush_buffers()


class _PtsOrder:
    """Sorts decoded frames by pts and drops those that were not requested.

    Decoders usually return frames in that order, so few frames wait here.
    """

    def __init__(self, wanted: Iterable[int]) -> None:
        self._missing = set(wanted)
        self._due = collections.deque(sorted(self._missing))
        self._waiting: dict[int, av.VideoFrame] = {}

    def ready(self, frames: Sequence[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Return the frames so far that no later frame can precede, sorted by pts."""
        for frame in frames:
            if frame.pts is not None and frame.pts in self._missing:
                self._missing.remove(frame.pts)
                self._waiting[frame.pts] = frame
            while self._due and self._due[0] in self._waiting:
                pts = self._due.popleft()
                yield pts, self._waiting.pop(pts)

    def rest(self, frames: Sequence[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Return the remaining frames at the end of the stream."""
        yield from self.ready(frames)
        for pts in sorted(self._waiting):
            yield pts, self._waiting.pop(pts)


class _RgbConverter:
    """FFmpeg's scaler with its default flags, set up at the first frame."""

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self._shape: tuple[int, int, str] | None = None

    def __call__(self, frame: av.VideoFrame, frame_index: int) -> RgbFrame:
        shape = (frame.width, frame.height, frame.format.name)
        if self._shape != shape:
            self._shape = shape
            self._graph = filter_graph(
                frame, self._time_base, ("scale", "flags=bicubic"), ("format", "rgb24")
            )
        rgb = filtered(self._graph, frame)
        return RgbFrame(frame_index, rgb.width, rgb.height, rgb.to_ndarray().tobytes())


def filter_graph(
    frame: av.VideoFrame, time_base: Fraction, *filters: tuple[str, str]
) -> av.filter.Graph:
    """Return a graph of filters (name, arguments) for frames like `frame`, with one thread."""
    graph = av.filter.Graph()
    graph.threads = 1
    # `Graph.add_buffer` has no color space and range, without which scalers assume others.
    described = {
        "video_size": f"{frame.width}x{frame.height}",
        "pix_fmt": frame.format.name,
        "time_base": time_base,
        "colorspace": int(frame.colorspace),
        "range": int(frame.color_range),
    }
    source = graph.add("buffer", ":".join(f"{name}={value}" for name, value in described.items()))
    chain = [graph.add(name, arguments) for name, arguments in filters]
    graph.link_nodes(source, *chain, graph.add("buffersink")).configure()
    return graph


def filtered(graph: av.filter.Graph, frame: av.VideoFrame) -> av.VideoFrame:
    """Return the frame that the graph makes of `frame`."""
    graph.push(frame)
    result = graph.pull()
    assert isinstance(result, av.VideoFrame)  # a filter graph for audio returns other frames
    return result


def _by_torchcodec(episode: EpisodeFrames, wanted: dict[int, int]) -> Iterator[RgbFrame]:
    source = episode.source
    try:
        # torchcodec has no list of allowed formats: a playlist is rejected here.
        open_video(source.path, episode.label).close()
        decoder = _torchcodec_decoder(source)
        for pts in sorted(wanted):
            # torchcodec returns the frame that is shown at a time: half a tick after it starts.
            pts_s = float(pts * source.time_base)
            frame = decoder.get_frame_played_at(pts_s + float(source.time_base) / 2)
            if abs(frame.pts_seconds - pts_s) > float(source.time_base) / 2:
                raise CuesheetError(
                    f"{episode.label}: torchcodec returned the frame at {frame.pts_seconds:.6f} s "
                    f"for frame {wanted[pts]} at {pts_s:.6f} s; set keyframes.decoder to ffmpeg"
                )
            height, width, _ = frame.data.shape
            yield RgbFrame(wanted[pts], width, height, frame.data.contiguous().numpy().tobytes())
    except (av.FFmpegError, RuntimeError, ValueError, IndexError) as error:
        raise unreadable(episode.label, error) from error


def _torchcodec_decoder(source: PacketRange) -> "VideoDecoder":
    try:
        # Imported only if it is selected: importing it takes over 2 CPU seconds.
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise CuesheetError(
            "keyframes.decoder is torchcodec, which cannot be loaded "
            f"({lines[0] if lines else type(error).__name__}). It needs the packages torch and "
            "torchcodec, and the shared libraries of FFmpeg: install them, or run "
            "`eval $(python -m cuesheet.media.torchcodec_libs)` to use those of PyAV; "
            "or set keyframes.decoder to ffmpeg or pyav"
        ) from error
    return VideoDecoder(
        str(source.path), seek_mode="exact", dimension_order="NHWC", num_ffmpeg_threads=1
    )


def decoding_runs(source: PacketRange, wanted: set[int]) -> list[tuple[int, int]]:
    """Return which packets must be decoded for the frames of these pts: (first, last) positions.

    Each run starts at an I-frame and ends with the last wanted frame that depends on it. A frame
    that is shown before the I-frame of its group (an open group) also needs the group before.
    """
    runs: list[tuple[int, int]] = []
    keyframes: list[int] = []
    for position, packet in enumerate(source.packets):
        if packet.keyframe:
            keyframes.append(position)
        if packet.pts not in wanted or not packet.shown or not keyframes:
            continue
        leading = packet.pts < source.packets[keyframes[-1]].pts
        begin = keyframes[-2] if leading and len(keyframes) > 1 else keyframes[-1]
        while runs and begin <= runs[-1][1]:
            begin = min(begin, runs.pop()[0])
        runs.append((begin, position))
    return runs


_DECODERS: dict[str, Callable[[EpisodeFrames, dict[int, int]], Iterator[RgbFrame]]] = {
    "ffmpeg": _by_ffmpeg,
    "pyav": _by_pyav,
    "torchcodec": _by_torchcodec,
}
