"""External servers: keys, proxies, and several servers that share the requests."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess

import pytest
from aiohttp import web
from chat_server import completion, question_of, refusal, serving
from gateway_setup import chat, gateway_before

from cuesheet.errors import CuesheetError
from cuesheet.serving import upstream
from cuesheet.serving.backends import ExternalBackend
from cuesheet.serving.connection_errors import is_loopback
from cuesheet.serving.credentials import keys_of
from cuesheet.serving.upstream import Upstream, scrubbed

ROUTER = "https://router.huggingface.co/v1"
TOKEN = "hf_test_5e1d0c9a7b"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def external(*urls, **changes):
    return {"base_urls": list(urls), "api_key_env": None, "api_key_file": None, **changes}


# Keys


@pytest.mark.parametrize(
    "text", ["{}", "{}\r\n", "\ufeff{}\n", '"{}"', "'{}'", "Bearer {}\n", " {} "]
)
def test_a_key_is_read_without_what_editors_and_users_add(tmp_path, text):
    path = tmp_path / "key"
    path.write_text(text.format(TOKEN), encoding="utf-8")
    found = keys_of(external("http://gpu1:8000/v1", api_key_file=str(path)))
    assert set(found.values()) == {TOKEN}


@pytest.mark.parametrize("text", ["{0}\n{0}", "KEY = {0}", "{0}\u2026", "{0}\tx"])
@pytest.mark.parametrize("source", ["file", "variable"])
def test_more_than_a_key_is_rejected_without_showing_it(tmp_path, monkeypatch, text, source):
    text = text.format(TOKEN)
    monkeypatch.setenv("K", text)
    (tmp_path / "key").write_text(text, encoding="utf-8")
    place = {"api_key_file": str(tmp_path / "key")} if source == "file" else {"api_key_env": "K"}
    with pytest.raises(CuesheetError, match="holds more than a key") as caught:
        keys_of(external("http://gpu1:8000/v1", **place))
    assert TOKEN not in str(caught.value)


def test_hugging_face_gets_its_token_and_nobody_else_does(monkeypatch):
    urls = [
        ROUTER,
        "https://abc.us-east-1.aws.endpoints.huggingface.cloud/v1",
        "http://127.0.0.1:8000/v1",
        "https://huggingface.co.example.org/v1",
        "https://nothuggingface.co/v1",
        "http://router.huggingface.co/v1",
    ]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    keys = keys_of(external(*urls))
    assert list(keys) == urls
    assert list(keys.values()) == [TOKEN, TOKEN, None, None, None, None]


def test_the_error_for_a_missing_token_lists_the_places_that_were_searched(tmp_path, monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(CuesheetError, match=f"HF_TOKEN.*{tmp_path}/token.*hf auth login"):
        keys_of(external(ROUTER))


def test_the_token_of_hugging_face_is_read_from_the_file_of_its_tools(monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    assert keys_of(external(ROUTER)) == {ROUTER: TOKEN}


def test_a_key_that_the_settings_name_is_that_of_all_servers(monkeypatch):
    urls = [ROUTER, "http://10.0.0.7:8000/v1"]
    monkeypatch.setenv("MINE", "my-own-key")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    keys = keys_of(external(*urls, api_key_env="MINE"))
    assert keys == dict.fromkeys(urls, "my-own-key")


def test_words_that_stand_for_no_key_are_left_in_messages():
    text = b"none of the 3 tests is EMPTY"
    for key in (None, "", "none", "EMPTY", "test"):
        assert scrubbed(text, key) == text
    assert scrubbed(b"bad key sk-12345678.", "sk-12345678") == b"bad key ***."


async def test_a_server_without_a_key_has_its_words_left_as_they_are(tmp_path):
    async with serving(lambda body, n: refusal(422, "none of the fields fits"), key=None) as server:
        backend = ExternalBackend({server.url: None}, "test-model", 20.0)
        async with gateway_before(tmp_path, backend=backend) as gateway:
            _, reply = await gateway.ask(chat("a"))
    assert reply["error"]["message"] == "none of the fields fits"


async def test_a_key_that_a_server_repeats_in_its_reply_is_not_stored(tmp_path):
    key = "upstream-key-3b8e1f"
    async with (
        serving(lambda body, n: completion("ok", debug={"key": key})) as server,
        gateway_before(tmp_path, server.url) as gateway,
    ):
        _, reply = await gateway.ask(chat("a"))
    assert reply["debug"] == {"key": "***"}
    (entry,) = (tmp_path / "cache").rglob("*.json")
    assert key not in entry.read_text()


# Proxies


@contextlib.asynccontextmanager
async def proxy(target_port):
    """An HTTP proxy that leads everybody to one port of this machine; yields URL and requests."""
    asked = []

    async def handle(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b"\r\n")[0].decode())
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", target_port)
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            to_writer.write(head)
        await asyncio.gather(_pass_on(reader, to_writer), _pass_on(to_reader, writer))

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def _pass_on(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
def no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.9.9.9/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://0.0.0.0:8000/v1", True),
        ("http://10.0.0.7:8000/v1", False),
        ("http://localhost.example.org/v1", False),
        (ROUTER, False),
    ],
)
def test_which_addresses_are_this_machine(url, loopback):
    assert is_loopback(url) is loopback


async def test_requests_to_a_server_on_this_machine_bypass_the_proxy(tmp_path, no_proxies):
    async with serving(lambda body, n: completion("ok")) as server, proxy(9) as (url, asked):
        for name in PROXIES[:3]:
            no_proxies.setenv(name, url)
        async with gateway_before(tmp_path, server.url) as gateway:
            status, _ = await gateway.ask(chat("a"))
    assert (status, asked) == (200, [])


async def test_requests_to_a_remote_server_use_the_proxy(tmp_path, no_proxies):
    async with serving(lambda body, n: completion("ok")) as server:
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        async with proxy(port) as (url, asked):
            no_proxies.setenv("HTTP_PROXY", url)
            async with gateway_before(tmp_path, "http://models.example/v1") as gateway:
                status, _ = await gateway.ask(chat("a"))
    assert status == 200
    assert asked == ["POST http://models.example/v1/chat/completions HTTP/1.1"]


# Hugging Face Inference Providers


@pytest.fixture
def certificate(tmp_path):
    """A certificate for the router's name, signed by itself; file and key in one."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    path = tmp_path / "router.pem"
    name = "router.huggingface.co"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    words += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    words += ["-keyout", str(tmp_path / "key.pem"), "-out", str(path)]
    subprocess.run(words, check=True, capture_output=True)
    path.write_text((tmp_path / "key.pem").read_text() + path.read_text())
    return path


