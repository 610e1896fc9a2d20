"""Keys for servers that others run: from the environment or a file, never from the settings."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cuesheet.errors import CuesheetError

# Who of Hugging Face takes a user's token: Inference Providers and dedicated endpoints.
_HUGGING_FACE = ("huggingface.co", "endpoints.huggingface.cloud")


def keys_of(
    config: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> dict[str, str | None]:
    """Return the key of every base URL; None for those that want none.

    The place that the settings name holds the key of all. Where they name none, servers of Hugging
    Face get the token that its own tools use, and nobody else gets it. Raises CuesheetError where
    the place is empty.
    """
    urls = config["base_urls"]
    key = _configured(config, environment)
    if key is not None:
        return dict.fromkeys(urls, key)
    return {url: _token(url, environment) if _is_hugging_face(url) else None for url in urls}


def hugging_face_token(environment: Mapping[str, str]) -> str | None:
    """The token that `hf auth login` or a variable left, looked up as huggingface_hub does."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := environment.get(name, "").strip():
            return token
    try:
        return _token_file(environment).read_text().strip() or None
    except OSError:
        return None


def _configured(config: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    if name := config.get("api_key_env"):
        key = environment.get(name, "").strip()
        if not key:
            raise CuesheetError(
                f"the environment variable {name} (vlm.api_key_env) is not set or empty; export it"
            )
        return key
    if config.get("api_key_file"):
        path = Path(config["api_key_file"]).expanduser()
        try:
            key = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CuesheetError(f"the key file {path} (vlm.api_key_file): {error}") from error
        if not key:
            raise CuesheetError(f"the key file {path} (vlm.api_key_file) is empty")
        return key
    return None


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
            f"{url} needs a token of Hugging Face, and there is none in HF_TOKEN, in "
            f"HUGGING_FACE_HUB_TOKEN or in {_token_file(environment)}; export HF_TOKEN, run "
            "`hf auth login`, or name another place in vlm.api_key_env or vlm.api_key_file"
        )
    return token


def _token_file(environment: Mapping[str, str]) -> Path:
    if given := environment.get("HF_TOKEN_PATH"):
        return Path(given).expanduser()
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "token"
