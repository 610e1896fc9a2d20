"""Starts and stops the process that serves a run (`cuesheet.serving.supervisor`).

`start` and `stop` are called in Snakemake's process and import little. As a program:
`python -m cuesheet.serving.lifecycle FOLDER PID`, with the folder of the run, which has its
config.json, and the process with which the server ends.
"""

import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cuesheet import files
from cuesheet.errors import CuesheetError
from cuesheet.process_status import is_running

# File next to server.json that tells how the run ended; a killed run has none.
OUTCOME_FILE = "outcome.json"
LOG_FILE = "supervisor.log"
_MAX_RUN_FOLDERS = 50
_POLL_S = 0.02
# Processes that this one started, by server.json, so that they can be reaped.
_started: dict[Path, subprocess.Popen[bytes]] = {}


class ServerUnavailableError(CuesheetError):
    """The model server cannot be used now, because it does not answer or its quota is exhausted."""


class ServerFile:
    """server.json: address and state of the gateway, for jobs. Only its owner can read it."""

    def __init__(self, run_dir: Path, pid: int, parent_pid: int, **more: Any) -> None:
        self._path = run_dir / "server.json"
        self._content: dict[str, Any] = {
            "state": "starting",
            "url": None,
            "api_key": None,
            "host": socket.gethostname(),
            "pid": pid,
            "parent_pid": parent_pid,
            "error": None,
            "logs": {"supervisor": str(run_dir / LOG_FILE)},
            **more,
        }

    @property
    def state(self) -> str:
        return self._content["state"]

    def write(self, **changes: Any) -> None:
        """Change entries and write the file atomically, mode 0600."""
        self._content.update(changes)
        files.write_json(self._path, self._content, mode=0o600)


def start(config: dict[str, Any], run_root: Path | str) -> Path:
    """Start the supervisor of a run in the background and return its server.json.

    Creates a new folder below `run_root` (mode 0700) and returns at once; jobs wait for the state
    "ready". The supervisor ends with this process even if `stop` is never called.
    """
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{secrets.token_hex(3)}"
    run_dir = (Path(run_root) / run_id).resolve()
    run_dir.mkdir(parents=True, mode=0o700)
    _delete_old_runs(run_dir.parent)
    folders = {name: os.path.abspath(config[name]) for name in ("cache_dir", "results_dir")}
    files.write_json(run_dir / "config.json", {**config, **folders}, mode=0o600)
    server_file = run_dir / "server.json"
    arguments = [str(run_dir), str(os.getpid())]
    with (run_dir / LOG_FILE).open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cuesheet.serving.lifecycle", *arguments],
            # Closed below: the process waits until server.json names it.
            stdin=subprocess.PIPE,
            stdout=output,
            # It shares the stderr of the run, for the progress line.
            start_new_session=True,
        )
    _started[server_file] = process
    try:
        ServerFile(run_dir, process.pid, os.getpid()).write()
    finally:
        assert process.stdin is not None
        process.stdin.close()
    return server_file


def wait_until_ready(server_file: Path | str) -> dict[str, Any]:
    """Wait until the supervisor has checked the servers; return the content of server.json.

    Raises CuesheetError with the cause if the check failed or the supervisor ended, and
    ServerUnavailableError if the server may be usable later.
    """
    path = Path(server_file).resolve()
    child = _started.get(path)
    while True:
        has_ended = child is not None and child.poll() is not None
        state = json.loads(path.read_bytes())
        if state["state"] == "failed":
            error = ServerUnavailableError if state.get("is_temporary") else CuesheetError
            raise error(state["error"])
        if state["state"] == "ready":
            return state
        if has_ended or state["state"] == "stopped":
            raise CuesheetError(
                "the run's gateway ended before it was ready; its log is "
                f"{state['logs']['supervisor']}"
            )
        time.sleep(_POLL_S)


def _delete_old_runs(run_root: Path) -> None:
    """Delete the folders (logs, server.json) of ended runs, except the latest ones."""
    oldest = sorted(folder for folder in run_root.iterdir() if folder.is_dir())[:-_MAX_RUN_FOLDERS]
    for folder in oldest:
        if _has_ended(files.read_json(folder / "server.json")):
            shutil.rmtree(folder, ignore_errors=True)


def _has_ended(state: dict[str, Any]) -> bool:
    """Return whether the supervisor of a server.json has ended or was killed."""
    if state.get("state") in ("stopped", "failed"):
        return True
    is_here = state.get("host") == socket.gethostname()
    return is_here and not is_running(state.get("pid"), state.get("pid_created"))


def stop(server_file: Path | str, timeout_s: float = 15.0) -> None:
    """Stop a supervisor that this process started, and wait for it. It may have ended already.

    If it does not end in time, it is killed; the model servers that it started end with it.
    """
    path = Path(server_file).resolve()
    child = _started.pop(path, None)
    if child is None:
        return
    child.terminate()
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    state = files.read_json(path)
    if state.get("state") in ("starting", "ready"):  # it was killed
        files.write_json(path, {**state, "state": "stopped"}, mode=0o600)


def record_outcome(server_file: Path | str, *, finished: bool, error: str | None = None) -> None:
    """Record how a run ended. `error`: why it did not start."""
    path = Path(server_file).with_name(OUTCOME_FILE)
    files.write_json(path, {"finished": finished, "error": error})


def main(run_dir: Path, parent_pid: int) -> int:
    logging.basicConfig(
        filename=run_dir / LOG_FILE,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    sys.stdin.read()  # until the parent has written server.json
    # Imported in this process only: these imports cost half a CPU second.
    try:
        import asyncio

        from cuesheet.serving.supervisor import supervise

        config = json.loads((run_dir / "config.json").read_bytes())
    except Exception as error:
        logging.exception("the supervisor cannot start")
        cause = f"the gateway cannot start: {type(error).__name__}: {error}"
        ServerFile(run_dir, os.getpid(), parent_pid).write(state="failed", error=cause)
        return 1
    return asyncio.run(supervise(config, run_dir, parent_pid))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
