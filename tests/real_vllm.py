"""A real vLLM for the CPU with a tiny random model, as the settings of a run."""

import subprocess
from pathlib import Path

from workflow_runs import REPOSITORY

PYTHON = REPOSITORY / ".venv-vllm" / "bin" / "python"
PATIENCE_S = 120


def make_model(folder: Path) -> Path:
    """Make the model's folder, with the vLLM environment's own libraries."""
    script = REPOSITORY / "tests" / "tiny_vlm.py"
    subprocess.run([PYTHON, script, folder], check=True, capture_output=True, timeout=PATIENCE_S)
    return folder


def settings(model: Path) -> dict:
    """The section `vlm` of a run that starts it."""
    return {
        "serve": "managed",
        "model": str(model),
        "sampling": {"temperature": 1.0},
        "managed": {
            "python": str(PYTHON),
            "max_model_len": 8192,
            "limit_mm_per_prompt": {"image": 16, "video": 1},
            "extra_args": [
                *("--enforce-eager", "--dtype", "float32", "--max-num-seqs", "16"),
                # vLLM 0.32 for the CPU ends where a prompt of a seeded call is split.
                *("--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192"),
                "--enable-prompt-tokens-details",
            ],
            "env": {
                "VLLM_CPU_KVCACHE_SPACE": 1,
                "HF_HUB_OFFLINE": 1,
                "VLLM_NO_USAGE_STATS": 1,
                "CUDA_VISIBLE_DEVICES": "",
            },
        },
    }
