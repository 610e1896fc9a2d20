"""Correction files as the review page reads and writes them (format: docs/corrections.md).

The version of a file is the hash of its bytes. The page sends the version that it last read, so a
file that somebody else changed in the meantime is never overwritten by accident. A file that is
overwritten on purpose is backed up first.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuesheet.artifacts.apply_corrections import check_applied
from cuesheet.artifacts.corrections import (
    Correction,
    check_correction,
    decode_correction,
    files_below,
    parse_correction,
)
from cuesheet.artifacts.episode import read_episode
from cuesheet.artifacts.index import read_indexed_episode
from cuesheet.artifacts.layout import Layout, episode_name
from cuesheet.errors import CuesheetError
from cuesheet.files import write_json, write_text

_CHANGES = ("subtasks", "rephrasings", "interjections", "vqa")  # parts that change rows
NO_FILE = "none"  # the version of an episode that has no correction file


@dataclass(frozen=True)
class SavedCorrection:
    """The corrections of an episode and their version; `content` is None if there is no file."""

    version: str
    content: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        return {"etag": self.version, "file": self.content, "effect": effect(self.content)}


def effect(content: Mapping[str, Any] | None) -> str | None:
    """Return a hash of the parts of a correction that change the dataset; None if it changes none.

    The review page compares it with that of the corrections that the annotations include.
    """
    given = content or {}
    parts = {name: given.get(name) for name in _CHANGES}
    parts["bad"] = given.get("verdict") == "bad"
    if not any(value or value == [] for value in parts.values()):
        return None
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def marks(content: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the list of episodes shows of a correction."""
    given = content or {}
    return {
        "verdict": given.get("verdict"),
        "done": bool(given.get("done")),
        "corrected": any(given.get(name) is not None for name in _CHANGES),
        "effect": effect(content),
    }


class ConflictError(Exception):
    """The file changed since the writer read it; `saved` is its current content."""

    def __init__(self, saved: SavedCorrection) -> None:
        super().__init__("the correction file changed since it was read")
        self.saved = saved


class CorrectionFolder:
    """The correction files of one dataset.

    Args:
        folder: contains {episode}.json or {episode}.csv, with six digits for the episode.
        dataset: name of the dataset, as written in the files.
        backups: folder for the previous versions of files that are overwritten.
        results: result folder of the dataset. If given, a correction is checked against the index
            and the keyframes before it is written.
    """

    def __init__(
        self, folder: Path, dataset: str, backups: Path, results: Path | None = None
    ) -> None:
        self.folder = folder
        self.dataset = dataset
        self.backups = backups
        self.results = results

    def read(self, episode_index: int) -> SavedCorrection:
        """Read the corrections of an episode.

        Raises:
            CuesheetError: the file is neither JSON nor a CSV table of subtasks.
        """
        path = self._path(episode_index)
        if path is None:
            return SavedCorrection(NO_FILE, None)
        data = path.read_bytes()
        content = decode_correction(data, path, self.dataset)
        return SavedCorrection(hashlib.sha256(data).hexdigest(), content)

    def all_marks(self) -> list[dict[str, Any]]:
        """Return the marks of all episodes that have a readable correction file."""
        found = []
        for index in files_below(self.folder):
            try:
                found.append({"episode_index": index, **marks(self.read(index).content)})
            except CuesheetError:
                continue  # opening the episode reports the problem
        return found

    def write(
        self, episode_index: int, content: dict[str, Any] | None, expected: str
    ) -> SavedCorrection:
        """Replace the corrections of an episode, or delete them if `content` is None.

        Args:
            episode_index: episode to correct.
            content: the new correction file.
            expected: version that the writer wants to replace; `*` replaces any version. The old
                file is backed up if `expected` is `*` or the file is a CSV table.

        Raises:
            ConflictError: the file has another version.
            CuesheetError: the next run would reject `content`.
        """
        if content is not None:
            self._check(episode_index, parse_correction(content, self.dataset, episode_index))
        saved, path = self.read(episode_index), self._path(episode_index)
        if expected not in ("*", saved.version) and content != saved.content:
            raise ConflictError(saved)
        if path is not None and (expected == "*" or path.suffix == ".csv"):
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            name = f"{path.stem}-{stamp}-{saved.version[:8]}{path.suffix}"
            write_text(self.backups / name, path.read_text(encoding="utf-8-sig"))
        if content is not None:
            write_json(self.folder / f"{episode_name(episode_index)}.json", content)
        if path is not None and (content is None or path.suffix == ".csv"):
            path.unlink(missing_ok=True)
        return self.read(episode_index)

    def _path(self, episode_index: int) -> Path | None:
        for suffix in (".json", ".csv"):
            path = self.folder / f"{episode_name(episode_index)}{suffix}"
            if path.is_file():
                return path
        return None

    def _check(self, episode_index: int, correction: Correction) -> None:
        if self.results is None:
            return
        layout = Layout(self.results)
        episode = read_indexed_episode(layout.index, episode_index)
        cameras = [camera.camera for camera in episode.cameras]
        check_correction(correction, episode.length, episode.fps, cameras)
        keyframes = layout.keyframes(episode_index)
        if keyframes.is_dir():
            check_applied(correction, read_episode(keyframes))


def parse_request(body: bytes) -> dict[str, Any] | None:
    """Parse the body of a write request: a correction, or null to delete the file.

    Raises:
        CuesheetError: the body is not JSON, is nested too deeply, contains text that is not
            Unicode, or is neither an object nor null.
    """
    try:
        content = json.loads(body)
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise CuesheetError("the request is nested too deeply") from None
    except UnicodeEncodeError:
        raise CuesheetError("the request contains a surrogate, which is not valid text") from None
    except ValueError as error:
        raise CuesheetError(f"the request is not valid JSON: {error}") from None
    if not (content is None or isinstance(content, dict)):
        raise CuesheetError("the request must be a JSON object or null")
    return content
