"""Connections that fail because of a certificate, TLS or a proxy: the cause and what to do."""

import asyncio
import contextlib
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from chat_server import KEY
from dialects import plain

from cuesheet.serving.backends import ExternalBackend
from cuesheet.serving.server_check import CheckFailedError, CheckRequest, check_external

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
REQUEST = CheckRequest("test-model")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """Return a file with a key and a certificate for localhost that no authority signed."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    name = ["-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(path), "-out", str(path.with_name("certificate.pem"))]
    subprocess.run([*command.split(), *name, *files], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_name("certificate.pem").read_text())
    return path


@contextlib.asynccontextmanager
async def serving_on(host: str, pem: Path | None = None) -> AsyncIterator[int]:
    """Serve chat requests and yield the port; with TLS if there is a certificate."""

    async def chat(request: web.Request) -> web.Response:
        return web.json_response(plain(json.loads(await request.read())))

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "test-model"}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    context = None
    if pem is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pem)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0, ssl_context=context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def check(url: str) -> CheckFailedError | None:
    """Check a server and return why it cannot be used; None if it can."""
    backend = ExternalBackend({url: KEY}, "test-model", 20.0)
    try:
        await check_external(backend.upstreams, REQUEST, lambda text: None)
        return None
    except CheckFailedError as error:
        return error
    finally:
        await backend.close()


@needs_openssl
async def test_an_unknown_certificate_names_the_variable_that_makes_it_known(
    certificate, monkeypatch
):
    async with serving_on("localhost", certificate) as port:
        url = f"https://localhost:{port}/v1"
        found = await check(url)
        monkeypatch.setenv("SSL_CERT_FILE", "/missing/ca.pem")
        missing = await check(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("certificate.pem")))
        assert await check(url) is None
    assert not found.is_temporary
    assert "certificate is rejected (self-signed certificate); set the environment" in str(found)
    assert "SSL_CERT_FILE" in str(found)
    assert "\n" not in str(found)
    assert "it names /missing/ca.pem, which is not a file" in str(missing)


@needs_openssl
async def test_a_certificate_for_another_name_says_so(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("certificate.pem")))
    async with serving_on("127.0.0.1", certificate) as port:
        found = await check(f"https://127.0.0.1:{port}/v1")
    assert "use the host name of the certificate in vlm.base_urls" in str(found)


@needs_openssl
async def test_https_and_http_that_are_confused_name_the_right_one(certificate):
    async with serving_on("127.0.0.1") as port:
        found = await check(f"https://127.0.0.1:{port}/v1")
    assert not found.is_temporary
    assert "write http:// instead of https:// in vlm.base_urls" in str(found)
    async with serving_on("127.0.0.1", certificate) as port:
        found = await check(f"http://127.0.0.1:{port}/v1")
    assert "https:// if it uses TLS" in str(found)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_port_without_a_server_refuses_the_connection(host):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = str(await check(f"http://{host}:{port}/v1"))
    assert f"{host}:{port}: cannot connect (connection refused)" in found


async def test_a_server_on_an_ipv6_address_is_used_without_the_proxy(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    try:
        async with serving_on("::1") as port:
            assert await check(f"http://[::1]:{port}/v1") is None
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert str(await check(f"http://[::1]:{port}/v1")).count(f"[::1]:{port}: cannot connect") == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_does_not_answer_is_named_without_its_password(scheme, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name = f"{scheme}_proxy".upper()
    monkeypatch.setenv(name, f"http://user:secret-password@127.0.0.1:{port}")
    found = str(await check(f"{scheme}://model.example/v1"))
    assert f"through the proxy 127.0.0.1:{port} ({name}; NO_PROXY lists" in found
    assert "secret-password" not in found


async def test_a_socks_proxy_is_said_to_be_unsupported(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    assert "SOCKS proxies are not supported" in str(await check("http://model.example/v1"))


async def test_hosts_in_no_proxy_are_reached_directly(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", ".invalid")
    found = str(await check("http://model.invalid/v1"))
    assert "proxy" not in found


async def test_a_port_that_does_not_speak_http_says_so_in_one_line():
    async def greet(reader, writer):
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    found = str(await check(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"))
    server.close()
    assert "its response is not valid HTTP" in found
    assert len(found) < 300