@contextlib.asynccontextmanager
async def fake_router(certificate):
    """Inference Providers as far as a client sees them: TLS, token, `model:provider`, refusals."""
    bodies = []

    async def answer(request):
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error": "Invalid username or password."}, status=401)
        body = await request.json()
        bodies.append(body)
        model, _, provider = body["model"].partition(":")
        if provider != "some-provider":
            message = f"The requested model '{body['model']}' is not supported by any provider"
            code = {"message": message, "type": "invalid_request_error", "code": "model_not_found"}
            return web.json_response({"error": code}, status=400)
        return web.json_response(completion('{"label": "cup"}', model=model))

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1], bodies
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("model", "token", "status", "says"),
    [
        ("org/Some-VL-7B:some-provider", TOKEN, 200, ""),
        ("org/Some-VL-7B:other", TOKEN, 400, "not supported by any provider"),
        ("org/Some-VL-7B:some-provider", "hf_wrong_token", 401, "Invalid username"),
    ],
)
async def test_inference_providers_get_the_token_and_the_model_with_its_provider(
    tmp_path, no_proxies, certificate, model, token, status, says
):
    async with fake_router(certificate) as (port, bodies), proxy(port) as (url, asked):
        no_proxies.setenv("HTTPS_PROXY", url)
        no_proxies.setenv("SSL_CERT_FILE", str(certificate))
        no_proxies.setenv("HF_TOKEN", token)
        backend = ExternalBackend(keys_of(external(ROUTER)), model, 20.0)
        async with gateway_before(tmp_path, backend=backend) as gateway:
            got, reply = await gateway.ask({**chat("a"), "model": model})
    assert got == status
    assert asked[0].startswith("CONNECT router.huggingface.co:443")
    if status == 200:
        assert bodies[0]["model"] == model
        assert reply["cuesheet"]["upstream"] == "router.huggingface.co"
    else:
        assert says in reply["error"]["message"]
    assert token not in str(reply)
    assert not [p for p in (tmp_path / "cache").rglob("*.json") if token in p.read_text()]


