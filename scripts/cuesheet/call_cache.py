"""Every paid answer is kept: one readable JSON file a reply, named by what determines the reply.

`<folder>/<first two hex digits>/<sha256>.json` holds a description of the request (media as hash,
size and type; never their bytes), the reply as the server gave it, and when it was asked. Writers
rename a finished file into place, so any number of processes share a folder without locks.
"""

import binascii
import hashlib
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cuesheet import files

log = logging.getLogger(__name__)

FORMAT = 1
# Fields of a chat request that decide how it travels, not what is answered.
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
MEDIA_PARTS = ("image_url", "video_url", "audio_url")


def describe_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what determines the reply to a chat request, readable and small.

    Media in data URLs and `file://` URLs become their type, sha256 and byte count. Parameters that
    are null count as not given, and whole floats as whole numbers (0.0 is 0).
    """
    return {
        name: _messages(value) if name == "messages" else _plain(value)
        for name, value in sorted(body.items())
        if name not in OPERATIONAL and value is not None
    }


def request_key(body: Mapping[str, Any]) -> str:
    """Return the sha256 (hex) under which the reply to this chat request is kept."""
    return _key_of(describe_request(body))


def is_complete(reply: Any) -> bool:
    """Tell whether a reply with status 200 is worth keeping: a choice with text in it."""
    if not isinstance(reply, dict):
        return False
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return False
    message = choices[0].get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, str) and bool(content.strip())


class CallCache:
    """A folder of replies that many processes read and write at once."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the entry of `key` ("reply", "request", "upstream", …), or None.

        An entry that cannot be read or does not match its name is a miss and is said so in the
        log; the next `put` replaces it.
        """
        path = self.path(key)
        try:
            entry = json.loads(path.read_bytes())
            if entry["format"] != FORMAT:
                raise ValueError(f"format {entry['format']!r}, expected {FORMAT}")
            if entry["key"] != key or _key_of(entry["request"]) != key:
                raise ValueError("its request is not the one that its name stands for")
            if not is_complete(entry["reply"]):
                raise ValueError("its reply has no choice with text")
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("cache entry %s cannot be read (%s); the call is asked again", path, error)
            return None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("cache entry %s is damaged (%s); the call is asked again", path, error)
            return None
        return entry

    def put(
        self, key: str, body: Mapping[str, Any], reply: Mapping[str, Any], asked: Mapping[str, Any]
    ) -> bool:
        """Keep the reply to `body`; `asked` says how it was had (upstream, attempts, latency).

        Returns False, with a warning in the log, where the folder cannot be written: the answer is
        then used but not kept. Raises ValueError for a reply that is not complete.
        """
        if not is_complete(reply):
            raise ValueError("only complete replies are kept")
        entry = {
            "format": FORMAT,
            "key": key,
            "asked_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **asked,
            "request": describe_request(body),
            "reply": reply,
        }
        try:
            files.write_json(self.path(key), entry)
        except (OSError, ValueError) as error:
            log.warning(
                "the reply %s could not be kept in %s (%s); it will be asked again by a later run",
                key,
                self.folder,
                error,
            )
            return False
        return True


def _key_of(request: Mapping[str, Any]) -> str:
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _messages(messages: Any) -> Any:
    if not isinstance(messages, list):
        return _plain(messages)
    return [
        {
            name: [_part(part) for part in value]
            if name == "content" and isinstance(value, list)
            else _plain(value)
            for name, value in message.items()
            if value is not None
        }
        if isinstance(message, dict)
        else _plain(message)
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
        mime, _, coding = head.partition(";")
        if coding != "base64":
            data = payload.encode()
        else:
            try:
                data = binascii.a2b_base64(payload, strict_mode=True)
            except binascii.Error:
                data = payload.encode()
        return {"mime": mime, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if scheme == "file:":
        try:
            data = Path(unquote(urlsplit(url).path)).read_bytes()
        except OSError as error:
            log.warning("%s cannot be read (%s); the call is keyed by its path", url, error)
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
