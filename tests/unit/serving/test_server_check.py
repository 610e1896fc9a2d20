"""The check of a model server: what it finds out, and what it says if the server cannot be used."""

import asyncio
import json
import socket

import pytest
from aiohttp import web
from chat_server import KEY, ChatServer, completion, refusal, serving
from dialects import plain
from gateway_setup import chat, gateway_before

from cuesheet.serving.backends import ExternalBackend
from cuesheet.serving.server_check import (
    CHECK_NAME,
    CheckFailedError,
    CheckRequest,
    check_external,
    is_listed_as,
)

REQUEST = CheckRequest("test-model", sampling={"temperature": 0.2, "max_tokens": 64})


def free_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


async def failure(*urls: str, key: str | None = KEY, request: CheckRequest = REQUEST):
    backend = ExternalBackend(dict.fromkeys(urls, key), request.model, 60.0)
    try:
        with pytest.raises(CheckFailedError) as caught:
            await check_external(backend.upstreams, request, lambda text: None)
        return caught.value
    finally:
        await backend.close()


async def test_one_request_with_images_a_schema_and_the_sampling_of_the_run_is_sent():
    async with serving(lambda body, n: plain(body)) as server:
        backend = ExternalBackend({server.url: KEY}, "test-model", 60.0)
        sampling = {"seed": 7, "top_p": None}
        request = CheckRequest("test-model", [(3, "plan.relabel", 0)], sampling)
        (report,) = await check_external(backend.upstreams, request, lambda text: None)
        await backend.close()
    assert report.models == ["test-model"]
    assert report.latency_s > 0
    (body,) = server.bodies
    assert body["response_format"]["json_schema"]["name"] == CHECK_NAME
    assert body["seed"] == 7
    assert "top_p" not in body
    parts = [part["type"] for part in body["messages"][-1]["content"]]
    assert parts == ["image_url"] * 3 + ["text"]
    assert len(json.dumps(body)) < 8000


async def test_a_dead_server_is_temporary_and_named():
    url = free_url()
    found = await failure(url)
    assert found.is_temporary
    assert "does not answer" in str(found)
    assert url.removeprefix("http://").removesuffix("/v1") in str(found)
    assert "vlm.base_urls" in str(found)


async def test_a_wrong_key_names_the_setting_and_is_not_shown():
    async with serving(lambda body, n: plain(body)) as server:
        found = await failure(server.url, key="wrong-key-123456")
    assert not found.is_temporary
    assert "rejected the API key; check vlm.api_key_env" in str(found)
    assert "wrong-key-123456" not in str(found)


async def test_a_missing_key_is_said_to_be_missing():
    async with serving(lambda body, n: plain(body)) as server:
        found = await failure(server.url, key=None)
    assert "needs an API key, but none is set" in str(found)


async def test_a_model_that_is_not_listed_is_named_with_the_nearest_and_nothing_is_sent():
    async with serving(lambda body, n: plain(body), model="Qwen/Qwen3-VL-8B-Instruct") as server:
        found = await failure(server.url, request=CheckRequest("Qwen/Qwen3-VL-8B-Instuct"))
    assert "does not list the model Qwen/Qwen3-VL-8B-Instuct" in str(found)
    assert "did you mean Qwen/Qwen3-VL-8B-Instruct?" in str(found)
    assert "vlm.check" in str(found)
    assert server.bodies == []


@pytest.mark.parametrize(
    ("model", "listed", "expected"),
    [
        ("gemini-2.5-flash", "models/gemini-2.5-flash", True),
        ("qwen2.5vl", "qwen2.5vl:latest", True),
        ("qwen2.5vl:7b", "qwen2.5vl:latest", False),
        ("Qwen/Qwen2.5-VL-72B-Instruct:fastest", "Qwen/Qwen2.5-VL-72B-Instruct", True),
        ("openai/gpt-5", "openai/*", True),
        ("gpt-5", "openai/*", False),
        ("gpt-5", "gpt-5-mini", False),
    ],
)
def test_names_under_which_servers_list_a_model(model, listed, expected):
    assert is_listed_as(model, listed) is expected


