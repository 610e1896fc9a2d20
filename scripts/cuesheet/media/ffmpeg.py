"""Finds and runs the ffmpeg program, release 4.4 or later.

Candidates, in this order: the environment variable CUESHEET_FFMPEG, an `ffmpeg` on the PATH, the
program in the package imageio-ffmpeg.
"""

import functools
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cuesheet.errors import CuesheetError

LAST_LINES = 8


@functools.cache
def find_ffmpeg() -> str:
    """Return the path of the ffmpeg program.

    Raises CuesheetError if there is none, or if CUESHEET_FFMPEG does not name a program.
    """
    wanted = os.environ.get("CUESHEET_FFMPEG")
    if wanted:
        found = shutil.which(wanted)
        if found is None:
            raise CuesheetError(
                f"CUESHEET_FFMPEG is {wanted!r}, which is not an executable program; set it to the "
                "path of an ffmpeg program or unset it"
            )
        return found
    return shutil.which("ffmpeg") or _packaged_ffmpeg()


def _packaged_ffmpeg() -> str:
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError:
        raise CuesheetError(
            "no ffmpeg was found: there is none on the PATH, and the package imageio-ffmpeg is not "
            "installed; install one of them or set CUESHEET_FFMPEG to an ffmpeg program"
        ) from None
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise CuesheetError(
            f"no ffmpeg was found: there is none on the PATH, and imageio-ffmpeg has none for this "
            f"platform ({error}); install ffmpeg or set CUESHEET_FFMPEG to an ffmpeg program"
        ) from error


@functools.cache
def _known_options() -> frozenset[str]:
    text = run_ffmpeg(["-h", "long"]).decode(errors="replace")
    return frozenset(re.findall(r"^-(\w+)", text, re.MULTILINE))


def passthrough_options() -> tuple[str, str]:
    """Return the output options that keep every frame with its time: none dropped or repeated.

    `-fps_mode` exists since ffmpeg 5.1; later versions have no `-vsync`.
    """
    return ("-fps_mode" if "fps_mode" in _known_options() else "-vsync", "passthrough")


def input_options(formats: str) -> list[str]:
    """Return the options for an input that is not trusted: only these formats, only local files.

    `formats`: FFmpeg's names of the demuxers, separated by commas.
    """
    return ["-format_whitelist", formats, "-protocol_whitelist", "file"]


def run_ffmpeg(arguments: list[str], purpose: str = "ffmpeg") -> bytes:
    """Run ffmpeg to its end and return its stdout.

    `purpose` starts the error message: what was being done to which file.
    Raises CuesheetError with ffmpeg's last lines if it fails.
    """
    command = ffmpeg_command(arguments)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        raise failure(purpose, command, done.returncode, done.stderr)
    return done.stdout


def ffmpeg_command(arguments: list[str]) -> list[str]:
    """Return the command line: the program, options that leave only errors, then `arguments`."""
    return [find_ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error", *arguments]


def failure(purpose: str, command: list[str], code: int, stderr: bytes) -> CuesheetError:
    """Return the error of a failed run: what was being done, ffmpeg's last lines, the command."""
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    said = "\n".join(f"  {line}" for line in lines[-LAST_LINES:]) or "  (it printed nothing)"
    shown = shlex.join([Path(command[0]).name, *command[1:]])
    if len(shown) > 600:
        shown = f"{shown[:400]} … {shown[-180:]}"
    return CuesheetError(f"{purpose}: ffmpeg exited with {code}:\n{said}\n  ({shown})")


def read_frames(arguments: list[str], frame_bytes: int, purpose: str) -> Iterator[bytes]:
    """Run ffmpeg and yield its stdout in pieces of `frame_bytes`.

    Raises CuesheetError if ffmpeg fails or its output ends within a frame. Closing the iterator
    stops ffmpeg.
    """
    command = ffmpeg_command(arguments)
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr
        ) as process,
    ):
        assert process.stdout is not None
        try:
            while len(data := process.stdout.read(frame_bytes)) == frame_bytes:
                yield data
            process.stdout.close()
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        if code != 0:
            stderr.seek(0)
            raise failure(purpose, command, code, stderr.read())
    if data:
        raise CuesheetError(
            f"{purpose}: the output of ffmpeg ends with {len(data)} bytes of a frame; expected "
            f"{frame_bytes}"
        )
