"""The record of the outer run, and its report on failed shards."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cuesheet import files
from cuesheet.artifacts.failures import episode_failures
from cuesheet.cluster.plan import ShardPlan
from cuesheet.text import as_ranges, from_ranges, to_ranges

SCONTROL_TIMEOUT_S = 10.0
SLURM_LOG_TAIL = 20_000
_SLURM_CAUSES = {
    "TIMEOUT": "it reached its time limit; raise `runtime`, or lower cluster.shard_minutes",
    "OUT_OF_MEMORY": "it used more memory than requested; raise `mem_mb`",
    "CANCELLED": "it was canceled",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "it was preempted",
}
_MEMORY = re.compile(rb"exceeded (job |step )?memory limit|oom.kill|out of memory", re.IGNORECASE)
_SHOWN = 20
_NO_CAUSE = "it ended without an error message"


def start_record(plans: Mapping[str, ShardPlan]) -> str:
    """Write shards/run.json and the assignment of every dataset. Return the id of the run.

    Jobs of earlier runs see the new id and end.
    """
    run = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{secrets.token_hex(3)}"
    for plan in plans.values():
        plan.save()
        record = {
            "format": 1,
            "run": run,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_at": round(time.time(), 3),
            "stages": list(plan.stages),
            "shards": plan.as_json(),
            "drafted": to_ranges(plan.drafted),
        }
        files.write_text(plan.layout.shard_run, json.dumps(record) + "\n")
    return run


def report_unfinished(
    plans: Mapping[str, ShardPlan], run: str | None, tell: Callable[[str], None]
) -> None:
    """Print the shards and episodes that this run could not finish, with the causes."""
    if run is None:
        return
    lines = []
    for plan in plans.values():
        for shard in plan.shards:
            lines += _describe_shard(plan, shard, run)
    for line in lines[:_SHOWN]:
        tell(f"Cuesheet: {line}")
    if len(lines) > _SHOWN:
        tell(f"Cuesheet: and {len(lines) - _SHOWN} more")


def _describe_shard(plan: ShardPlan, shard: str, run: str) -> list[str]:
    state = files.read_json(plan.layout.shard_state(shard))
    if state.get("run") != run:
        return []
    marker = files.read_json(Path(plan.marker(shard)))
    if marker:
        failed = [int(name) for name in marker["failed"]]
        if not failed:
            return []
        failures = episode_failures(plan.dataset.results, failed)
        return [
            f"episode {index} ({place(plan.dataset.name, shard, state)}) failed: "
            + _cause(failures.get(index))
            for index in failed
        ]
    # A job that ends after its last step, but before its end, has no marker.
    if state["state"] == "done" and "annotations" not in state["targets"]:
        return []
    cause = slurm_cause(state.get("job_id")) or state.get("error") or _NO_CAUSE
    cause = cause.removeprefix(f"shard {shard} of {plan.dataset.name} ").rstrip(".")
    return [
        f"{place(plan.dataset.name, shard, state)}, episodes "
        f"{as_ranges(from_ranges(state['episodes']))}: {cause}. Log: {state['log']}"
    ]


def _cause(failure: Mapping[str, Any] | None) -> str:
    if failure is None:
        return "some of its files are missing, and no cause was recorded."
    return f"{failure['error']} Log: {failure['log']}"


def place(dataset: str, shard: str, state: Mapping[str, Any]) -> str:
    """Describe a shard and its job."""
    job = f"job {state['job_id']} on " if state.get("job_id") else "on "
    return f"shard {shard} of {dataset}, {job}{state.get('host', '?')}"


def slurm_cause(job: str | None) -> str | None:
    """Return why SLURM ended a job; None if it did not, or if SLURM does not answer."""
    if job is None or shutil.which("scontrol") is None:
        return None
    try:
        said = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", job],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SCONTROL_TIMEOUT_S,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    fields = dict(word.partition("=")[::2] for word in said.split())
    state = fields.get("JobState", "")
    if state == "FAILED" and _was_out_of_memory(fields.get("StdOut", "")):
        state = "OUT_OF_MEMORY"
    return f"{_SLURM_CAUSES[state]} ({state})" if state in _SLURM_CAUSES else None


def _was_out_of_memory(log: str) -> bool:
    """Return whether the log of a job mentions it. Without cgroups, the job's state does not."""
    try:
        return _MEMORY.search(Path(log).read_bytes()[-SLURM_LOG_TAIL:]) is not None
    except OSError:
        return False
