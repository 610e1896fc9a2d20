"""The progress line: updated in place on a terminal, printed now and then elsewhere.

The run's supervisor writes the text of the line into a file next to server.json; Cuesheet's
environment variables name both. `CUESHEET_PROGRESS`: `off`, or the seconds between two updates.
"""

import json
import os
import shutil
import threading
from pathlib import Path
from typing import TextIO

PROGRESS_FILE = "progress.txt"
SERVER_FILE_VARIABLE = "CUESHEET_SERVER_FILE"
PROGRESS_VARIABLE = "CUESHEET_PROGRESS"
TERMINAL_INTERVAL_S = 1.0
FILE_INTERVAL_S = 60.0

_ERASE_LINE = "\r\x1b[K"


class ProgressLine:
    """Shows the progress of a run until `stop`. Other output calls `clear` first, under `lock`."""

    def __init__(self, stream: TextIO, lock: threading.RLock) -> None:
        self._stream = stream
        self._lock = lock
        self._in_place = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._interval_s = _interval_s(self._in_place)
        self._files: list[Path] = []
        self._shown = ""
        self._is_visible = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._interval_s is not None and self._thread is None:
            self._thread = threading.Thread(target=self._loop, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop. If lines were printed (not on a terminal), print the final state as well."""
        self._stop.set()
        with self._lock:
            self.clear()
            if self._shown and not self._in_place:
                self._show(self._read_line())

    def clear(self) -> None:
        """Erase the line if it is on the terminal."""
        if self._is_visible:
            self._stream.write(_ERASE_LINE)
            self._is_visible = False

    def _loop(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                with self._lock:
                    if not self._stop.is_set():
                        self._show(self._read_line())
            except (OSError, ValueError):  # the terminal is gone
                return

    def _show(self, text: str) -> None:
        if self._in_place:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(_ERASE_LINE + text[:width])
            self._stream.flush()
            self._is_visible = bool(text)
        elif text and text != self._shown:
            print(text, file=self._stream, flush=True)
        self._shown = text

    def _read_line(self) -> str:
        server_files = json.loads(os.environ.get(SERVER_FILE_VARIABLE) or "{}")
        if server_files:  # the variable is removed when the run ends
            self._files = [Path(path).with_name(PROGRESS_FILE) for path in server_files.values()]
        return " | ".join(text for path in self._files if (text := _text_of(path)))


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _interval_s(in_place: bool) -> float | None:
    setting = os.environ.get(PROGRESS_VARIABLE, "").strip().lower()
    if setting in ("off", "0", "no", "false"):
        return None
    try:
        return max(0.2, float(setting))
    except ValueError:
        return TERMINAL_INTERVAL_S if in_place else FILE_INTERVAL_S
