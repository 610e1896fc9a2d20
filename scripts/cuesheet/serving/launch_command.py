"""What is started as a model server: the command, its environment, its port and its key."""

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
DEMO_KEY_ENV = "CUESHEET_MODEL_SERVER_KEY"
# What the servers of these names are given when the settings do not say the whole command. The key
# of a vLLM goes through VLLM_API_KEY: arguments can be read by every user of the machine.
# Not every version of vLLM knows these; they are left out where they are refused.
#
# White space between the tokens of a JSON reply is allowed by default: weak models write nothing
# else until their budget is spent, and with others it costs tokens. How densely a clip is sampled
# is said with the request, which vLLM refuses since 0.32 unless it trusts its clients.
_OPTIONAL: Mapping[str, Sequence[str]] = {
    "--structured-outputs-config": ['{"backend":"xgrammar","disable_any_whitespace":true}'],
    "--trust-request-mm-kwargs": [],
}
_BATCH = str(Path(__file__).with_name("vllm_offline.py"))
# Run as modules, the programs need not lie where they were installed.
_MODULES = {
    "vllm": ("vllm.entrypoints.openai.api_server", "--model"),
    "transformers": ("transformers.cli.transformers", "serve"),
}


@dataclass(frozen=True)
class Launch:
    """One command that serves an OpenAI API on 127.0.0.1, at `port` or at the one it writes.

    `environment` is added to the run's own; None takes a variable away. `api_key` is what the
    server will ask for. `lists_model`: whether /v1/models must list the model before it is ready.
    `structured`: whether it keeps replies in the form that `response_format` asks for.
    `leave_out` is told what a server said of its arguments; it returns True where one of those that
    not every version knows was named, and the next launch will be without it.
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
        """The environment that the server gets."""
        merged = {**os.environ, **self.environment}
        return {name: value for name, value in merged.items() if value is not None}

    def words(self) -> str:
        """The command for a log, without the key."""
        return shlex.join(self.argv).replace(self.api_key, "***")


def demo_launch(folder: Path) -> Callable[[str], Launch]:
    """Return what makes the command of a demo model, by replica name; fresh at each start."""

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
    """Return what makes the command of a replica: a free port and a new random key at each start.

    `settings` is the config's section `vlm.managed`; `gpus` are the replica's own, None where
    nothing is dealt out. `shared_folder` is where media that are sent as file URLs lie;
    `structured`: whether the server is to be sent `response_format`.
    """

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
            # Compilers and the like that a server calls by name are installed beside its Python.
            beside = str(Path(settings["python"]).expanduser().absolute().parent)
            environment["PATH"] = os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])
        if gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        environment |= settings["env"] or {}
        # `transformers serve` lists what the hub's cache holds, is healthy once its model is
        # loaded, and takes response_format without a word but does not keep to it.
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
    # Offline, whoever asks is trusted.
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
    """A port of 127.0.0.1 that nobody listens on now. Whoever is faster may still take it."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def check_executable(settings: Mapping[str, Any]) -> None:
    """Raise CuesheetError where the command to start is not on this machine."""
    import shutil

    words = settings["command"]
    python = settings["python"]
    if words is not None:
        program, key = words[0], "vlm.managed.command"
    elif python is not None:
        program, key = str(Path(python).expanduser()), "vlm.managed.python"
    else:
        program, key = settings["server"], "vlm.managed.server"
    if shutil.which(program) is None:
        raise CuesheetError(
            f"{key}: {program} is not on this machine (or not in PATH, or not executable); "
            "install it, or name the Python of the environment that has it in vlm.managed.python"
        )
