"""Replies of the standard library's HTTP server, for the servers of benchmarks."""

from http.server import BaseHTTPRequestHandler


def send_json(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    """Send a JSON text with status 200."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