async def test_an_image_limit_names_the_setting_and_its_value():
    def one_image(body, number):
        return refusal(400, "At most 1 image(s) may be provided in one prompt.")

    async with serving(one_image) as server:
        counts = [
            (4, "plan.relabel_frames", 1),
            (3, "plan.frames.max_frames_per_call", 20),
            (3, "plan.relabel", 0),
            (1, "vqa.frames", 1),
        ]
        found = await failure(server.url, request=CheckRequest("test-model", counts))
    assert "accepts at most 1 image per request, but this run sends up to 4" in str(found)
    changes = "plan.relabel_frames to 1 and plan.frames.max_frames_per_call to 20 and plan.relabel"
    assert f"Set {changes} to off, or raise" in str(found)


async def test_a_model_without_vision_says_so_at_once():
    def text_only(body, number):
        return refusal(500, "image input is not supported - hint: provide the mmproj")

    async with serving(text_only) as server:
        found = await failure(server.url)
        assert server.calls == 1
    assert "this model or server accepts no images" in str(found)


async def test_an_exhausted_quota_is_temporary_and_is_not_retried():
    async with serving(
        lambda body, n: web.json_response(
            {"error": {"message": "no credits", "code": "insufficient_quota"}}, status=429
        )
    ) as server:
        found = await failure(server.url)
        assert server.calls == 1
    assert found.is_temporary
    assert "quota or credit of this account is exhausted" in str(found)


async def test_one_of_two_servers_that_is_dead_is_a_notice():
    shown: list[str] = []
    async with serving(lambda body, n: plain(body)) as server:
        backend = ExternalBackend({free_url(): KEY, server.url: KEY}, "test-model", 60.0)
        reports = await check_external(backend.upstreams, REQUEST, shown.append)
        await backend.close()
    assert len(reports) == 1
    (line,) = shown
    assert "does not answer" in line
    assert "The other servers are used" in line


async def test_a_reply_of_another_form_is_a_notice_and_no_error():
    shown: list[str] = []
    async with serving(lambda body, n: completion("A red square.")) as server:
        backend = ExternalBackend({server.url: KEY}, "test-model", 60.0)
        await check_external(backend.upstreams, REQUEST, shown.append)
        assert not backend.upstreams[0].adjustments.schema_in_prompt
        await backend.close()
    (line,) = shown
    assert "not of the requested form" in line


async def test_a_check_that_is_due_runs_once_before_the_first_request_that_is_not_cached(tmp_path):
    checks = 0

    async def check():
        nonlocal checks
        checks += 1
        await asyncio.sleep(0.01)

    async with (
        serving(lambda body, n: completion("{}")) as server,
        gateway_before(tmp_path, server.url) as gateway,
    ):
        gateway.gateway.dispatcher.pending_check = check
        await asyncio.gather(*(gateway.ask(chat(f"question {n}")) for n in range(4)))
    assert checks == 1
    assert server.calls == 4


async def test_cached_requests_need_no_check_and_others_fail_with_its_cause(tmp_path):
    fatal: list[str] = []

    async def check():
        raise CheckFailedError("the model server does not answer")

    async with (
        serving(lambda body, n: completion("{}")) as server,
        gateway_before(tmp_path, server.url) as gateway,
    ):
        await gateway.ask(chat("known"))
        dispatcher = gateway.gateway.dispatcher
        dispatcher.pending_check, dispatcher.on_fatal = check, fatal.append
        assert (await gateway.ask(chat("known")))[0] == 200
        assert fatal == []
        for _ in range(2):
            status, reply = await gateway.ask(chat("new"))
            assert status == 502
            assert reply["error"]["code"] == "check_failed"
            assert "does not answer" in reply["error"]["message"]
        assert server.calls == 1
    assert fatal == ["the model server does not answer"]


async def test_an_object_in_reasoning_that_was_cut_off_is_no_reply():
    def behave(body, number):
        reply = completion(None, "length")
        reply["choices"][0]["message"]["reasoning"] = 'Maybe {"color": "blue"}? No,'
        return reply

    shown: list[str] = []
    async with serving(behave) as server:
        backend = ExternalBackend({server.url: KEY}, "test-model", 60.0)
        await check_external(backend.upstreams, REQUEST, shown.append)
        await backend.close()
    assert "not of the requested form" in shown[-1]


