"""Reads the frames of image cameras, which are encoded images in the data files.

A cell is a struct{bytes, path} or plain binary. An image without bytes is a file of the dataset.
"""

import collections
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from cuesheet.errors import CuesheetError
from cuesheet.files import is_inside
from cuesheet.media.decode import RgbFrame
from cuesheet.media.packets import check_frame_size

Cell = dict[str, Any]  # bytes and path

_BATCH_BYTES = 4 << 20  # of images, read at once
_MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr")


def read_images(
    data_file: Path | str,
    *,
    root: Path | str,
    camera: str,
    row_from: int,
    frame_indices: Sequence[int],
    label: str,
) -> Iterator[RgbFrame]:
    """Yield the images of `frame_indices` (sorted, distinct): rows `row_from` + index.

    An image without bytes is read from its path, relative to `root`. Transparency is dropped.
    Raises CuesheetError if the column, a row or an image is missing or cannot be read.
    """
    label = f"{label}, {data_file}"
    wanted = [row_from + index for index in frame_indices]
    for row, cell in _read_cells(Path(data_file), camera, wanted, label):
        index = row - row_from
        yield _decode(cell, Path(root), index, f"{label}: frame {index}")


def _read_cells(
    data_file: Path, camera: str, rows: Sequence[int], label: str
) -> Iterator[tuple[int, Cell]]:
    """Read only the camera's column of the row groups that hold wanted rows.

    A row group may hold an hour of images: a few are read at a time, up to the last wanted one.
    """
    try:
        # By default, pyarrow loads the column of all row groups at once.
        file = pq.ParquetFile(data_file, pre_buffer=False, buffer_size=1 << 20)
    except (OSError, ValueError) as error:
        raise CuesheetError(f"{label}: the data file cannot be read ({error})") from error
    with file:
        if camera not in file.schema_arrow.names:
            raise CuesheetError(
                f"{label}: there is no column {camera!r} with the camera's images; the columns are "
                f"{', '.join(file.schema_arrow.names)}"
            )
        if rows and rows[-1] >= file.metadata.num_rows:
            raise CuesheetError(
                f"{label}: the file has {file.metadata.num_rows} rows, but row {rows[-1]} was "
                "expected; the metadata and the data file do not agree"
            )
        remaining = collections.deque(rows)
        begin = 0
        for group in range(file.num_row_groups):
            group_rows = file.metadata.row_group(group).num_rows
            if remaining and remaining[0] < begin + group_rows:
                yield from _cells_of_group(file, group, begin, camera, remaining)
            begin += group_rows


def _cells_of_group(
    file: pq.ParquetFile, group: int, begin: int, camera: str, remaining: collections.deque[int]
) -> Iterator[tuple[int, Cell]]:
    """Yield the wanted cells of the row group that starts at row `begin`; pop their rows."""
    end = begin + file.metadata.row_group(group).num_rows
    size = _batch_rows(file.metadata.row_group(group), camera)
    for batch in file.iter_batches(size, row_groups=[group], columns=[camera], use_threads=False):
        while remaining and remaining[0] < begin + len(batch):
            row = remaining.popleft()
            yield row, batch.column(0)[row - begin].as_py()
        if not remaining or remaining[0] >= end:
            return
        begin += len(batch)


def _batch_rows(group: pq.RowGroupMetaData, camera: str) -> int:
    chunks = [group.column(number) for number in range(group.num_columns)]
    size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.startswith(camera))
    return max(1, min(1024, _BATCH_BYTES * group.num_rows // max(size, 1)))


def _decode(cell: Cell | bytes | None, root: Path, frame_index: int, label: str) -> RgbFrame:
    cell = {"bytes": cell} if isinstance(cell, bytes) else cell or {}  # some write plain binary
    data, path = cell.get("bytes"), cell.get("path")
    if data is None:
        if not path:
            raise CuesheetError(f"{label} has no image: neither bytes nor a path")
        data = _read_image_file(root, str(path), label)
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_frame_size(image.width, image.height, label)
            if image.mode not in _MODES:
                raise CuesheetError(
                    f"{label} is an image of mode {image.mode}; expected 8 bits per channel. Depth "
                    "cameras are not annotated: list the others in the setting `cameras`"
                )
            rgb = image.convert("RGB")
            return RgbFrame(frame_index, rgb.width, rgb.height, rgb.tobytes())
    except UnidentifiedImageError:
        raise CuesheetError(f"{label}: the image has no known format") from None
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise CuesheetError(f"{label}: the image cannot be decoded ({error})") from error


def _read_image_file(root: Path, name: str, label: str) -> bytes:
    """Read the image at `name` of the dataset, which is not trusted: no other file is read."""
    path = root / name
    if (
        "\0" in name
        or Path(name).is_absolute()
        or ".." in Path(name).parts
        or not is_inside(root, path)
    ):
        raise CuesheetError(
            f"{label}: the image path {name!r} leads out of the dataset {root}; expected a path "
            "inside it"
        )
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise CuesheetError(f"{label}: the image cannot be read ({error})") from error
