"""Runs of the real workflow, and a model server that counts its requests."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from processes import PATIENCE_S

from cuesheet.serving.server_check import CHECK_NAME
from cuesheet.workflow.estimate import Estimate, estimate_run
from cuesheet.workflow.load import load_run

REPOSITORY = Path(__file__).resolve().parents[1]
# The workflow's environment with the plugins for clusters.
CLUSTER_PYTHON = str(REPOSITORY / ".venv-cluster" / "bin" / "python")
needs_cluster_plugins = pytest.mark.skipif(
    not Path(CLUSTER_PYTHON).exists(), reason="no .venv-cluster; run: make .venv-cluster/.installed"
)


def until(is_true: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Wait until `is_true` returns something true; fail with `what` was waited for."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.05)


@dataclasses.dataclass
class Finished:
    """A Snakemake process that ended."""

    returncode: int
    output: str

    @property
    def jobs(self) -> dict[str, int]:
        """Jobs by rule, from the line before the first job or from the table of a dry run."""
        planned = re.search(r"^Cuesheet: \d+ jobs?: (.+)$", self.output, re.MULTILINE)
        if planned:
            words = (entry.rsplit(" ", 1) for entry in planned[1].split(", "))
            return {rule: int(count) for rule, count in words}
        counts = {}
        _, _, table = self.output.partition("Job stats:")
        for line in table.splitlines()[3:]:
            words = line.split()
            if len(words) != 2 or not words[1].isdigit():
                break
            counts[words[0]] = int(words[1])
        counts.pop("total", None)
        counts.pop("all", None)
        return counts


class Workdir:
    """A working directory with its own configuration, results and cache."""

    python = sys.executable

    def __init__(self, path: Path) -> None:
        self.path = path
        self.output = ""  # of the run that made it, if it is shared by tests

    def command(self, *arguments: str) -> list[str]:
        return [
            *(self.python, "-m", "snakemake"),
            *("--snakefile", str(REPOSITORY / "Snakefile")),
            *("--directory", str(self.path)),
            *("--cores", "2"),
            *arguments,
        ]

    def configure(self, **values: object) -> None:
        folder = self.path / "config"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(values))

    def environment(self) -> dict[str, str]:
        return {**os.environ, "CUESHEET_PROGRESS": "off", "PYTHONUNBUFFERED": "1"}

    def run(self, *arguments: str, check: bool = True) -> Finished:
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * PATIENCE_S,
        )
        if check and done.returncode:
            pytest.fail(f"snakemake {' '.join(arguments)} failed:\n{done.stdout[-6000:]}")
        return Finished(done.returncode, done.stdout)

    def start(self, *arguments: str, reads_output: bool = False) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if reads_output else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if reads_output else subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def json(self, relative: str) -> dict:
        return json.loads((self.path / relative).read_text())

    def copy_to(self, target: Path) -> "Workdir":
        shutil.copytree(self.path, target, symlinks=True)
        return Workdir(target)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def estimate_of(work: Workdir) -> Estimate:
    """The estimate of the run that the configuration of a working directory describes."""
    with contextlib.chdir(work.path):
        config = yaml.safe_load(Path("config/config.yaml").read_text())
        (estimate,) = estimate_run(load_run(config, REPOSITORY))
    return estimate


def name_of(request: dict) -> str | None:
    """Return the name of the reply class that a chat request asks for."""
    return request.get("response_format", {}).get("json_schema", {}).get("name")


class CountingServer:
    """Passes everything to a real model server; counts chat requests; can be told to misbehave.

    The request of the server check is counted separately, in `checks`.
    """

    def __init__(self, upstream: str) -> None:
        self.asked: list[dict] = []
        self.checks: list[dict] = []
        self.answered: list[dict] = []
        self.authorizations: list[str | None] = []
        self.key: str | None = None  # what requests must send, if any
        self.answer_instead: Callable[[dict], tuple[int, bytes] | None] = lambda body: None
        self.delay_s = 0.0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self._has_key():
                    self._pass(None)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not self._has_key():
                    return
                request = json.loads(body)
                if name_of(request) == CHECK_NAME:
                    server.checks.append(request)
                    self._pass(body)
                    return
                server.asked.append(request)
                server.authorizations.append(self.headers["Authorization"])
                time.sleep(server.delay_s)
                instead = server.answer_instead(request)
                status = self._reply(*instead) if instead is not None else self._pass(body)
                if status == 200:
                    server.answered.append(request)

            def _has_key(self) -> bool:
                if server.key in (None, (self.headers["Authorization"] or "")[len("Bearer ") :]):
                    return True
                self._reply(401, b'{"error": {"message": "invalid key"}}')
                return False

            def _pass(self, body: bytes | None) -> int:
                headers = {"Content-Type": "application/json"}
                request = urllib.request.Request(upstream + self.path, body, headers)
                try:
                    with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
                        return self._reply(reply.status, reply.read())
                except urllib.error.HTTPError as error:
                    return self._reply(error.code, error.read())

            def _reply(self, status: int, body: bytes) -> int:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return status

            def log_message(self, *arguments: object) -> None:
                pass

        class Http(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Says nothing: a client that was killed is not there to be answered."""

        self._http = Http(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def vlm(self) -> dict[str, object]:
        """The section `vlm` of a run that uses this server."""
        return {"serve": "external", "model": "cuesheet-demo-1", "base_urls": [self.base_url]}

    def kinds(self) -> list[str]:
        """The reply classes asked for so far."""
        return [name_of(request) for request in self.asked]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
