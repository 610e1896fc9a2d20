"""Common chat servers, each as tests/dialects.py describes it, behind the real gateway."""

import json

import pytest
from aiohttp import web
from chat_server import KEY, serving
from dialects import AZURE_FILTER, DIALECTS, NGINX_413, error, plain, schema_of
from gateway_setup import gateway_before

from cuesheet.serving.backends import ExternalBackend
from cuesheet.serving.server_check import CheckRequest, check_upstream
from cuesheet.serving.upstream import Upstream
from cuesheet.vlm.parsing import message_text, parse_reply
from cuesheet.vlm.replies import Acknowledgement
from cuesheet.vlm.structured_output import response_format

SAMPLING = {"temperature": 0.2, "top_p": 1.0, "max_tokens": 64, "seed": 0}
FAILURES = [(name, case) for name, dialect in DIALECTS.items() for case in dialect.failures]


def request(model: str, text: str = "Acknowledge it.") -> dict:
    content = [{"type": "text", "text": text}]
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": "You annotate."},
            {"role": "user", "content": content},
        ],
        "response_format": response_format(Acknowledgement),
        **SAMPLING,
    }


@pytest.mark.parametrize("name", DIALECTS)
async def test_the_check_learns_how_a_server_differs_and_every_answer_is_used(tmp_path, name):
    dialect = DIALECTS[name]
    shown: list[str] = []
    async with serving(
        lambda body, n: dialect.behave(body), model=dialect.model, listed=list(dialect.listed)
    ) as server:
        backend = ExternalBackend({server.url: KEY}, dialect.model, 20.0)
        checked = CheckRequest(dialect.model, sampling=SAMPLING)
        report = await check_upstream(backend.upstreams[0], checked, shown.append)
        assert report.reply_error == ""
        assert report.adjustments == list(dialect.learned)
        assert report.answer_field == dialect.answer_field
        assert len(shown) == len(dialect.learned)
        before = server.calls
        async with gateway_before(tmp_path, backend=backend) as gateway:
            status, reply = await gateway.ask(request(dialect.model))
        assert server.calls == before + 1
    assert status == 200
    assert reply["cuesheet"]["adjustments"] == list(dialect.learned)
    text, field = message_text(reply["choices"][0]["message"])
    assert field == dialect.answer_field
    assert parse_reply(text, Acknowledgement).speech == "Yes."


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "anthropic"])
async def test_without_the_check_the_first_request_learns_the_same(tmp_path, name):
    dialect = DIALECTS[name]
    async with (
        serving(lambda body, n: dialect.behave(body)) as server,
        gateway_before(tmp_path, server.url) as gateway,
    ):
        for number in range(2):
            before = server.calls
            status, reply = await gateway.ask(request(dialect.model, f"Acknowledge {number}."))
            assert status == 200
            assert reply["cuesheet"]["adjustments"] == list(dialect.learned)
            rejections = len(dialect.learned) if number == 0 else 0
            assert server.calls - before == 1 + rejections


@pytest.mark.parametrize(("name", "case"), FAILURES)
async def test_an_error_is_understood_and_names_what_helps(tmp_path, name, case):
    failure = DIALECTS[name].failures[case]
    async with (
        serving(lambda body, n: failure.response()) as server,
        gateway_before(tmp_path, server.url) as gateway,
    ):
        status, reply = await gateway.ask(request(DIALECTS[name].model))
        calls = server.calls
    assert status >= 400
    assert reply["error"]["code"] == failure.kind
    for words in failure.words:
        assert words in reply["error"]["message"]
    if failure.kind == "gave_up":
        assert calls == 3
        assert all(55 <= nap <= 60 for nap in gateway.naps)
    else:
        assert gateway.naps == []


async def test_a_request_that_azure_filters_is_a_refusal_with_its_text(tmp_path):
    async with (
        serving(lambda body, n: web.json_response(AZURE_FILTER, status=400)) as server,
        gateway_before(tmp_path, server.url) as gateway,
    ):
        status, reply = await gateway.ask(request("my-deployment"))
    assert status == 200
    assert reply["choices"][0]["finish_reason"] == "content_filter"
    assert "content management policy" in reply["choices"][0]["message"]["refusal"]


async def test_an_html_page_of_a_proxy_names_its_body_limit(tmp_path):
    def too_large(body, number):
        return web.Response(status=413, text=NGINX_413, content_type="text/html")

    async with (
        serving(too_large) as server,
        gateway_before(tmp_path, server.url) as gateway,
    ):
        _, reply = await gateway.ask(request("m"))
    assert reply["error"]["code"] == "payload_too_large"
    assert "an HTML page: 413 Request Entity Too Large" in reply["error"]["message"]
    assert "client_max_body_size" in reply["error"]["message"]


@pytest.mark.parametrize(
    "message",
    [
        "Failed to initialize samplers: failed to parse grammar",  # llama.cpp
        "The provided JSON schema contains features not supported: unsupported keyword 'enum'",
        "The schema produces a constraint that has too many states for serving.",  # Gemini
        "response_format is not supported by this model",
        "Invalid schema for response_format 'Plan': 'additionalProperties' is required",
    ],
)
async def test_a_rejected_schema_moves_into_the_prompt(tmp_path, message):
    def behave(body, number):
        return error(400, message) if "response_format" in body else plain(body)

    async with (
        serving(behave) as server,
        gateway_before(tmp_path, server.url) as gateway,
    ):
        status, reply = await gateway.ask(request("m"))
        assert schema_of(server.bodies[-1])["properties"].keys() == {"speech"}
    assert status == 200
    learned = "the reply schema is sent in the prompt instead of response_format"
    assert reply["cuesheet"]["adjustments"] == [learned]
    assert json.loads(reply["choices"][0]["message"]["content"]) == {"speech": "Yes."}


def test_only_azure_lists_models_under_other_names_than_requests_use():
    azure = "https://my-resource.openai.azure.com/openai/v1"
    assert Upstream(azure, "key", 5.0).lists_other_names
    assert not Upstream("https://api.openai.com/v1", "key", 5.0).lists_other_names
    assert not Upstream("https://openai.azure.com.example.org/v1", "key", 5.0).lists_other_names
