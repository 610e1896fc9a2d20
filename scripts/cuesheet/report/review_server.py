"""Serve a review page with saving: `cuesheet review results/DATASET`.

Only this machine can reach it (127.0.0.1), and only a browser that was given the printed address:
its token becomes a cookie that other sites do not get sent. Writing also needs the page's own
origin and a header that other sites cannot set. Corrections go to corrections/DATASET.
"""

import argparse
import json
import secrets
import socket
import sys
from pathlib import Path

from aiohttp import web

from cuesheet.errors import CuesheetError
from cuesheet.report.correction_files import ConflictError, CorrectionFolder

_LARGEST_FILE = 8 << 20  # bytes of a correction
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; media-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class ReviewServer:
    """The application for one dataset's results; `token` is what a browser has to bring."""

    def __init__(self, results: Path, corrections: CorrectionFolder, token: str) -> None:
        self.results = results.resolve()
        self.corrections = corrections
        self.token = token

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard], client_max_size=_LARGEST_FILE)
        application.on_response_prepare.append(_add_headers)
        application.add_routes(
            [
                web.get("/", self._enter),
                web.get("/api/session", self._session),
                web.get(r"/api/corrections/{episode:\d{6}}", self._read),
                web.put(r"/api/corrections/{episode:\d{6}}", self._write),
                web.get(r"/{folder:review|clips}/{path:.+}", self._file),
            ]
        )
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler) -> web.StreamResponse:
        """Refuse what does not come from the page that this server gave out."""
        name, _, port = request.host.rpartition(":")
        if name not in ("127.0.0.1", "localhost"):  # another name that resolves to this machine
            raise web.HTTPForbidden(text="open the address that make review printed")
        if request.path == "/" and "token" in request.query:
            return await handler(request)
        if not secrets.compare_digest(request.cookies.get(_cookie(port), ""), self.token):
            raise web.HTTPForbidden(text="open the address that make review printed")
        if request.method not in ("GET", "HEAD"):
            own = request.headers.get("Origin") == f"http://{request.host}"
            if not own or request.headers.get("X-Cuesheet") != "review":
                raise web.HTTPForbidden(text="only the review page itself may write")
        return await handler(request)

    async def _enter(self, request: web.Request) -> web.Response:
        response = web.HTTPSeeOther("/review/index.html")
        given = request.query.get("token")
        if given is not None:
            if not secrets.compare_digest(given, self.token):
                raise web.HTTPForbidden(text="open the address that make review printed")
            name = _cookie(request.host.rpartition(":")[2])
            response.set_cookie(name, self.token, httponly=True, samesite="Strict")
        raise response

    async def _session(self, request: web.Request) -> web.Response:
        return web.json_response({"dataset": self.corrections.dataset})

    async def _read(self, request: web.Request) -> web.Response:
        try:
            saved = self.corrections.read(int(request.match_info["episode"]))
        except CuesheetError as error:
            return web.Response(status=422, text=str(error))
        return web.json_response(saved.as_json())

    async def _write(self, request: web.Request) -> web.Response:
        expected = request.headers.get("If-Match")
        try:
            content = json.loads(await request.read())
        except ValueError as error:
            return web.Response(status=400, text=f"the request is no JSON: {error}")
        if expected is None or not (content is None or isinstance(content, dict)):
            return web.Response(status=400, text="expected If-Match and an object or null")
        try:
            index = int(request.match_info["episode"])
            saved = self.corrections.write(index, content, expected)
        except ConflictError as conflict:
            return web.json_response(conflict.saved.as_json(), status=409)
        except CuesheetError as error:
            return web.Response(status=422, text=str(error))
        except OSError as error:
            text = f"{self.corrections.folder} cannot be written: {error.strerror}"
            return web.Response(status=500, text=text)
        return web.json_response(saved.as_json())

    async def _file(self, request: web.Request) -> web.StreamResponse:
        root = self.results / request.match_info["folder"]
        path = (root / request.match_info["path"]).resolve()
        if not path.is_relative_to(root.resolve()) or not path.is_file():
            raise web.HTTPNotFound()
        return web.FileResponse(path)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _cookie(port: str) -> str:
    """Cookies do not tell ports apart, so the name does."""
    return f"cuesheet-review-{port}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="cuesheet review",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, help="the result folder, e.g. results/demo_v3")
    parser.add_argument(
        "--corrections",
        type=Path,
        default=Path("corrections"),
        help="as the setting corrections_dir (default: %(default)s)",
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    options = parser.parse_args(arguments)
    name = options.results.resolve().name
    if not (options.results / "review" / "index.html").is_file():
        print(
            f"ERROR: {options.results}/review/index.html is not there; run the workflow first: "
            f"snakemake --cores 2 {options.results}/review/index.html",
            file=sys.stderr,
        )
        return 2
    corrections = CorrectionFolder(
        options.corrections / name,
        name,
        Path(".cuesheet") / "corrections" / name,
        options.results / "keyframes",
    )
    server = ReviewServer(options.results, corrections, secrets.token_urlsafe(24))

    try:
        listener = socket.create_server(("127.0.0.1", options.port))
    except OSError as error:
        print(f"ERROR: port {options.port} cannot be used: {error.strerror}", file=sys.stderr)
        return 2
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/?token={server.token}"
    print(
        f"Review page of {name}: {address}\nCorrections go to {corrections.folder}. Ctrl+C ends it."
    )
    sys.stdout.flush()
    web.run_app(server.application(), sock=listener, print=None, access_log=None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
