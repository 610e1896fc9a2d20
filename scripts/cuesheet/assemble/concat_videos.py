"""Concatenates the videos of single episodes to files of many, without encoding them again.

Used when a dataset is converted from v2.1 to v3.0. After that, every episode's frames are located
in the range that the new metadata states.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from cuesheet.dataset.index_state import file_state
from cuesheet.dataset.metadata import Dataset
from cuesheet.errors import CuesheetError
from cuesheet.files import atomic_path, read_json, write_json
from cuesheet.media.ffmpeg import input_options, run_ffmpeg
from cuesheet.media.packets import (
    CONTAINER_FORMATS,
    locate_range,
    open_video,
    time_base_of,
    video_stream,
)

CHUNK_FILES = 1000
VIDEO_FILE_MB = 200
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

_MB = 1 << 20
_MANIFEST = "concatenated_videos.json"


@dataclass(frozen=True)
class Placed:
    """The range of an episode: [from_s, to_s) seconds of a video file that episodes share."""

    episode_index: int
    chunk_index: int
    file_index: int
    from_s: float
    to_s: float


@dataclass(frozen=True)
class _Piece:
    """The video of one episode. `coding` must be the same for all videos of a file."""

    episode_index: int
    length: int
    path: Path
    duration_s: float
    shown_s: float  # of the episode's frames, if the video continues after them
    coding: str


def concat_videos(dataset: Dataset, annotated: Path) -> dict[str, list[Placed]]:
    """Concatenate every camera's videos below `annotated`; return the ranges of the episodes.

    A file whose sources have not changed is not written again: the manifest next to `annotated`
    lists the sources of each file. Raises CuesheetError if a video cannot be read, or an episode's
    frames are not in its range.
    """
    manifest = annotated.parent / _MANIFEST
    files = read_json(manifest).get("files")
    known = files if isinstance(files, dict) else {}
    sources: dict[str, list[str]] = {}
    placed: dict[str, list[Placed]] = {}
    for camera in (*dataset.cameras.values(), *dataset.excluded_cameras.values()):
        if camera.kind != "video":
            continue
        placed[camera.key] = []
        for number, pieces in enumerate(_files_of(_pieces(dataset, camera.key))):
            place = divmod(number, CHUNK_FILES)
            file = VIDEO_PATH.format(
                video_key=camera.key, chunk_index=place[0], file_index=place[1]
            )
            sources[file] = [f"{piece.path} {file_state(piece.path)}" for piece in pieces]
            joined = annotated / file
            if known.get(file) != sources[file] or not joined.is_file():
                _join(pieces, joined, dataset.fps, camera.key)
            placed[camera.key] += _places(pieces, *place)
    write_json(manifest, {"format": 1, "files": sources})
    return placed


def video_files(placed: Mapping[str, Sequence[Placed]]) -> set[str]:
    """Return the concatenated files, relative to the dataset's root."""
    return {
        VIDEO_PATH.format(
            video_key=camera, chunk_index=place.chunk_index, file_index=place.file_index
        )
        for camera, places in placed.items()
        for place in places
    }


def as_columns(camera: str, places: Sequence[Placed]) -> dict[str, list[float]]:
    """Return the columns of meta/episodes with the ranges of the episodes."""
    return {
        f"videos/{camera}/chunk_index": [place.chunk_index for place in places],
        f"videos/{camera}/file_index": [place.file_index for place in places],
        f"videos/{camera}/from_timestamp": [place.from_s for place in places],
        f"videos/{camera}/to_timestamp": [place.to_s for place in places],
    }


def _pieces(dataset: Dataset, camera: str) -> Iterator[_Piece]:
    for episode in dataset.episodes:
        video = episode.videos.get(camera) or episode.excluded_videos[camera]
        path = dataset.root / video.file
        label = f"episode {episode.episode_index}, camera {camera}, {path}"
        try:
            with open_video(path, label) as container:
                stream = video_stream(container, label)
                codec = stream.codec_context
                frames = stream.frames
                duration = stream.duration
                if duration is not None:
                    duration_s = float(duration * time_base_of(stream, label))
                elif container.duration is not None:
                    duration_s = container.duration / av.time_base
                else:
                    raise CuesheetError(f"{label}: the video has no duration; it may be truncated")
                coding = (
                    f"{codec.codec.canonical_name} {codec.width}x{codec.height} {codec.pix_fmt} "
                    f"{stream.time_base} {(codec.extradata or b'').hex()}"
                )
        except (av.FFmpegError, OSError) as error:
            raise CuesheetError(f"{label}: the video cannot be read ({error})") from None
        shown_s = duration_s
        if frames > episode.length:
            shown_s = duration_s * episode.length / frames
        yield _Piece(episode.episode_index, episode.length, path, duration_s, shown_s, coding)


def _files_of(pieces: Iterator[_Piece]) -> Iterator[list[_Piece]]:
    """Yield the videos of each file: at most VIDEO_FILE_MB, and of one coding."""
    held: list[_Piece] = []
    size = 0
    for piece in pieces:
        more = piece.path.stat().st_size
        if held and (size + more >= VIDEO_FILE_MB * _MB or piece.coding != held[0].coding):
            yield held
            held, size = [], 0
        held.append(piece)
        size += more
    if held:
        yield held


def _places(pieces: Sequence[_Piece], chunk_index: int, file_index: int) -> list[Placed]:
    places = []
    from_s = 0.0
    for piece in pieces:
        to_s = from_s + piece.shown_s
        places.append(Placed(piece.episode_index, chunk_index, file_index, from_s, to_s))
        from_s += piece.duration_s
    return places


def _join(pieces: Sequence[_Piece], joined: Path, fps: float, camera: str) -> None:
    with (
        atomic_path(joined) as temporary,
        tempfile.NamedTemporaryFile("w", suffix=".ffconcat", encoding="utf-8") as listed,
    ):
        listed.write("ffconcat version 1.0\n")
        for piece in pieces:
            name = str(piece.path.resolve()).replace("'", "'\\''")
            # Without a duration, the next file begins at the end of the last packet. That differs
            # from the metadata if an edit list shifts the packets.
            listed.write(f"file '{name}'\nduration {piece.duration_s:.6f}\n")
        listed.flush()
        run_ffmpeg(
            [
                *("-y", *input_options(f"concat,{CONTAINER_FORMATS}")),
                *("-f", "concat", "-safe", "0", "-i", listed.name),
                *("-map", "0:v:0", "-c", "copy", "-movflags", "+faststart", str(temporary)),
            ],
            f"concatenating {len(pieces)} videos of camera {camera} to {joined}",
        )
        for place, piece in zip(_places(pieces, 0, 0), pieces, strict=True):
            label = f"episode {piece.episode_index}, camera {camera}, from {piece.path}"
            at = {"from_s": place.from_s, "to_s": place.to_s, "fps": fps}
            found = locate_range(temporary, **at, length=piece.length, label=label)
            if found is None:
                raise CuesheetError(
                    f"{label}: the video has more frames than the episode's {piece.length}, so it "
                    "cannot be concatenated with others; set output.format to source"
                )
