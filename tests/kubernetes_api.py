"""A Kubernetes of one machine for tests: its API, and a process of this machine for each pod.

It knows what Snakemake's executor asks for: secrets, jobs, their status, their pods and logs. A
pod's container is run as it is submitted, in an empty folder as its `working_dir`; volumes that are
mounted are folders of this machine under the same path. What the scheduler of a real cluster reads
(resources, tolerations) is kept in `jobs`, for tests to look at.
"""

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml


class Kubernetes:
    """The API on a loopback port; `kubeconfig` is the file that clients read."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self._processes: dict[str, subprocess.Popen] = {}
        self._folder = folder
        self._environment = environment
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(*cluster._get(self.path))

            def do_POST(self) -> None:
                self._answer(*cluster._post(self.path, self._body()))

            def do_DELETE(self) -> None:
                self._body()
                self._answer(*cluster._delete(self.path))

            def _body(self) -> dict[str, Any]:
                length = int(self.headers.get("Content-Length") or 0)
                return json.loads(self.rfile.read(length) or b"{}")

            def _answer(self, status: int, content: dict[str, Any]) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(self._client_settings()))

    def _client_settings(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._http.server_address[1]}"
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }

    def close(self) -> None:
        for name in self._processes:
            self._end(name)
        self._http.shutdown()
        self._http.server_close()

    def _post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path.endswith("/jobs"):
            name = body["metadata"]["name"]
            self.jobs[name] = body
            container = body["spec"]["template"]["spec"]["containers"][0]
            with (self._folder / f"{name}.log").open("wb") as log:
                self._processes[name] = subprocess.Popen(
                    [*container["command"], *container["args"]],
                    cwd=tempfile.mkdtemp(dir=self._folder),
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        return 201, body

    def _get(self, path: str) -> tuple[int, dict[str, Any]]:
        if job := re.search(r"/jobs/([^/]+)/status$", path):
            code = self._processes[job[1]].poll()
            ended = {} if code is None else {"failed": 1} if code else {"succeeded": 1}
            return 200, {"metadata": {"name": job[1]}, "status": ended}
        if pods := re.search(r"/pods\?labelSelector=job-name%3D([^&]+)", path):
            return 200, {"kind": "PodList", "items": [self._pod(pods[1])]}
        if log := re.search(r"/pods/([^/]+)/log", path):
            return 200, {"log": (self._folder / f"{log[1]}.log").read_text(errors="replace")}
        return 404, {"message": f"there is no {path} here"}

    def _pod(self, name: str) -> dict[str, Any]:
        code = self._processes[name].poll()
        state = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
        status = {"name": "snakemake", "state": state, "image": "", "imageID": ""}
        status |= {"ready": code is None, "restartCount": 0}
        return {
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "snakemake"}]},
            "status": {"containerStatuses": [status]},
        }

    def _delete(self, path: str) -> tuple[int, dict[str, Any]]:
        if name := re.search(r"/pods/([^/?]+)", path):
            self._end(name[1])
        return 200, {}

    def _end(self, name: str) -> None:
        process = self._processes[name]
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
