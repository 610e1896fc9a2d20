"""Finds the progress of a model server and the cause of its end in its log, in one line each."""

import re
from dataclasses import dataclass

LONGEST_LINE = 160

# Prefixes such as `(EngineCore pid=123) INFO 11-21 12:19:11 [launcher.py:195] `.
_PREFIX = re.compile(
    r"^(?:\([\w ]+?(?: pid=\d+)?\) ?)*"
    r"(?:(?:INFO|WARNING|ERROR|DEBUG|CRITICAL):? *)?"
    r"(?:\d\d(?:\d\d)?[-/]\d\d(?:[-/]\d\d)?[ T]\d\d:\d\d:\d\d(?:[.,]\d+)? ?)?"
    r"(?:(?:INFO|WARNING|ERROR|DEBUG|CRITICAL):? *)?"
    r"(?:\[[\w./-]+:\d+\] *)?"
)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NOISE = re.compile(r"^[\W_█▄▀]*$|^Route: |^\s*warnings\.warn|^File \"|\"(?:GET|POST) /")


@dataclass(frozen=True)
class Cause:
    """Why a server ended: `kind` for the program, `words` for the user."""

    kind: str
    words: str


# The first pattern that matches is the cause.
_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        "port_taken",
        r"address already in use|Errno 98\b|EADDRINUSE",
        "its port was taken by another program",
    ),
    (
        "out_of_memory",
        r"CUDA out of memory|OutOfMemoryError|out of memory|HIP out of memory"
        r"|Free memory on device .* is less than desired|No available memory for the cache blocks"
        r"|Cannot allocate memory|std::bad_alloc",
        "out of memory: choose a smaller model, more GPUs per replica "
        "(vlm.managed.tensor_parallel_size), a shorter vlm.managed.max_model_len, or another "
        "vlm.managed.gpu_memory_utilization; another program may be using the GPU",
    ),
    (
        "context_too_long",
        r"max seq len .* is larger than the maximum|larger than the maximum number of tokens that"
        r"|User-specified max_model_len .* is greater|maximum model length .* is larger",
        "the context does not fit: set vlm.managed.max_model_len lower",
    ),
    (
        "missing_package",
        r"(?:ModuleNotFoundError: )?No module named '?([\w.]+)'?"
        r"|PackageNotFoundError: (?:No package metadata was found for )?(\S+)"
        r"|ImportError: .*pip install|requires .* You can install it with",
        "a Python package is missing in the server's environment: install it there, or name the "
        "Python of another environment in vlm.managed.python",
    ),
    (
        "missing_executable",
        r"\S+ cannot be started: .*",
        "the command cannot be started: install the server, or name the Python of the environment "
        "that has it in vlm.managed.python",
    ),
    (
        "no_access",
        r"GatedRepoError|gated repo|401 Client Error|403 Client Error",
        "this account may not download the model: accept its license on the hub and "
        "export HF_TOKEN",
    ),
    (
        "unknown_model",
        r"RepositoryNotFoundError|Repository Not Found|is not a local folder and is not a valid"
        r"|Repo id must be in the form|is not a valid model identifier|Invalid repository ID"
        r"|does not appear to have a file named config\.json|404 Client Error"
        r"|OfflineModeIsEnabled|couldn't connect to .* to load|LocalEntryNotFoundError"
        r"|Cannot find an appropriate cached snapshot|couldn't find them in the cached files",
        "the model does not exist under this name (vlm.model), or cannot be downloaded",
    ),
    (
        "unsupported_model",
        r"Model architectures .* (?:are not supported|failed)|has no vLLM implementation"
        r"|does not recognize this architecture",
        "this version of the server does not support this type of model; install a newer one",
    ),
    (
        "no_gpu",
        r"Failed to infer device type|No CUDA GPUs are available|no NVIDIA driver"
        r"|NVIDIA driver on your system is too old|CUDA driver version is insufficient",
        "the server finds no GPU that it can use; check the driver and CUDA_VISIBLE_DEVICES",
    ),
    (
        "bad_argument",
        r"error: (?:unrecognized arguments|argument|ambiguous option|the following arguments).*"
        r"|No such option.*",
        "the server rejects one of its arguments (vlm.managed.extra_args)",
    ),
    (
        "disk_full",
        r"No space left on device",
        "the disk is full; free space",
    ),
)


def cause_in(text: str) -> Cause | None:
    """Return the cause that a log gives, with the line that says so; None if it is not known."""
    lines = [_ESCAPES.sub("", line) for line in text.splitlines()]
    for kind, pattern, words in _CAUSES:
        for line in reversed(lines):
            if re.search(pattern, line, re.IGNORECASE if kind != "bad_argument" else 0):
                return Cause(kind, f"{words} ({_short(line)})")
    return None


def last_line(text: str) -> str:
    """Return the last meaningful line without time stamps; of a progress bar its last state."""
    for line in reversed(re.split(r"[\r\n]+", text)):
        short = _short(line)
        if short and not _NOISE.search(short):
            return short
    return ""


def _short(line: str) -> str:
    plain = _PREFIX.sub("", _ESCAPES.sub("", line).strip(), count=1).strip()
    return plain if len(plain) <= LONGEST_LINE else plain[: LONGEST_LINE - 3] + "..."
