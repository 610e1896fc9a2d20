"""Shared by tests with real model servers: the tiny model, and checks of a finished run."""

import json
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path

import processes
import pyarrow.parquet as pq
from processes import PATIENCE_S
from workflow_runs import REPOSITORY, Workdir

from cuesheet.artifacts.stage_files import STAGES

PYTHON = REPOSITORY / ".venv-vllm" / "bin" / "python"
EPISODE = 1


def make_model(folder: Path, *text: str) -> Path:
    """Make a tiny model (see tiny_vlm.py) with the Python that the servers run in."""
    script = REPOSITORY / "tests" / "tiny_vlm.py"
    words = [PYTHON, script, folder, *text]
    subprocess.run(words, check=True, capture_output=True, timeout=PATIENCE_S)
    return folder


def vllm_settings(model: Path | str, serve: str = "managed") -> dict:
    """The section `vlm` of a run with a real vLLM for the CPU, as its own server or in process."""
    online = ["--enable-prompt-tokens-details"] if serve == "managed" else []
    return {
        "serve": serve,
        "model": str(model),
        "sampling": {"temperature": 1.0},
        "managed": {
            "python": str(PYTHON),
            "max_model_len": 8192,
            "limit_mm_per_prompt": {"image": 16, "video": 1},
            "extra_args": [
                *("--enforce-eager", "--dtype", "float32", "--max-num-seqs", "16"),
                # vLLM 0.32 for the CPU crashes if the prompt of a seeded request is split.
                *("--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192"),
                *online,
            ],
            "env": {
                "VLLM_CPU_KVCACHE_SPACE": 1,
                "HF_HUB_OFFLINE": 1,
                "VLLM_NO_USAGE_STATS": 1,
                "CUDA_VISIBLE_DEVICES": "",
            },
        },
    }


def eventually(holds: Callable[[], object], run: subprocess.Popen | None = None) -> None:
    """Wait until `holds()` is true; fail if `run` ends before."""
    processes.eventually(holds, lambda: run is None or run.poll() is None)


def calls_of(work: Workdir) -> list[dict]:
    """The records of all calls of the demo's episodes that were annotated."""
    return [
        call
        for stage in STAGES
        for path in sorted((work.path / "results/demo_v3" / stage).glob("*.json"))
        for call in json.loads(path.read_text())["provenance"]["calls"]
    ]


def assert_complete(work: Workdir, dataset: Path, episodes: Collection[int]) -> None:
    """Their rows are there on every frame, and the checks of the workflow found no error."""
    data = "data/chunk-000/file-000.parquet"
    rows = pq.read_table(work.path / "results/demo_v3/annotated" / data).to_pylist()
    source = pq.read_table(dataset / data).column("episode_index").to_pylist()
    assert [row["episode_index"] for row in rows] == source
    for episode in episodes:
        assert work.json(f"results/demo_v3/validation/{episode:06d}.json")["errors"] == []
        frames = [row for row in rows if row["episode_index"] == episode]
        persistent = frames[0]["language_persistent"]
        assert all(row["language_persistent"] == persistent for row in frames)
        starts = [row["timestamp"] for row in persistent if row["style"] == "subtask"]
        assert min(starts) == 0.0


def run_folder(work: Workdir) -> Path:
    (folder,) = (work.path / ".cuesheet" / "runs").iterdir()
    return folder
