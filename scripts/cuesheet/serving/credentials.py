"""API keys of external servers: from the environment or a file, never from the settings."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cuesheet.errors import CuesheetError

# Hosts of Hugging Face that accept a user's token: Inference Providers, dedicated endpoints.
_HUGGING_FACE = ("huggingface.co", "endpoints.huggingface.cloud")


def keys_of(config: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the key of every base URL; None for servers without one.

    If the settings name a place, its key is used for all servers. Otherwise, only servers of
    Hugging Face get a key: the token that its own tools use. Raises CuesheetError if the place has
    no key.
    """
    urls = config["base_urls"]
    key = _configured(config)
    if key is not None:
        return dict.fromkeys(urls, key)
    return {url: _token(url) if _is_hugging_face(url) else None for url in urls}


def _configured(config: Mapping[str, Any]) -> str | None:
    if name := config.get("api_key_env"):
        place, text = f"the environment variable {name} (vlm.api_key_env)", os.environ.get(name, "")
        advice = f"is not set or empty; export the key of the server: export {name}=..."
    elif config.get("api_key_file"):
        path = Path(config["api_key_file"]).expanduser()
        place, advice = f"the key file {path} (vlm.api_key_file)", "is empty; write the key into it"
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise CuesheetError(f"{place} cannot be read: {error}") from error
    else:
        return None
    key = _bare(text, place)
    if not key:
        raise CuesheetError(f"{place} {advice}")
    return key


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


def _token(url: str) -> str:
    from huggingface_hub import constants, get_token

    try:
        token = get_token()
    except Exception as error:  # the library lists no errors: a folder, no permission, OIDC
        raise CuesheetError(
            f"{url} needs a token of Hugging Face, which cannot be read: {error}; export HF_TOKEN, "
            "or name another place in vlm.api_key_env or vlm.api_key_file"
        ) from error
    if token is None:
        raise CuesheetError(
            f"{url} needs a token of Hugging Face, but there is none in HF_TOKEN, "
            f"HUGGING_FACE_HUB_TOKEN or {constants.HF_TOKEN_PATH}; export HF_TOKEN, run "
            "`hf auth login`, or name another place in vlm.api_key_env or vlm.api_key_file"
        )
    return token
