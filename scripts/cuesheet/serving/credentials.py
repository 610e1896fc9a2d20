"""API keys of external servers: from the environment or a file, never from the settings."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cuesheet.errors import CuesheetError

# Hosts of Hugging Face that accept a user's token: Inference Providers, dedicated endpoints.
_HUGGING_FACE = ("huggingface.co", "endpoints.huggingface.cloud")


def keys_of(
    config: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> dict[str, str | None]:
    """Return the key of every base URL; None for servers without one.

    If the settings name a place, its key is used for all servers. Otherwise, only servers of
    Hugging Face get a key: the token that its own tools use. Raises CuesheetError if the place has
    no key.
    """
    urls = config["base_urls"]
    key = _configured(config, environment)
    if key is not None:
        return dict.fromkeys(urls, key)
    return {url: _token(url, environment) if _is_hugging_face(url) else None for url in urls}


def hugging_face_token(environment: Mapping[str, str]) -> str | None:
    """Return the token of Hugging Face's tools, looked up as huggingface_hub does."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := environment.get(name, "").strip():
            return token
    try:
        return _token_file(environment).read_text().strip() or None
    except OSError:
        return None


def _configured(config: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    if name := config.get("api_key_env"):
        key = _bare(environment.get(name, ""), f"the environment variable {name} (vlm.api_key_env)")
        if not key:
            raise CuesheetError(
                f"the environment variable {name} (vlm.api_key_env) is not set or empty; export "
                f"the key of the server: export {name}=..."
            )
        return key
    if config.get("api_key_file"):
        path = Path(config["api_key_file"]).expanduser()
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise CuesheetError(
                f"the key file {path} (vlm.api_key_file) cannot be read: {error}"
            ) from error
        key = _bare(text, f"the key file {path} (vlm.api_key_file)")
        if not key:
            raise CuesheetError(
                f"the key file {path} (vlm.api_key_file) is empty; write the key into it"
            )
        return key
    return None


def _bare(text: str, place: str) -> str:
    """Return a key without quotes and without `Bearer`. Raises CuesheetError if it is not a key."""
    key = text.strip().removeprefix("Bearer ").strip()
    if len(key) > 1 and key[0] == key[-1] and key[0] in "\"'":
        key = key[1:-1].strip()
    if not key.isascii() or any(not char.isprintable() or char.isspace() for char in key):
        raise CuesheetError(  # the key itself is not shown
            f"{place} holds more than a key: spaces, several lines or characters that no key has; "
            "expected the key alone"
        )
    return key


def _is_hugging_face(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" and any(
        host == name or host.endswith(f".{name}") for name in _HUGGING_FACE
    )


def _token(url: str, environment: Mapping[str, str]) -> str:
    token = hugging_face_token(environment)
    if token is None:
        raise CuesheetError(
            f"{url} needs a token of Hugging Face, but there is none in HF_TOKEN, "
            f"HUGGING_FACE_HUB_TOKEN or {_token_file(environment)}; export HF_TOKEN, run "
            "`hf auth login`, or name another place in vlm.api_key_env or vlm.api_key_file"
        )
    return token


def _token_file(environment: Mapping[str, str]) -> Path:
    if given := environment.get("HF_TOKEN_PATH"):
        return Path(given).expanduser()
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "token"
