"""The command that starts a model server, with its environment, port and API key."""

import json
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuesheet.errors import CuesheetError

HOST = "127.0.0.1"
# Folder of the environment that `make vllm-env` installs.
VLLM_ENVIRONMENT = ".venv-vllm-gpu"
_REPOSITORY = Path(__file__).resolve().parents[3]
DEMO_KEY_ENV = "CUESHEET_MODEL_SERVER_KEY"
# Arguments that not every version of vLLM knows; they are omitted if the server rejects them.
#
# By default, white space is allowed between the tokens of a JSON reply: weak models write nothing
# else until their token limit, and with others it costs tokens. The frame rate of a clip is sent
# with the request, which vLLM rejects since 0.32 unless it trusts its clients.
_OPTIONAL: Mapping[str, Sequence[str]] = {
    "--structured-outputs-config": ['{"backend":"xgrammar","disable_any_whitespace":true}'],
    "--trust-request-mm-kwargs": [],
}
_BATCH = str(Path(__file__).with_name("vllm_offline.py"))
# As modules, the programs also run from environments that were moved.
_MODULES = {
    "vllm": ("vllm.entrypoints.openai.api_server", "--model"),
    "transformers": ("transformers.cli.transformers", "serve"),
}


@dataclass(frozen=True)
class Launch:
    """One command that serves an OpenAI API on 127.0.0.1, at `port` or at the port it writes.

    `environment` is added to that of the run; None removes a variable. `api_key` is the key that
    the server requires. `lists_model`: whether /v1/models must list the model before the server is
    ready. `structured`: whether the server enforces `response_format`. `leave_out` is called with
    the server's message about its arguments; it returns True if the message names an optional
    argument, which the next launch then omits.
    """

    argv: Sequence[str]
    environment: Mapping[str, str | None]
    api_key: str
    port: int | None = None
    port_file: Path | None = None
    lists_model: bool = True
    structured: bool = True
    leave_out: Callable[[str], bool] = lambda said: False

    def full_environment(self) -> dict[str, str]:
        """Return the environment of the server."""
        merged = {**os.environ, **self.environment}
        return {name: value for name, value in merged.items() if value is not None}

    def words(self) -> str:
        """Return the command for a log, without the key."""
        return shlex.join(self.argv).replace(self.api_key, "***")


def find_python(
    settings: Mapping[str, Any], folders: Sequence[Path] = (Path(), _REPOSITORY)
) -> str | None:
    """Return the Python that runs the server; None for the command found in PATH.

    `auto` is the environment of `make vllm-env` in one of the folders, if there is one.
    """
    python = settings["python"]
    if python != "auto":
        return python
    if settings["server"] in ("vllm", "vllm-batch"):
        for folder in folders:
            found = folder / VLLM_ENVIRONMENT / "bin" / "python"
            if found.exists():
                return str(found.absolute())
    return None


def demo_launch(folder: Path) -> Callable[[str], Launch]:
    """Return a function that makes the command of a demo model for a replica at each start."""

    def launch(name: str) -> Launch:
        port_file = folder / f"{name}.port"
        port_file.unlink(missing_ok=True)
        key = secrets.token_urlsafe(24)
        argv = [sys.executable, "-m", "demo_vlm", "--port", "0"]
        argv += ["--port-file", str(port_file), "--api-key-env", DEMO_KEY_ENV]
        return Launch(argv, {DEMO_KEY_ENV: key}, key, port_file=port_file)

    return launch


def managed_launch(
    settings: Mapping[str, Any],
    model: str,
    gpus: Sequence[str] | None,
    shared_folder: str | None,
    structured: bool = True,
) -> Callable[[str], Launch]:
    """Return a function that makes the command of a replica, with a new port and key at each start.

    `settings` is the config's section `vlm.managed`; `gpus` are those of the replica, None if GPUs
    are not distributed. `shared_folder` is the folder of media that are sent as file URLs.
    `structured`: whether `response_format` is sent to the server.
    """

    settings = {**settings, "python": find_python(settings)}
    unknown: set[str] = set()

    def leave_out(said: str) -> bool:
        named = {name for name in _OPTIONAL if name in said} - unknown
        unknown.update(named)
        return bool(named)

    def launch(_: str) -> Launch:
        key, port = secrets.token_urlsafe(24), free_port()
        argv = _command(settings, model, port, key, shared_folder, unknown)
        environment: dict[str, str | None] = {}
        if settings["server"] in ("vllm", "vllm-batch"):
            environment["VLLM_API_KEY"] = key
        if settings["python"]:
            # Programs that the server calls by name, such as compilers, are next to its Python.
            programs = str(Path(settings["python"]).expanduser().absolute().parent)
            environment["PATH"] = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
        if gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        environment |= settings["env"] or {}
        # `transformers serve` lists the contents of the hub's cache, is healthy once its model is
        # loaded, and accepts response_format but ignores it.
        plain = settings["server"] == "transformers" and settings["command"] is None
        return Launch(
            argv,
            environment,
            key,
            port=port,
            lists_model=not plain,
            structured=not plain and structured,
            leave_out=leave_out,
        )

    return launch


