"""Statistics of episodes in LeRobot's form: {feature: {statistic: value}}.

Statistics are `min`, `max`, `mean`, `std` and `count`; quantiles may be added. Values of a vector
have its shape, of a camera (channels, 1, 1) with colors from 0 to 1, of `count` (1,).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cuesheet.dataset.fingerprint import leaves
from cuesheet.dataset.metadata import Camera, Dataset, Episode
from cuesheet.errors import CuesheetError
from cuesheet.media.decode import decode_frames
from cuesheet.media.image_columns import read_images
from cuesheet.media.packets import locate_range

EpisodeStatistics = Mapping[str, Mapping[str, Any]]

# Frames per episode and camera from which the statistics of a camera are computed.
SAMPLED_FRAMES = 32
_NEEDED = frozenset({"min", "max", "mean", "std", "count"})


def complete_statistics(
    dataset: Dataset, known: Mapping[int, EpisodeStatistics]
) -> list[dict[str, dict[str, Any]]]:
    """Return the statistics of every episode; compute those of episodes that lack any.

    Raises CuesheetError if a data file or a video cannot be read.
    """
    return [
        _in_one_shape(known[episode.episode_index], dataset)
        if _is_complete(known.get(episode.episode_index))
        else compute_statistics(dataset, episode)
        for episode in dataset.episodes
    ]


def compute_statistics(dataset: Dataset, episode: Episode) -> dict[str, dict[str, Any]]:
    """Compute the statistics of one episode of a v2.1 dataset, whose data file has no other."""
    path = dataset.root / episode.data_file
    cameras = {**dataset.cameras, **dataset.excluded_cameras}
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in dataset.info["features"] if name not in cameras]
            names = [name for name in names if name in file.schema_arrow.names]
            table = file.read(columns=names)
    except (OSError, pa.ArrowException) as error:
        raise CuesheetError(f"{path} cannot be read: {error}") from None
    found = {}
    for name in names:
        values = _as_numbers(table.column(name))
        if values is not None and len(values):
            found[name] = _summarize(values, axes=(0,))
    for camera in dataset.cameras.values():
        colors = _sample_colors(dataset, episode, camera)
        statistics = _summarize(colors, axes=(0, 1, 2))
        statistics["count"] = [len(colors)]
        found[camera.key] = {
            key: value if key == "count" else np.reshape(value, (-1, 1, 1)).tolist()
            for key, value in statistics.items()
        }
    return found


def aggregate(statistics: Sequence[EpisodeStatistics]) -> dict[str, dict[str, Any]]:
    """Combine the statistics of episodes into those of the whole dataset.

    Means are weighted by count; variances include the spread of the means (Chan et al., 1979).
    """
    whole: dict[str, dict[str, Any]] = {}
    for feature in dict.fromkeys(key for one in statistics for key in one):
        known = [one[feature] for one in statistics if feature in one]
        names = [name for name in known[0] if all(name in one for one in known)]
        arrays = {name: np.stack([np.asarray(one[name]) for one in known]) for name in names}
        mean, std, count = arrays["mean"], arrays["std"], arrays["count"]
        weights = count.reshape(count.shape + (1,) * (mean.ndim - count.ndim))
        total = count.sum(axis=0)
        whole_mean = (mean * weights).sum(axis=0) / total
        variance = ((std**2 + (mean - whole_mean) ** 2) * weights).sum(axis=0) / total
        found = {
            "min": arrays["min"].min(axis=0),
            "max": arrays["max"].max(axis=0),
            "mean": whole_mean,
            "std": np.sqrt(variance),
            "count": total,
        }
        for name in arrays.keys() - found.keys():  # quantiles
            found[name] = (arrays[name] * weights).sum(axis=0) / total
        whole[feature] = {name: value.tolist() for name, value in found.items()}
    return whole


def _is_complete(statistics: EpisodeStatistics | None) -> bool:
    """Tell whether every feature has all statistics, without missing numbers."""
    for values in (statistics or {}).values():
        if not set(values) >= _NEEDED:
            return False
        if any(leaf is None for name in _NEEDED for leaf in leaves(values[name])):
            return False
    return bool(statistics)


def _in_one_shape(statistics: EpisodeStatistics, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Return statistics of cameras in the shape (channels, 1, 1); some recorders write (channels,).

    A file of many episodes needs one shape per column.
    """
    cameras = {**dataset.cameras, **dataset.excluded_cameras}
    return {
        feature: {
            name: np.reshape(value, (-1, 1, 1)).tolist()
            if feature in cameras and name != "count"
            else value
            for name, value in values.items()
        }
        for feature, values in statistics.items()
    }


def _as_numbers(column: pa.ChunkedArray) -> np.ndarray | None:
    """Return a column as float64 [frames, values per frame]; None if it is not numeric."""
    rows = column.to_pylist()
    try:
        return np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)
    except (TypeError, ValueError):
        return None


def _summarize(values: np.ndarray, axes: tuple[int, ...]) -> dict[str, Any]:
    return {
        "min": values.min(axis=axes).tolist(),
        "max": values.max(axis=axes).tolist(),
        "mean": values.mean(axis=axes).tolist(),
        "std": values.std(axis=axes).tolist(),
        "count": [len(values)],
    }


def _sample_colors(dataset: Dataset, episode: Episode, camera: Camera) -> np.ndarray:
    """Return evenly spaced frames as [frames, height, width, 3], colors from 0 to 1."""
    label = f"episode {episode.episode_index}, camera {camera.key}"
    count = min(SAMPLED_FRAMES, episode.length)
    indices = np.linspace(0, episode.length - 1, count).round().astype(int).tolist()
    if camera.kind == "image":
        frames = read_images(
            dataset.root / episode.data_file,
            root=dataset.root,
            camera=camera.key,
            row_from=0,
            frame_indices=indices,
            label=label,
        )
    else:
        video = episode.videos[camera.key]
        path, length = dataset.root / video.file, episode.length
        located = None
        # The video of a v2.1 episode may continue after the episode's frames.
        for to_s in (video.to_s, video.from_s + length / dataset.fps):
            located = located or locate_range(
                path, from_s=video.from_s, to_s=to_s, length=length, fps=dataset.fps, label=label
            )
        if located is None:
            raise CuesheetError(
                f"{label}: the video has more frames than the episode's {episode.length}, so its "
                "statistics cannot be computed; set output.format to source"
            )
        frames = decode_frames(located, indices, "pyav")
    arrays = [
        np.frombuffer(frame.data, np.uint8).reshape(frame.height, frame.width, 3)
        for frame in frames
    ]
    return np.stack(arrays) / 255
