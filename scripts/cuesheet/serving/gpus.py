"""GPUs of this machine, and their distribution over the replicas of a model server."""

import itertools
import os
import subprocess
from collections.abc import Mapping, Sequence

from cuesheet.errors import CuesheetError

NVIDIA_SMI_TIMEOUT_S = 30.0


def visible_gpus(environment: Mapping[str, str] = os.environ) -> tuple[list[str], str]:
    """Return the GPUs that may be used, and the source of that list.

    CUDA_VISIBLE_DEVICES (set in SLURM jobs) takes precedence, even if it is empty; numbers and
    UUIDs are returned unchanged. Otherwise, all GPUs that nvidia-smi lists.
    """
    exported = environment.get("CUDA_VISIBLE_DEVICES")
    if exported is not None:
        names = [name.strip() for name in exported.split(",")]
        # CUDA reads the list up to the first entry that is not a GPU; -1 and NoDevFiles mean none.
        gpus = itertools.takewhile(_is_gpu, names)
        return list(gpus), f"CUDA_VISIBLE_DEVICES={exported}"
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=NVIDIA_SMI_TIMEOUT_S,
            check=True,
            env=dict(environment),
        ).stdout
    except FileNotFoundError:
        return [], "nvidia-smi, which is not installed"
    except (OSError, subprocess.SubprocessError) as error:
        return [], f"nvidia-smi failed ({type(error).__name__})"
    found = [line.strip() for line in listed.splitlines() if line.strip().isdigit()]
    return found, "nvidia-smi"


def _is_gpu(name: str) -> bool:
    return bool(name) and not name.startswith("-") and name != "NoDevFiles"


def deal_out(
    wanted: str | Sequence[str],
    replicas: int,
    per_replica: int | None,
    tensor_parallel_size: int,
    environment: Mapping[str, str] = os.environ,
) -> list[list[str] | None]:
    """Return the GPUs of every replica; None if the server uses what it finds.

    `wanted` is `auto`, `leave` or a list of GPUs (the setting vlm.managed.gpus). On a machine
    without GPUs the choice is left to the server if a replica needs only one. Raises CuesheetError
    if there are not enough GPUs.
    """
    if wanted == "leave":
        return [None] * replicas
    size = per_replica or tensor_parallel_size
    if isinstance(wanted, str):
        gpus, source = visible_gpus(environment)
        if not gpus and per_replica is None and tensor_parallel_size == 1:
            return [None] * replicas
    else:
        gpus, source = list(dict.fromkeys(wanted)), "vlm.managed.gpus"
    needed = replicas * size
    if len(gpus) < needed:
        have = f"{len(gpus)} ({', '.join(gpus)})" if gpus else "none"
        fit = len(gpus) // size
        advice = f"set vlm.replicas to {fit}" if fit else "lower vlm.managed.tensor_parallel_size"
        raise CuesheetError(
            f"not enough GPUs: {replicas} replica{'s' if replicas > 1 else ''} of {size} "
            f"need {needed}, but there are {have} according to {source}; {advice}, or request more "
            "GPUs"
        )
    return [gpus[size * number : size * (number + 1)] for number in range(replicas)]
