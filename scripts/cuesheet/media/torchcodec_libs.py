"""Provides PyAV's FFmpeg libraries to torchcodec if the system has none. Linux only.

torchcodec loads libraries by names such as `libavcodec.so.62`; PyAV's wheel contains the same
libraries under names with a hash. This module creates a folder of links with the expected names and
prints `export LD_LIBRARY_PATH=...`:

    eval $(python -m cuesheet.media.torchcodec_libs)

torchcodec must support PyAV's release of FFmpeg (PyAV 18: FFmpeg 8, torchcodec 0.9 and later).
"""

import importlib.util
import os
import re
import shlex
import sys
from pathlib import Path

from cuesheet.errors import CuesheetError

_LIBRARY = re.compile(r"(lib(?:av\w+|sw\w+))-[0-9a-f]+(\.so\.\d+)[.\d]*")


def link_libraries(folder: Path) -> Path:
    """Fill `folder` with links to PyAV's libraries and return it.

    Raises CuesheetError if PyAV is missing or was built against libraries of the system.
    """
    spec = importlib.util.find_spec("av")
    if spec is None or spec.origin is None:
        raise CuesheetError("the package av (PyAV) is not installed; install it: pip install av")
    libraries = Path(spec.origin).parent.parent / "av.libs"
    if not libraries.is_dir():
        raise CuesheetError(
            f"{libraries} does not exist: this PyAV uses the system's FFmpeg libraries, and "
            "torchcodec can use them too; no links are needed"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for library in sorted(libraries.iterdir()):
        names = [library.name]
        if match := _LIBRARY.fullmatch(library.name):
            names.append(match[1] + match[2])
        for name in names:
            link = folder / name
            link.unlink(missing_ok=True)
            link.symlink_to(library)
    return folder


def main() -> None:
    folder = link_libraries(Path(sys.prefix) / "lib" / "ffmpeg-of-pyav")
    rest = os.environ.get("LD_LIBRARY_PATH")
    value = f"{folder}:{rest}" if rest else str(folder)
    print(f"export LD_LIBRARY_PATH={shlex.quote(value)}")


if __name__ == "__main__":
    try:
        main()
    except CuesheetError as error:
        sys.exit(f"ERROR: {error}")
