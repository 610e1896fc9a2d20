"""The cache of responses: one readable JSON file per response, named by what determines it.

`<folder>/<first two hex digits>/<sha256>.json` has a description of the request (media as hash and
size, never their bytes), the response as the server sent it, and the time of the request. Writers
rename a finished file into place, so any number of processes can share a folder without locks.

`<folder>/requests/<recipe>/<episode>.txt` has the keys of the requests of one stage of an episode,
one per line, in the order of their responses. A recipe is a hash of the settings that determine
the requests (`Run.recipes`). The files serve estimates alone: a lost line only makes an estimate
higher. Keys of deleted responses are removed by `prune_notes`.
"""

import binascii
import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from cuesheet import files
from cuesheet.vlm.parsing import message_text

log = logging.getLogger(__name__)

FORMAT = 1
# Fields of a chat request that determine how it is sent, not what the response is.
OPERATIONAL = frozenset(
    {
        "stream",
        "stream_options",
        "user",
        "store",
        "metadata",
        "service_tier",
        "priority",
        "request_id",
        "cache_salt",
        "prompt_cache_key",
        "safety_identifier",
        "timeout",
        "extra_headers",
        "extra_query",
    }
)
# The model behind each served name.
ROOTS_FILE = "models.json"
# Maximum number of entries that are searched for one of a model.
MAX_SEARCHED = 2000
_KEY = re.compile("[0-9a-f]{64}")
_UNUSABLE = {"usable": False}
_UNUSABLE_END = re.compile(rb'"usable":\s*false\s*}$')
MEDIA_PARTS = ("image_url", "video_url", "audio_url")


