"""Settings of a model server that the run starts (section `vlm.managed`)."""

import re
import shlex
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from cuesheet.config.types import Expected, Mapping, Section, Text


class ManagedConfig(Section):
    """The server that the run starts (`serve: managed`), one per replica."""

    server: Literal["vllm", "transformers", "ktransformers"] = "vllm"
    """Which server to start: `vllm` (`vllm serve`), `transformers` (`transformers serve`) or
    `ktransformers` (`ktransformers serve`), unless `command` is set.
    """
    command: Annotated[str | list[str] | None, Expected("text, list of texts or null")] = None
    """Complete command that replaces the server's own, with `{model}`, `{host}`, `{port}` and, for
    servers that take no key from the environment, `{api_key}`. `extra_args` are appended; the
    settings from `tensor_parallel_size` to `limit_mm_per_prompt` are then not turned into
    arguments.
    """
    python: Text = "auto"
    """Python of the environment in which the server is installed, e.g. `/opt/vllm/bin/python`.
    `auto`: the environment of `make vllm-env` if it exists (only for vLLM), otherwise the command
    found in PATH; null: the command found in PATH.
    """
    extra_args: list[str] = Field(default=[])
    """Additional arguments, e.g. `[--dtype, bfloat16]`."""
    tensor_parallel_size: int = Field(default=1, ge=1, le=64)
    """GPUs per replica that share the model."""
    max_model_len: int | None = Field(default=None, ge=256)
    """Longest context in tokens; null: the model's own."""
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Share of GPU memory to use; null: the server's default."""
    limit_mm_per_prompt: Mapping = None
    """Maximum number of images and clips per request, e.g. `{image: 16, video: 1}`."""
    env: Mapping = None
    """Additional environment variables of the server, e.g. `{HF_HUB_OFFLINE: 1}`. Never keys:
    exported variables reach the server anyway.
    """
    gpus: Annotated[
        Literal["auto", "leave"] | list[str],
        Expected("`auto`, `leave` or a list of GPU numbers or names"),
    ] = "auto"
    """GPUs to distribute over the replicas through CUDA_VISIBLE_DEVICES. `auto`: those that
    CUDA_VISIBLE_DEVICES names (in a SLURM job), otherwise all that nvidia-smi lists; `leave`: the
    server uses what it finds.
    """
    gpus_per_replica: int | None = Field(default=None, ge=1, le=64)
    """GPUs per replica; null: `tensor_parallel_size`."""

    @field_validator("gpus", "extra_args", mode="before")
    @classmethod
    def _numbers_are_words(cls, value: object) -> object:
        """Accept numbers in lists of text, such as `[0, 1]` and `[--max-num-seqs, 64]`."""
        if not isinstance(value, list):
            return value
        plain = (int, float, str)
        return [
            str(item) if isinstance(item, plain) and not isinstance(item, bool) else item
            for item in value
        ]

    @field_validator("command")
    @classmethod
    def _has_a_place_for_the_port(cls, command: str | list[str] | None) -> str | list[str] | None:
        if command is None:
            return None
        words = _split(command)
        if not words:
            raise ValueError("the command is empty; leave the key out for the server's own")
        if not any("{port}" in word for word in words):
            raise ValueError(
                "the command has no {port}, but every replica needs a port of its own; write "
                "for example --port {port}"
            )
        names = "model|host|port|api_key"
        for word in words:
            strange = re.search(rf"\{{(?!(?:{names})\}})(\w+)\}}", word)
            if strange:
                raise ValueError(
                    f"the command has {strange[0]}; it can have {{model}}, {{host}}, {{port}} and "
                    "{api_key}"
                )
        return command

    @field_validator("limit_mm_per_prompt")
    @classmethod
    def _limits_are_counts(cls, limits: dict[str, Any] | None) -> dict[str, int] | None:
        for name, count in (limits or {}).items():
            if name not in ("image", "video", "audio"):
                raise ValueError(
                    f"{name!r} is not a kind of input; it can be image, video or audio"
                )
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise ValueError(f"{name}: found {count!r}, expected a whole number, 0 or more")
        return limits

    @field_validator("env")
    @classmethod
    def _variables_are_text(cls, env: dict[str, Any] | None) -> dict[str, str] | None:
        if env is None:
            return None
        for name, value in env.items():
            if isinstance(value, (dict, list)):
                raise ValueError(f"{name}: found {value!r}, expected a text or a number")
            if re.search(r"(?i)(api_?key|token|secret|password)$", name):
                raise ValueError(
                    f"{name} looks like a key; export it in the shell, so that no file has it"
                )
        texts = {None: "", True: "true", False: "false"}
        return {
            name: texts[value] if value is None or isinstance(value, bool) else str(value)
            for name, value in env.items()
        }

    def words(self) -> list[str] | None:
        """Return the words of `command`; None if it is not set."""
        return None if self.command is None else _split(self.command)


def _split(command: str | list[str]) -> list[str]:
    if isinstance(command, list):
        return command
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ValueError(f"the command cannot be split into words: {error}") from error