def _command(
    settings: Mapping[str, Any],
    model: str,
    port: int,
    key: str,
    shared_folder: str | None,
    unknown: Collection[str],
) -> list[str]:
    words = settings["command"]
    if words is not None:
        values = {"{model}": model, "{host}": HOST, "{port}": str(port), "{api_key}": key}
        return [_filled(word, values) for word in words] + settings["extra_args"]
    python = settings["python"]
    server = settings["server"]
    if server == "vllm-batch":
        argv = [str(Path(python).expanduser()), _BATCH, "--model", model]
    elif python is None:
        argv = [server, "serve", model]
    elif server in _MODULES:
        argv = [str(Path(python).expanduser()), "-m", *_MODULES[server], model]
    else:
        argv = [str(Path(python).expanduser().absolute().parent / server), "serve", model]
    argv += ["--host", HOST, "--port", str(port)]
    if server in ("vllm", "vllm-batch"):
        argv += _vllm_arguments(settings, shared_folder, unknown)
    return argv + settings["extra_args"]


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def _vllm_arguments(
    settings: Mapping[str, Any], shared_folder: str | None, unknown: Collection[str]
) -> list[str]:
    arguments = []
    # The offline entry point trusts every request.
    left_out = {*unknown, *(["--trust-request-mm-kwargs"] if settings["server"] != "vllm" else [])}
    for name, values in _OPTIONAL.items():
        if name not in left_out:
            arguments += [name, *values]
    if settings["tensor_parallel_size"] > 1:
        arguments += ["--tensor-parallel-size", str(settings["tensor_parallel_size"])]
    for name in ("max_model_len", "gpu_memory_utilization"):
        if settings[name] is not None:
            arguments += [f"--{name.replace('_', '-')}", str(settings[name])]
    if settings["limit_mm_per_prompt"]:
        limits = json.dumps(settings["limit_mm_per_prompt"], separators=(",", ":"))
        arguments += ["--limit-mm-per-prompt", limits]
    if shared_folder is not None:
        arguments += ["--allowed-local-media-path", os.path.abspath(shared_folder)]
    return arguments


def free_port() -> int:
    """Return a free port on 127.0.0.1. Another process may still claim it first."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def check_model(settings: Mapping[str, Any], model: str) -> None:
    """Raise CuesheetError if `model` is a path that does not exist on this machine.

    The server would take it for a name on a hub and fail half a minute later. A command of the
    user may have other models.
    """
    is_path = model.startswith(("/", "./", "../", "~"))
    if settings["command"] is not None or not is_path or Path(model).exists():
        return
    whole = Path(model).expanduser()
    hint = f"; write {whole}" if whole.exists() else ""
    raise CuesheetError(
        f"vlm.model: {model} does not exist on this machine{hint}. Expected is the folder of a "
        "model, or its name on the Hugging Face hub (owner/name)"
    )


def check_executable(settings: Mapping[str, Any]) -> None:
    """Raise CuesheetError if the command to start does not exist on this machine."""
    import shutil

    words = settings["command"]
    python = find_python(settings)
    if words is not None:
        program, key = words[0], "vlm.managed.command"
    elif python is not None:
        program, key = str(Path(python).expanduser()), "vlm.managed.python"
    else:
        program, key = settings["server"], "vlm.managed.server"
    if shutil.which(program) is None:
        raise CuesheetError(
            f"{key}: {program} does not exist on this machine (or is not in PATH, or not "
            "executable). Install it (vLLM: make vllm-env), or name the Python of the environment "
            "that has it in vlm.managed.python"
        )
