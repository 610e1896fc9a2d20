"""Runs the workflow and `lerobot-annotate` on the same dataset and returns the cost of both."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measuring
import slot_server
import workflow_cost

HERE = Path(__file__).resolve().parent
DEMO_MODEL = "cuesheet-demo-1"
REPLY_S = 0.5
SLOTS = 64  # more than either annotator uses at once
# The features that LeRobot lacks, and its relabel pass, which is off in its defaults too.
SAME_FEATURES = {
    "signals": {"enabled": False},
    "plan": {"second_look": False, "relabel": "off", "vocabulary": "off"},
    "inspect": {"enabled": False},
}


def compare(
    dataset: Path, folder: Path, *, python: Path, packages: str, cores: int
) -> dict[str, dict[str, float]]:
    """Return wall time, CPU time, memory and requests of `cuesheet` and `lerobot`.

    `dataset_only` is the workflow without clips, report and review page, which LeRobot does not
    make.

    The replies are recorded in a first run of each, so that a second one measures them without the
    model. The subtasks of LeRobot's replies are as long as the workflow's were on average.
    """
    demo = [sys.executable, "-m", "demo_vlm"]
    with recorded(demo, folder / "demo") as server:
        ours = _measure(server, lambda name: _run_workflow(dataset, folder / name, server, cores))
        server.reset()
        dataset_only = _costs(
            server, _run_workflow(dataset, folder / "dataset_only", server, cores, "datasets")
        )
    subtask_s = _mean_subtask_s(folder / "measured" / "results" / "compared" / "plan")
    replies = [sys.executable, str(HERE / "lerobot_replies.py"), "--subtask-s", f"{subtask_s:g}"]
    with recorded(replies, folder / "replies") as server:
        theirs = _measure(
            server,
            lambda name: _run_lerobot(
                dataset, folder / f"lerobot_{name}", server, python, packages
            ),
        )
    return {"cuesheet": ours, "dataset_only": dataset_only, "lerobot": theirs}


@contextmanager
def recorded(command: list[str], port_file: Path) -> Iterator[slot_server.Running]:
    """Run a slow server that gives the replies of the server that `command` starts."""
    if "demo_vlm" in command:
        command = [*command, "--port", "0"]
    with (
        slot_server.process_with_port([*command, "--port-file", str(port_file)], port_file) as port,
        slot_server.running(
            REPLY_S, SLOTS, upstream=f"http://127.0.0.1:{port}/v1", model=DEMO_MODEL
        ) as server,
    ):
        yield server


def _measure(server: slot_server.Running, run: Callable[[str], dict[str, Any]]) -> dict[str, float]:
    run("recorded")
    server.reset()
    return _costs(server, run("measured"))


def _costs(server: slot_server.Running, cost: dict[str, Any]) -> dict[str, float]:
    """Return the cost of a run and what the server received in it."""
    stats = server.stats()
    return {
        **{name: cost[name] for name in ("wall_s", "cpu_s", "peak_mb")},
        "requests": stats["calls"],
        "not_recorded": stats["recorded"],
        **{
            name: stats["sizes"].get(name, 0)
            for name in ("images", "image_tokens", "text_tokens", "image_bytes")
        },
    }


def _run_workflow(
    dataset: Path, work: Path, server: slot_server.Running, cores: int, *targets: str
) -> dict[str, Any]:
    vlm = {"serve": "external", "base_urls": [server.base_url], "model": DEMO_MODEL}
    settings = {"dataset": {"compared": str(dataset)}, "vlm": vlm, **SAME_FEATURES}
    return workflow_cost.run(work, settings, cores, *targets)


def _run_lerobot(
    dataset: Path, work: Path, server: slot_server.Running, python: Path, packages: str
) -> dict[str, Any]:
    """Annotate a copy of the dataset, because LeRobot writes into it."""
    root = Path(shutil.copytree(dataset, work / "dataset"))
    command = [str(python), str(HERE / "lerobot_run.py"), packages, f"--root={root}"]
    command += [f"--vlm.api_base={server.base_url}", f"--vlm.model_id={DEMO_MODEL}"]
    command += ["--vlm.auto_serve=false"]
    # Nothing is loaded from the hub, and no other import path is used.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as for the workflow
    before, begun = measuring.children_cpu_s(), time.monotonic()
    with (work / "lerobot.out").open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        watch = workflow_cost.Watch(process.pid, {})
        watch.start()
        code = process.wait()
        watch.stop()
    if code:
        sys.exit(f"lerobot-annotate failed:\n{(work / 'lerobot.out').read_text()[-4000:]}")
    return {
        "wall_s": round(time.monotonic() - begun, 2),
        "cpu_s": round(measuring.children_cpu_s() - before, 2),
        "peak_mb": round(watch.peak_mb),
    }


def _mean_subtask_s(plans: Path) -> float:
    subtasks = [
        subtask
        for path in plans.glob("*.json")
        for subtask in json.loads(path.read_text())["subtasks"]
    ]
    return sum(subtask["end_s"] - subtask["start_s"] for subtask in subtasks) / len(subtasks)
