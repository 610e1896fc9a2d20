"""Serve the review page of a dataset and save the corrections made on it.

The server listens on 127.0.0.1 only, and it only serves browsers that opened the printed address:
the token in that address becomes a cookie that browsers do not send for other sites. To save, a
request also needs the page's own origin and a header that other sites cannot set. Corrections are
saved to corrections/DATASET.
"""

import argparse
import secrets
import socket
import sys
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from cuesheet.artifacts.layout import Layout
from cuesheet.errors import CuesheetError
from cuesheet.report.correction_files import ConflictError, CorrectionFolder, parse_request
from cuesheet.report.review_site import last_command

_MAX_BODY_BYTES = 8 << 20
_OPEN_PRINTED_ADDRESS = "open the address that cuesheet review printed"
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
    """The web application for the results of one dataset.

    Args:
        results: result folder, with `review/` and `clips/`.
        corrections: correction files of the dataset.
        token: secret that a browser must send.
    """

    def __init__(self, results: Path, corrections: CorrectionFolder, token: str) -> None:
        self.results = results.resolve()
        self.corrections = corrections
        self.token = token

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard], client_max_size=_MAX_BODY_BYTES)
        application.on_response_prepare.append(_add_headers)
        application.add_routes(
            [
                web.get("/", self._enter),
                web.get("/api/session", self._session),
                web.get("/api/corrections", self._list),
                web.get(r"/api/corrections/{episode:\d{6}}", self._read),
                web.put(r"/api/corrections/{episode:\d{6}}", self._write),
                web.get(r"/{folder:review|clips}/{path:.+}", self._file),
            ]
        )
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Reject every request that does not come from the page that this server served."""
        name, _, port = request.host.rpartition(":")
        # DNS rebinding: another host name may resolve to this machine.
        if name not in ("127.0.0.1", "localhost") or not port.isascii() or not port.isdigit():
            raise web.HTTPForbidden(text=_OPEN_PRINTED_ADDRESS)
        if request.path == "/" and "token" in request.query:
            return await handler(request)
        if not self._is_token(request.cookies.get(_cookie(port), "")):
            raise web.HTTPForbidden(text=_OPEN_PRINTED_ADDRESS)
        if request.method not in ("GET", "HEAD"):
            own = request.headers.get("Origin") == f"http://{request.host}"
            if not own or request.headers.get("X-Cuesheet") != "review":
                raise web.HTTPForbidden(text="only the review page itself may save")
        return await handler(request)

    async def _enter(self, request: web.Request) -> web.Response:
        response = web.HTTPSeeOther("/review/index.html")
        given = request.query.get("token")
        if given is not None:
            if not self._is_token(given):
                raise web.HTTPForbidden(text=_OPEN_PRINTED_ADDRESS)
            name = _cookie(request.host.rpartition(":")[2])
            response.set_cookie(name, self.token, httponly=True, samesite="Strict")
        raise response

    def _is_token(self, given: str) -> bool:
        """Compare in constant time; as bytes, because a cookie may contain any characters."""
        return secrets.compare_digest(given.encode(errors="surrogatepass"), self.token.encode())

    async def _session(self, request: web.Request) -> web.Response:
        command = last_command(self.results)
        return web.json_response({"dataset": self.corrections.dataset, "command": command})

    async def _list(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(self.corrections.all_marks())
        except CuesheetError as error:
            return web.Response(status=422, text=str(error))

    async def _read(self, request: web.Request) -> web.Response:
        try:
            saved = self.corrections.read(int(request.match_info["episode"]))
        except CuesheetError as error:
            return web.Response(status=422, text=str(error))
        return web.json_response(saved.as_json())

    async def _write(self, request: web.Request) -> web.Response:
        expected = request.headers.get("If-Match")
        if expected is None:
            return web.Response(status=400, text="the header If-Match is missing")
        try:
            content = parse_request(await request.read())
        except CuesheetError as error:
            return web.Response(status=400, text=str(error))
        index = int(request.match_info["episode"])
        try:
            saved = self.corrections.write(index, content, expected)
        except ConflictError as conflict:
            return web.json_response(conflict.saved.as_json(), status=409)
        except CuesheetError as error:
            return web.Response(status=422, text=str(error))
        except OSError as error:
            text = f"cannot write to {self.corrections.folder}: {error.strerror}"
            return web.Response(status=500, text=text)
        return web.json_response(saved.as_json())

    async def _file(self, request: web.Request) -> web.StreamResponse:
        root = self.results / request.match_info["folder"]
        try:
            path = (root / request.match_info["path"]).resolve()
            found = path.is_relative_to(root.resolve()) and path.is_file()
        except (OSError, ValueError):  # a name that is too long, or that contains NUL
            found = False
        if not found:
            raise web.HTTPNotFound()
        return web.FileResponse(path)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _cookie(port: str) -> str:
    """Return the name of the cookie. It contains the port, because cookies ignore ports."""
    return f"cuesheet-review-{port}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="cuesheet review",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, help="result folder of a dataset: results/DATASET")
    parser.add_argument(
        "--corrections",
        type=Path,
        default=Path("corrections"),
        help="folder of the correction files, as in the setting corrections_dir (%(default)s)",
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port (default: a free port)")
    options = parser.parse_args(arguments)
    layout = Layout(options.results)
    name = layout.dataset
    if not layout.review_page.is_file():
        raise CuesheetError(
            f"{layout.review_page} does not exist; expected the result folder of a finished run, "
            "results/DATASET. Run the workflow of this dataset first."
        )
    corrections = CorrectionFolder(
        options.corrections / name,
        name,
        Path(".cuesheet") / "corrections" / name,
        options.results,
    )
    server = ReviewServer(options.results, corrections, secrets.token_urlsafe(24))

    try:
        listener = socket.create_server(("127.0.0.1", options.port))
    except (OSError, OverflowError) as error:
        raise CuesheetError(f"cannot listen on port {options.port}: {error}") from None
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/?token={server.token}"
    print(
        f"Review page of {name}: {address}\n"
        f"Corrections are saved to {corrections.folder}. Press Ctrl+C to stop."
    )
    sys.stdout.flush()
    web.run_app(server.application(), sock=listener, print=None, access_log=None)
