"""Correction files as the review page reads and writes them (format: docs/corrections.md).

A version is named by the hash of its bytes, so that a page learns that a file was changed by
someone else since it read it. What is replaced in spite of that is set aside, not lost.
"""

import csv
import hashlib
import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuesheet.artifacts.corrections import check_applied, parse_correction
from cuesheet.artifacts.episode import read_episode
from cuesheet.errors import CuesheetError
from cuesheet.files import write_json, write_text

NOTHING = "none"  # the version of an episode without a file


@dataclass(frozen=True)
class Saved:
    """The corrections of an episode, None where it has none, and which version that is."""

    version: str
    content: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        return {"etag": self.version, "file": self.content}


class ConflictError(Exception):
    """The file is another than the one that was to be replaced; `saved` is what is there."""

    def __init__(self, saved: Saved) -> None:
        super().__init__("the file was changed")
        self.saved = saved


class CorrectionFolder:
    """The corrections of one dataset.

    Args:
        folder: holds {episode}.json or {episode}.csv, the episode in six digits.
        dataset: its name, as it stands in the files.
        set_aside: where replaced versions go.
        keyframes: of the dataset's results; what is written is checked against them where they are.
    """

    def __init__(
        self, folder: Path, dataset: str, set_aside: Path, keyframes: Path | None = None
    ) -> None:
        self.folder = folder
        self.dataset = dataset
        self.set_aside = set_aside
        self.keyframes = keyframes

    def read(self, episode_index: int) -> Saved:
        """Raises CuesheetError for a file that is not JSON (or CSV) of the format."""
        path = self._path(episode_index)
        if path is None:
            return Saved(NOTHING, None)
        data = path.read_bytes()
        try:
            text = data.decode("utf-8-sig")
            content = json.loads(text) if path.suffix == ".json" else self._of_csv(text, path)
        except (ValueError, KeyError) as error:
            raise CuesheetError(f"{path} cannot be read ({error}); correct or delete it") from None
        if not isinstance(content, dict):
            raise CuesheetError(f"{path} is no JSON object; correct or delete it")
        return Saved(hashlib.sha256(data).hexdigest(), content)

    def write(self, episode_index: int, content: dict[str, Any] | None, expected: str) -> Saved:
        """Replace the corrections of an episode, with None: delete them.

        `expected` is the version that is replaced, `*` any. A version that the writer had not seen,
        and a CSV file, are set aside first. Raises ConflictError where there is another one, and
        CuesheetError where the next run would refuse `content`.
        """
        self._check(episode_index, content)
        saved, path = self.read(episode_index), self._path(episode_index)
        if expected not in ("*", saved.version) and content != saved.content:
            raise ConflictError(saved)
        if path is not None and (expected == "*" or path.suffix == ".csv"):
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            name = f"{path.stem}-{stamp}-{saved.version[:8]}{path.suffix}"
            write_text(self.set_aside / name, path.read_text(encoding="utf-8-sig"))
        if content is not None:
            write_json(self.folder / f"{episode_index:06d}.json", content)
        if path is not None and (content is None or path.suffix == ".csv"):
            path.unlink(missing_ok=True)
        return self.read(episode_index)

    def _path(self, episode_index: int) -> Path | None:
        for suffix in (".json", ".csv"):
            path = self.folder / f"{episode_index:06d}{suffix}"
            if path.is_file():
                return path
        return None

    def _of_csv(self, text: str, path: Path) -> dict[str, Any]:
        rows = [
            {
                "start_s": float(row["start"]),
                **({"end_s": float(row["end"])} if row.get("end") else {}),
                "label": row["text"],
            }
            for row in csv.DictReader(io.StringIO(text))
        ]
        head = {"format": 1, "dataset": self.dataset, "episode_index": int(path.stem)}
        return {**head, "subtasks": rows}

    def _check(self, episode_index: int, content: dict[str, Any] | None) -> None:
        if content is None:
            return
        correction = parse_correction(content, self.dataset, episode_index)
        keyframes = self.keyframes and self.keyframes / f"{episode_index:06d}"
        if keyframes and keyframes.is_dir():
            check_applied(correction, read_episode(keyframes))