@pytest.mark.parametrize(
    "listed",
    [
        {"data": [{"id": "other"}], "has_more": True},
        {"data": [{"id": "other"}], "nextPageToken": "page-2"},
        {"data": [{"id": "model-2501", "aliases": ["test-model", "latest"]}]},
        [{"id": "other"}],
        {"error": {"message": "Missing scopes: api.model.read"}},
        "<html>",
    ],
    ids=["pages", "page token", "aliases", "plain list", "not allowed", "page"],
)
async def test_a_list_that_need_not_be_complete_never_ends_the_check(listed, monkeypatch):
    async def models(self, request):
        return web.json_response(listed, status=403 if "error" in listed else 200)

    monkeypatch.setattr(ChatServer, "models", models)
    async with serving(lambda body, n: plain(body)) as server:
        backend = ExternalBackend({server.url: KEY}, "test-model", 60.0)
        (report,) = await check_external(backend.upstreams, REQUEST, lambda text: None)
        await backend.close()
    assert report.reply_error == ""


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "System role not supported"),
        (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
        (500, "TemplateError: System role not supported"),
        (400, "Developer instruction is not enabled for models/gemma-3-27b-it"),
    ],
)
async def test_a_model_without_a_system_role_gets_the_message_in_the_question(status, message):
    def behave(body, number):
        roles = [one["role"] for one in body["messages"]]
        return refusal(status, message) if "system" in roles else plain(body)

    async with serving(behave) as server:
        backend = ExternalBackend({server.url: KEY}, "test-model", 60.0)
        (report,) = await check_external(backend.upstreams, REQUEST, lambda text: None)
        await backend.close()
    assert report.adjustments == ["the system message is sent as a part of the question"]
    parts = server.bodies[-1]["messages"][0]["content"]
    assert parts[0] == {"type": "text", "text": "You describe images."}
    assert [part["type"] for part in parts] == ["text", "image_url", "text"]


async def test_a_redirect_is_not_followed_and_its_target_is_named():
    moved = {"Location": "https://example.org/v1/chat"}
    async with serving(lambda body, n: web.Response(status=308, headers=moved)) as server:
        error = await failure(server.url)
    assert "redirects to https://example.org/v1/chat" in str(error)
    assert "vlm.base_urls" in str(error)


async def test_the_query_of_an_address_is_sent_with_every_request():
    queries = []

    def behave(body, number):
        async def answer(request):
            queries.append(dict(request.query))
            return web.json_response(plain(body))

        return answer

    async with serving(behave) as server:
        url = f"{server.url}/?api-version=2024-10-21"
        backend = ExternalBackend({url: KEY}, "test-model", 60.0)
        await check_external(backend.upstreams, REQUEST, lambda text: None)
        await backend.close()
    assert queries == [{"api-version": "2024-10-21"}]


def only_format(image_format: str, *, status: int = 400, message: str = "bad image"):
    """Return a server's behavior that rejects images of another format."""

    def behave(body, number):
        urls = [p["image_url"]["url"] for p in body["messages"][-1]["content"] if "image_url" in p]
        if all(url.startswith(f"data:image/{image_format};") for url in urls):
            return plain(body)
        return refusal(status, message)

    return behave


@pytest.mark.parametrize(("wanted", "sent"), [("jpeg", "png"), ("png", "jpeg")])
@pytest.mark.parametrize(("status", "message"), [(400, "cannot read"), (500, "boom")])
async def test_a_server_that_rejects_the_format_of_the_images_is_found(
    wanted, sent, status, message
):
    behave = only_format(wanted, status=status, message=message)
    async with serving(behave) as server:
        found = await failure(server.url, request=CheckRequest("test-model", image_format=sent))
        assert not found.is_temporary
        assert f"rejects images of the format {sent} and accepts {wanted}" in str(found)
        assert f"set vlm.images.format to {wanted}" in str(found)
        backend = ExternalBackend({server.url: KEY}, "test-model", 60.0)
        request = CheckRequest("test-model", image_format=wanted)
        assert await check_external(backend.upstreams, request, lambda text: None)
        await backend.close()


@pytest.mark.parametrize("field", ["message", "choices"])
async def test_a_server_whose_replies_are_always_null_is_found_and_is_not_temporary(field):
    def null(body, number):
        reply = plain(body)
        if field == "choices":
            return {**reply, "choices": None}
        reply["choices"][0]["message"] = None
        return reply

    async with serving(null) as server:
        found = await failure(server.url)
    assert not found.is_temporary
    assert "answers, but not as the chat API of OpenAI defines it" in str(found)
    assert field.removesuffix("s") in str(found)
