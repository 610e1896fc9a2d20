"""Errors of requests to the model, with advice for the person who started the run."""

from collections.abc import Mapping
from typing import Any

from cuesheet.errors import CuesheetError, SurroundingsError


class VlmError(CuesheetError):
    """A request failed and a retry would not help; `call` is its record if it was sent."""

    call: dict[str, Any] | None = None


class VlmUnavailableError(VlmError, SurroundingsError):
    """Every request fails: the server, its address, its model or its key is wrong."""


class NoRoomError(VlmError):
    """The request with the correction of a reply does not fit the model's context."""


def error_of(
    label: str, status: int, error: Mapping[str, Any], model: str | None, correcting: bool
) -> VlmError:
    """Return the error for a response whose status is not 200, with advice.

    The message begins with `label`. `error` is the `error` object of the response. `correcting`:
    the request asked for the correction of a reply.
    """
    message, code = str(error.get("message")), error.get("code")
    if code == "not_in_cache":
        what = "the correction of its reply" if correcting else "its response"
        return VlmError(_replay_advice(label, what, str(error.get("key")), message))
    if code == "context_length_exceeded" and correcting:
        return NoRoomError(message)
    advice = {
        "model_server_failed": "the model server failed",
        "unauthorized": "the run's gateway rejected the key in server.json; restart the run",
        "gave_up": "no attempt succeeded",
        "check_failed": "the check of the model server failed",
    }.get(str(code))
    if advice is None and status in (401, 403):
        advice = "the server rejected the API key; check vlm.api_key_env or vlm.api_key_file"
    if advice is None and status == 404:
        advice = (
            f"the server does not know the model {model!r} or the address; check vlm.model and "
            "vlm.base_urls (which end in /v1)"
        )
    advice = advice or "the server rejected the request"
    is_of_request = status in (400, 413, 422) or code == "context_length_exceeded"
    error_type = VlmError if is_of_request else VlmUnavailableError
    return error_type(f"{label}: {advice}: {status} {message}")


def _replay_advice(label: str, what: str, key: str, message: str) -> str:
    return (
        f"{label}: {what} is not in the cache, and with vlm.serve: replay nothing is sent: "
        f"{message}. Its key is {key}; the entry would be {key[:2]}/{key}.json. Copy the whole "
        "cache of the run that is replayed (vlm.cache_dir) and use its dataset, configuration and "
        "prompts, because any change to a request changes its key. Or set vlm.serve to external "
        "or demo to request what is missing"
    )