def describe_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what determines the response to a chat request, readable and small.

    Media are replaced by the sha256 and number of their bytes, whether they are sent as data URL or
    as `file://` URL, and whatever their media type. Parameters that are null are omitted, and
    floats that are whole numbers become integers (0.0 is 0).
    """
    return {
        name: _messages(value) if name == "messages" else _plain(value)
        for name, value in sorted(body.items())
        if name not in OPERATIONAL and value is not None
    }


def key_of(request: Mapping[str, Any]) -> str:
    """Return the key of a request, given its description by `describe_request`."""
    return _digest(request)


def is_complete(reply: Any) -> bool:
    """Tell whether a response with status 200 is complete: it has a choice with text."""
    if not isinstance(reply, dict) or not _has_message(reply):
        return False
    return bool(message_text(reply["choices"][0]["message"])[0].strip())


def is_usable(entry: Mapping[str, Any]) -> bool:
    """Tell whether an entry is for all runs, and not only for replays."""
    return entry.get("usable", True)


def _has_message(reply: Mapping[str, Any]) -> bool:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return False
    return isinstance(choices[0].get("message"), dict)


class ResponseCache:
    """A folder of responses that several processes read and write at the same time."""

    def __init__(
        self, folder: Path | str, recipes: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        """Open a folder; it is created by the first write.

        Args:
            folder: the folder.
            recipes: the recipe of each stage, by dataset, for `note`.
        """
        self.folder = Path(folder)
        self._recipes = recipes or {}
        self.write_error = ""  # why the last response could not be cached, without its path

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str, replaying: bool = False) -> dict[str, Any] | None:
        """Return the entry of `key` ("reply", "request", "upstream", …), or None.

        Responses without text are only returned for replays; otherwise the request is sent again.
        An entry that cannot be read or does not match its name is a miss, with a warning in the
        log; the next `put` replaces it.
        """
        path = self.path(key)
        try:
            entry = read_entry(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("cache entry %s cannot be read (%s); it is requested again", path, error)
            return None
        return entry if replaying or is_usable(entry) else None

    def put(
        self,
        key: str,
        request: Mapping[str, Any],
        reply: Mapping[str, Any],
        record: Mapping[str, Any],
    ) -> bool:
        """Store the response to a described request; `record`: upstream, attempts, latency, tokens.

        Returns False, with a warning in the log, if the folder cannot be written. A response
        without text is stored for replays, because the correction that followed depends on it.
        Raises ValueError for something that is not a chat completion.
        """
        usable = is_complete(reply)
        if not usable and not _has_message(reply):
            raise ValueError("only chat completions can be cached")
        entry = {
            "format": FORMAT,
            "key": key,
            "asked_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **record,
            "request": request,
            "reply_sha256": _digest(reply),
            "reply": reply,
            **({} if usable else _UNUSABLE),  # last: see _seems_usable
        }
        try:
            files.write_json(self.path(key), entry)
        except (OSError, ValueError) as error:
            code = getattr(error, "errno", None)
            self.write_error = os.strerror(code) if code else str(error)
            log.warning(
                "the response %s could not be cached in %s (%s); a later run requests it again",
                key,
                self.folder,
                error,
            )
            return False
        return True

    def note(self, group: str, stage: str, key: str) -> None:
        """Note that a stage of an episode ("dataset/episode") has the response of `key`."""
        dataset, _, episode = group.partition("/")
        recipe = self._recipes.get(dataset, {}).get(stage)
        if recipe is None:
            return
        path = _noted_file(self.folder, recipe, episode)
        with contextlib.suppress(OSError):
            if key in _noted(path):
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(f"{key}\n".encode())

    def noted(self, recipe: str, episode: str) -> set[str]:
        """Return the keys that were noted for an episode and whose responses can be used.

        Only the end of each response file is read: of a damaged file, it is noticed that its end
        is missing, but not that its content was changed.
        """
        keys = _noted(_noted_file(self.folder, recipe, episode))
        return {key for key in keys if _seems_usable(f"{self.folder}/{key[:2]}/{key}.json")}

    def prune_notes(self) -> None:
        """Remove the keys whose responses are no longer in the cache from the files of `note`."""
        for path in self.folder.glob("requests/*/*.txt"):
            text = path.read_text("ascii", errors="replace")
            kept = [key for key in _KEY.findall(text) if self.path(key).exists()]
            if not kept:
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # the recipe has other episodes
                    path.parent.rmdir()
            elif (pruned := "".join(f"{key}\n" for key in kept)) != text:
                files.write_text(path, pruned)

    def has_noted(self, recipe: str) -> bool:
        """Tell whether any key was noted for a recipe."""
        return _noted_file(self.folder, recipe, "").parent.is_dir()

    def invalidate(self, key: str) -> bool:
        """Mark a response as invalid: replays still use it, other runs request it again."""
        if not _KEY.fullmatch(key):
            return False
        try:
            entry = read_entry(self.path(key))
            entry.pop("usable", None)
            files.write_json(self.path(key), {**entry, **_UNUSABLE})
        except (OSError, ValueError):
            return False
        return True

    def may_hold(self, model: str) -> bool:
        """Tell whether there may be a response of `model`; True if there are many entries."""
        for number, path in enumerate(self.folder.glob("??/*.json")):
            if number == MAX_SEARCHED:
                return True
            entry = files.read_json(path)
            with contextlib.suppress(KeyError, TypeError, AttributeError):
                if is_usable(entry) and entry["request"].get("model") == model:
                    return True
        return False

    def read_root(self, model: str) -> str:
        """Return the model behind a served name, as its server listed it last; "" if unknown."""
        return self._roots().get(model, "")

    def write_root(self, model: str, root: str) -> None:
        """Remember the model behind a served name, for runs whose server does not answer."""
        roots = self._roots()
        if root and roots.get(model) != root:
            with contextlib.suppress(OSError):
                files.write_json(self.folder / ROOTS_FILE, {**roots, model: root})

    def _roots(self) -> dict[str, str]:
        return files.read_json(self.folder / ROOTS_FILE)


def read_entry(path: Path) -> dict[str, Any]:
    """Return the entry in a file, after checking its hashes.

    Raises OSError, or ValueError that says what is damaged.
    """
    key = path.stem
    try:
        entry = json.loads(path.read_bytes())
        if entry["format"] != FORMAT:
            raise ValueError(f"format {entry['format']!r}, expected {FORMAT}")
        if entry["key"] != key or key_of(entry["request"]) != key:
            raise ValueError("its request does not match its name")
        if is_usable(entry) and not is_complete(entry["reply"]):
            raise ValueError("its response has no choice with text")
        if _digest(entry["reply"]) != entry.get("reply_sha256", _digest(entry["reply"])):
            raise ValueError("its response was changed")
    except KeyError as error:
        raise ValueError(f"it has no {error}") from error
    except (TypeError, RecursionError) as error:
        raise ValueError(f"it is not a cache entry: {error}") from error
    return entry


def _noted_file(folder: Path, recipe: str, episode: str) -> Path:
    return folder / "requests" / recipe / f"{episode}.txt"


def _noted(path: Path) -> set[str]:
    """Return the keys in a file of `note`; two runs may have written to one line."""
    try:
        return set(_KEY.findall(path.read_text("ascii")))
    except (OSError, ValueError):
        return set()


def _seems_usable(path: str) -> bool:
    """Tell from the end of an entry's file whether it is complete and not marked as unusable."""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            end = os.pread(file, 64, max(0, os.lseek(file, 0, os.SEEK_END) - 64)).rstrip()
        finally:
            os.close(file)
    except OSError:
        return False
    return end.endswith(b"}") and not _UNUSABLE_END.search(end)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            name: [_part(part) for part in value]
            if name == "content" and isinstance(value, list)
            else _plain(value)
            for name, value in message.items()
            if value is not None
        }
        for message in messages
    ]


def _part(part: Any) -> Any:
    if not isinstance(part, dict):
        return _plain(part)
    described = {}
    for name, value in part.items():
        if name in MEDIA_PARTS and isinstance(value, dict) and isinstance(value.get("url"), str):
            rest = {key: _plain(item) for key, item in value.items() if key != "url"}
            described[name] = {**rest, **_media(value["url"])}
        elif value is not None:
            described[name] = _plain(value)
    return described


def _media(url: str) -> dict[str, Any]:
    scheme = url[:5].lower()
    if scheme == "data:":
        head, _, payload = url[5:].partition(",")
        data = unquote_to_bytes(payload)
        if head.lower().endswith(";base64"):
            with contextlib.suppress(binascii.Error):
                data = binascii.a2b_base64(data, strict_mode=True)
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if scheme == "file:":
        try:
            data = Path(unquote(urlsplit(url).path)).read_bytes()
        except OSError as error:
            log.warning("%s cannot be read (%s); its path becomes part of the key", url, error)
        else:
            return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {"url": url}


def _plain(value: Any) -> Any:
    """Return JSON data with whole floats as integers, so that equal requests have equal keys."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
