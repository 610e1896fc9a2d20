"""A hub on loopback: the part of the API that huggingface_hub uses for datasets, with real commits.

Repositories live in memory. It counts what it sends, and can cut a transfer off.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        for refs in (self.branches, self.tags):
            if revision in refs:
                return refs[revision]
        return revision if revision in self.commits else None


class HubServer:
    """`url` goes into HF_ENDPOINT; `sent`: bytes sent by file, `asked`: every request."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.sent: dict[str, int] = {}
        self.asked: list[str] = []
        self.cut_after: int | None = None  # bytes of a file, once
        hub = self

        class Handler(_Handler):
            server_hub = hub

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Says nothing: transfers are cut off on purpose."""

        self._http = Server(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def bytes_sent(self) -> int:
        return sum(self.sent.values())

    def add(self, repo_id: str, folder: Path) -> str:
        """A new commit with the files of a folder; returns its hash."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        return self.repositories.setdefault(repo_id, Repository()).commit(files)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: HubServer

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def _handle(self) -> None:
        hub = self.server_hub
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        hub.asked.append(f"{self.command} {path}")
        for method, pattern, name in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method:
                return getattr(self, name)(*found.groups())
        return self._json({"error": f"no such route: {self.command} {path}"}, 404)

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        self._send(
            json.dumps(value).encode(), status, {"Content-Type": "application/json"} | headers
        )

    def _send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _repository(self, repo_id: str) -> Repository | None:
        repository = self.server_hub.repositories.get(repo_id)
        if repository is None or (repository.private and not self.headers.get("Authorization")):
            self._json({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _at(self, repo_id: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repository = self._repository(repo_id)
        if repository is None:
            return None
        sha = repository.resolve(revision)
        if sha is None:
            self._json({"error": "no revision"}, 404, **{"X-Error-Code": "RevisionNotFound"})
            return None
        return sha, repository.commits[sha]

    def info(self, repo_id: str, revision: str | None = None) -> None:
        if found := self._at(repo_id, revision or "main"):
            siblings = [{"rfilename": name} for name in found[1]]
            self._json({"id": repo_id, "sha": found[0], "siblings": siblings, "private": False})

    def refs(self, repo_id: str) -> None:
        if repository := self._repository(repo_id):
            listed = {
                kind: [
                    {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha}
                    for name, sha in refs.items()
                ]
                for kind, refs in (("branches", repository.branches), ("tags", repository.tags))
            }
            self._json({**listed, "converts": []})

    def tree(self, repo_id: str, revision: str) -> None:
        if found := self._at(repo_id, revision):
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": _oid(data)}
                for name, data in found[1].items()
            ]
            self._json(entries)

    def resolve(self, repo_id: str, revision: str, file: str) -> None:
        found = self._at(repo_id, revision)
        if found is None:
            return
        sha, files = found
        if file not in files:
            self._json({}, 404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return
        data = files[file]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{_oid(data)}"', "Accept-Ranges": "bytes"}
        begin, status = 0, 200
        if wanted := re.match(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            begin, status = int(wanted[1]), 206
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        part = data[begin:]
        hub = self.server_hub
        if self.command == "GET":
            cut, name = hub.cut_after, f"{repo_id}/{file}"
            if cut is not None and len(part) > cut:
                hub.cut_after = None
                hub.sent[name] = hub.sent.get(name, 0) + cut
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(part))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(part[:cut])
                self.wfile.flush()
                self.close_connection = True
                return
            hub.sent[name] = hub.sent.get(name, 0) + len(part)
        self._send(part, status, headers)

    def create(self) -> None:
        wanted = json.loads(self.body)
        owner = wanted.get("organization") or "me"
        repo_id = f"{owner}/{wanted['name']}"
        if not self.headers.get("Authorization"):
            self._json({"error": "log in"}, 401)
        elif repo_id in self.server_hub.repositories:
            self._json({"error": "exists", "url": f"{self.server_hub.url}/datasets/{repo_id}"}, 409)
        else:
            private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
            repository = Repository(private=private)
            repository.commit({})
            self.server_hub.repositories[repo_id] = repository
            self._json({"url": f"{self.server_hub.url}/datasets/{repo_id}"})

    def whoami(self) -> None:
        self._json({"name": "me", "type": "user", "orgs": []})

    def validate_yaml(self) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, repo_id: str, revision: str) -> None:
        files = json.loads(self.body)["files"]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith((".mp4", ".parquet")) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in files
        ]
        self._json({"files": modes})

    def batch(self, repo_id: str) -> None:
        objects = [
            {
                "oid": entry["oid"],
                "size": entry["size"],
                "actions": {"upload": {"href": f"{self.server_hub.url}/objects/{entry['oid']}"}},
            }
            for entry in json.loads(self.body)["objects"]
        ]
        content = {"Content-Type": "application/vnd.git-lfs+json"}
        self._send(json.dumps({"transfer": "basic", "objects": objects}).encode(), 200, content)

    def put_object(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.server_hub.objects[oid] = self.body
        self._send(b"")

    def commit(self, repo_id: str, revision: str) -> None:
        repository = self._repository(repo_id)
        if repository is None:
            return
        files = dict(repository.commits[repository.branches[revision]])
        for line in self.body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server_hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"])
        sha = repository.commit(files, revision)
        url = f"{self.server_hub.url}/datasets/{repo_id}/commit/{sha}"
        self._json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def tag(self, repo_id: str, revision: str) -> None:
        repository = self._repository(repo_id)
        if repository is None:
            return
        name = json.loads(self.body)["tag"]
        if name in repository.tags:
            self._json({"error": "the tag exists"}, 409)
        else:
            repository.tags[name] = repository.resolve(revision) or ""
            self._json({})

    def delete_tag(self, repo_id: str, name: str) -> None:
        self.server_hub.repositories[repo_id].tags.pop(name, None)
        self._json({})

    def do_DELETE(self) -> None:
        self._handle()

    def log_message(self, *arguments: object) -> None:
        pass


_REPO = r"([\w.-]+/[\w.-]+)"
_ROUTES = [
    ("GET", rf"/api/datasets/{_REPO}/revision/(.+)", "info"),
    ("GET", rf"/api/datasets/{_REPO}/refs", "refs"),
    ("GET", rf"/api/datasets/{_REPO}/tree/([^/]+)/?", "tree"),
    ("GET", rf"/api/datasets/{_REPO}", "info"),
    ("GET HEAD", rf"/datasets/{_REPO}/resolve/([^/]+)/(.+)", "resolve"),
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("POST", rf"/api/datasets/{_REPO}/preupload/(.+)", "preupload"),
    ("POST", rf"/datasets/{_REPO}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/objects/(\w+)", "put_object"),
    ("POST", rf"/api/datasets/{_REPO}/commit/(.+)", "commit"),
    ("POST", rf"/api/datasets/{_REPO}/tag/(.+)", "tag"),
    ("DELETE", rf"/api/datasets/{_REPO}/tag/(.+)", "delete_tag"),
]


def _oid(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
