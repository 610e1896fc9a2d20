"""FFmpeg's shared libraries for torchcodec, if the system has none: those inside PyAV.

torchcodec loads `libavcodec.so.62` and the like by these names; PyAV's wheel has the same libraries
under names with a hash. A folder of links gives them the names that are looked for:

    eval $(python -m cuesheet.media.torchcodec_libs)

prints, and so runs, `export LD_LIBRARY_PATH=…`. PyAV must bring a release of FFmpeg that torchcodec
knows (PyAV 18: FFmpeg 8, known to torchcodec 0.9 and later). Linux only.
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
            f"{libraries} is not there: this PyAV uses FFmpeg libraries of the system, and "
            "torchcodec can use the same ones; nothing has to be linked"
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