# Several servers


async def test_new_episodes_go_to_the_server_with_the_fewest_calls(tmp_path):
    go = asyncio.Event()

    async def slow(body, number):
        await go.wait()
        return completion("ok")

    async with (
        serving(slow) as one,
        serving(lambda body, n: completion("ok")) as two,
        gateway_before(tmp_path, one.url, two.url) as gateway,
    ):
        held = [asyncio.create_task(gateway.ask(chat(f"first {n}"), "d/0")) for n in range(3)]
        while one.calls < 3:
            await asyncio.sleep(0.01)
        for number in range(1, 9):
            await gateway.ask(chat("q"), f"d/{number}")
            await gateway.ask(chat(f"q {number}"), f"d/{number}")
        go.set()
        await asyncio.gather(*held)
    assert one.calls == 3
    assert two.calls == 9  # `q` is the same question for all


async def test_a_server_that_fails_is_left_alone_and_taken_back_when_it_recovers(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(upstream, "FIRST_COOLDOWN_S", 0.2)
    healthy = False

    def sick(body, number):
        return completion("sick one is well") if healthy else refusal(500, "oops")

    async with (
        serving(sick) as one,
        serving(lambda body, n: completion("ok")) as two,
        serving(lambda body, n: completion("ok")) as three,
        gateway_before(tmp_path, one.url, two.url, three.url, max_attempts=4) as gateway,
    ):
        replies = await asyncio.gather(
            *(gateway.ask(chat(f"question {n}"), f"d/{n}") for n in range(30))
        )
        assert {status for status, _ in replies} == {200}
        assert two.calls + three.calls == 30
        assert min(two.calls, three.calls) >= 8
        # As many as were under way when it began to fail, and no more.
        assert one.calls <= gateway.gateway.dispatcher.concurrency
        healthy = True
        number = 0
        while "sick one is well" not in str(replies[-1]):
            number += 1
            assert number < 3000, "it was never asked again"
            replies.append(await gateway.ask(chat(f"later {number}"), f"later/{number}"))
            await asyncio.sleep(0.01)


async def test_when_all_servers_fail_they_are_still_tried_as_often_as_is_set(tmp_path):
    async with (
        serving(lambda body, n: refusal(503, "busy")) as one,
        serving(lambda body, n: refusal(503, "busy")) as two,
        gateway_before(tmp_path, one.url, two.url, max_attempts=4) as gateway,
    ):
        status, reply = await gateway.ask(chat("a"), "d/0")
    assert (status, one.calls + two.calls) == (502, 4)
    assert "503 busy" in reply["error"]["message"]


# The form in words


async def test_a_server_that_is_said_to_ignore_response_format_is_never_sent_it(tmp_path):
    form = {"type": "json_schema", "json_schema": {"name": "X", "schema": {"title": "Label"}}}
    async with serving(lambda body, n: completion("{}")) as server:
        keys = {server.url: "upstream-key-3b8e1f"}
        backend = ExternalBackend(keys, "test-model", 20.0, structured=False)
        async with gateway_before(tmp_path, backend=backend) as gateway:
            await gateway.ask(chat("a", response_format=form))
    assert "response_format" not in server.bodies[0]
    assert '{"title":"Label"}' in question_of(server.bodies[0])


async def test_an_upstream_is_named_by_its_host_and_port():
    made = Upstream("http://10.0.0.7:8000/v1", None, 1.0)
    assert made.name == "10.0.0.7:8000"
    await made.close()
