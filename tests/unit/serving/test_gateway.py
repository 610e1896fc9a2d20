"""The gateway over real HTTP: forwarded requests and returned responses."""

import asyncio
import gzip
import json
import tracemalloc

import aiohttp
import pytest
from aiohttp import web
from chat_server import KEY, completion, question_of, refusal, serving
from gateway_setup import GATEWAY_KEY, chat, gateway_before

from cuesheet.serving.dispatcher import RATE_LIMIT_PATIENCE
from cuesheet.serving.gateway import MAX_CACHE_FAILURES

SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "Relabel", "schema": SCHEMA}}


async def test_a_repeated_question_is_answered_from_the_cache(tmp_path):
    async with serving(lambda body, n: completion(f"reply {n}")) as server:
        async with gateway_before(tmp_path, server.url) as gateway:
            status, first = await gateway.ask(chat("a"))
            _, second = await gateway.ask(chat("a"))
        assert (status, server.calls) == (200, 1)
        assert second["choices"] == first["choices"]
        assert (first["cuesheet"]["cache_hit"], second["cuesheet"]["cache_hit"]) == (False, True)
        assert (first["cuesheet"]["attempts"], second["cuesheet"]["attempts"]) == (1, 0)
        assert first["cuesheet"]["key"] == second["cuesheet"]["key"]
        assert first["cuesheet"]["model"] == "test-model"
        # Another gateway, as of a later run, finds it too.
        async with gateway_before(tmp_path, server.url) as gateway:
            _, third = await gateway.ask(chat("a"))
        assert third["cuesheet"]["cache_hit"] is True
        assert server.calls == 1


async def test_identical_requests_in_flight_are_sent_once(tmp_path):
    go = asyncio.Event()

    async def behave(body, number):
        await go.wait()
        return completion("same")

    async with serving(behave) as server, gateway_before(tmp_path, server.url) as gateway:
        calls = [asyncio.create_task(gateway.ask(chat("a"), f"d/{n}")) for n in range(5)]
        while gateway.counters.calls < 5 or not server.calls:
            await asyncio.sleep(0.01)
        go.set()
        replies = [reply for _, reply in await asyncio.gather(*calls)]
    assert server.calls == 1
    assert {reply["choices"][0]["message"]["content"] for reply in replies} == {"same"}
    # What was paid once is counted once.
    assert sum(reply["cuesheet"]["attempts"] for reply in replies) == 1


async def test_concurrency_is_the_bound_and_is_used(tmp_path):
    full = asyncio.Event()

    async def behave(body, number):
        if server.in_flight == 4:
            full.set()
        await full.wait()
        return completion(question_of(body))

    async with (
        serving(behave) as server,
        gateway_before(tmp_path, server.url, concurrency=4) as gateway,
    ):
        replies = await asyncio.gather(*(gateway.ask(chat(f"q{n}")) for n in range(16)))
    assert [reply["choices"][0]["message"]["content"] for _, reply in replies] == [
        f"q{n}" for n in range(16)
    ]
    assert server.peak == 4


async def test_an_episode_with_many_calls_does_not_hold_back_another(tmp_path):
    go = asyncio.Event()

    async def behave(body, number):
        await go.wait()
        return completion("ok")

    async with (
        serving(behave) as server,
        gateway_before(tmp_path, server.url, concurrency=1) as gateway,
    ):
        many = [asyncio.create_task(gateway.ask(chat(f"many {n}"), "d/0")) for n in range(8)]
        while gateway.counters.waiting < 7:
            await asyncio.sleep(0.01)
        one = asyncio.create_task(gateway.ask(chat("one"), "d/1"))
        while gateway.counters.waiting < 8:
            await asyncio.sleep(0.01)
        go.set()
        await asyncio.gather(one, *many)
    order = [question_of(body) for body in server.bodies]
    assert order.index("one") <= 2


async def test_calls_that_nothing_waits_for_come_last_and_episode_after_episode(tmp_path):
    go = asyncio.Event()

    async def behave(body, number):
        await go.wait()
        return completion("ok")

    calls = ["0 vqa", "1 vqa", "1 vqa", "1 vqa", "2 vqa", "3 plan", "4 interjections"]
    async with (
        serving(behave) as server,
        gateway_before(tmp_path, server.url, concurrency=1) as gateway,
    ):
        asked = []
        for number, call in enumerate(calls):
            episode, stage = call.split()
            asking = gateway.ask(chat(f"{call} {number}"), f"d/{episode}", stage)
            asked.append(asyncio.create_task(asking))
            while gateway.counters.in_flight + gateway.counters.waiting <= number:
                await asyncio.sleep(0.01)
        go.set()
        await asyncio.gather(*asked)
    order = [question_of(body).rsplit(" ", 1)[0] for body in server.bodies]
    assert order == ["0 vqa", "3 plan", "4 interjections", "1 vqa", "1 vqa", "1 vqa", "2 vqa"]


async def test_a_request_reaches_the_server_as_it_came(tmp_path):
    sent = chat("Größe? \u2028 \\ud83d", seed=0, temperature=0.30000000000000004)
    async with (
        serving(lambda body, n: completion("ok")) as server,
        gateway_before(tmp_path, server.url) as gateway,
    ):
        await gateway.ask(sent)
    assert server.bodies == [sent]
    assert list(server.bodies[0]) == list(sent)


@pytest.mark.parametrize(
    "fault",
    [
        lambda: refusal(429, "slow down"),
        lambda: refusal(500, "oops"),
        lambda: refusal(502, "bad gateway"),
        lambda: refusal(503, "busy"),
        lambda: None,
        lambda: {"choices": []},
        lambda: {"object": "chat.completion"},
        lambda: web.Response(text='{"choices": [', content_type="application/json"),
        lambda: web.Response(body=b"\xff\xfe{", content_type="application/json"),
    ],
    ids=["429", "500", "502", "503", "cut", "empty", "none", "truncated", "not utf-8"],
)
async def test_a_passing_fault_is_retried_and_leaves_no_trace_in_the_reply(
    tmp_path, fault, request
):
    def behave(body, number):
        return fault() if number < 2 else completion("at last")

    async with serving(behave) as server, gateway_before(tmp_path, server.url) as gateway:
        status, reply = await gateway.ask(chat("a"))
    assert (status, reply["choices"][0]["message"]["content"]) == (200, "at last")
    assert reply["cuesheet"]["attempts"] == server.calls == 3
    assert gateway.counters.retries == len(gateway.naps) == 2
    # Exponential, with jitter of at most a half.
    factor = RATE_LIMIT_PATIENCE if "429" in request.node.name else 1
    assert 0.25 <= gateway.naps[0] / factor <= 0.5 <= gateway.naps[1] / factor <= 1.0


async def test_attempts_are_bounded_and_the_last_cause_is_named(tmp_path):
    async with serving(lambda body, n: refusal(503, "overloaded")) as server:
        async with gateway_before(tmp_path, server.url, max_attempts=4) as gateway:
            status, reply = await gateway.ask(chat("a"))
        assert server.calls == 4
        assert status == 502
        assert reply["error"]["code"] == "gave_up"
        assert "4 attempts" in reply["error"]["message"]
        assert "503 overloaded" in reply["error"]["message"]
        assert not any((tmp_path / "cache").rglob("*.json"))


async def test_a_hanging_server_is_a_time_out_and_is_retried(tmp_path):
    async def behave(body, number):
        if number == 0:
            await asyncio.sleep(3600)
        return completion("awake")

    async with (
        serving(behave) as server,
        gateway_before(tmp_path, server.url, timeout_s=3.0, max_attempts=10) as gateway,
    ):
        status, reply = await gateway.ask(chat("a"))
    assert status == 200
    # On a busy machine other attempts may take 3 s as well.
    assert 2 <= server.calls <= reply["cuesheet"]["attempts"] == len(gateway.naps) + 1


async def test_retry_after_is_honored(tmp_path):
    def behave(body, number):
        return refusal(429, "slow down", Retry_After="7") if number == 0 else completion("ok")

    async with serving(behave) as server, gateway_before(tmp_path, server.url) as gateway:
        status, _ = await gateway.ask(chat("a"))
    assert status == 200
    assert len(gateway.naps) == 1
    assert 7 <= gateway.naps[0] < 8


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_other_refusals_pass_through_at_once_with_their_message(tmp_path, status):
    async with serving(lambda body, n: refusal(status, "because of that")) as server:
        async with gateway_before(tmp_path, server.url) as gateway:
            got, reply = await gateway.ask(chat("a"))
        assert (got, server.calls) == (status, 1)
        assert "because of that" in reply["error"]["message"]


async def test_processor_arguments_are_omitted_if_the_server_rejects_them(tmp_path):
    def behave(body, n):
        if "mm_processor_kwargs" in body:
            return refusal(400, "Per-request mm_processor_kwargs are disabled by default")
        return completion("{}")

    async with serving(behave) as server, gateway_before(tmp_path, server.url) as gateway:
        for n in range(2):
            asked = chat(f"question {n}", mm_processor_kwargs={"fps": 2.0})
            status, _ = await gateway.ask(asked)
            assert status == 200
    assert ["mm_processor_kwargs" in body for body in server.bodies] == [True, False, False]


async def test_a_server_that_rejects_response_format_is_found_out_once(tmp_path):
    def behave(body, number):
        if "response_format" in body:
            return refusal(400, "response_format is not supported by this model")
        return completion('{"label": "x"}')

    async with serving(behave) as server, gateway_before(tmp_path, server.url) as gateway:
        replies = [
            await gateway.ask(chat(f"question {n}", response_format=FORMAT)) for n in range(3)
        ]
        again = await gateway.ask(chat("question 0", response_format=FORMAT))
    assert [status for status, _ in replies] == [200, 200, 200]
    assert ["response_format" in body for body in server.bodies] == [True, False, False, False]
    text = question_of(server.bodies[1])
    assert text.startswith("question 0")
    assert json.loads(text[text.index('{"') :]) == SCHEMA
    # The key is that of the question as it was put, whichever way it was asked.
    assert again[1]["cuesheet"]["cache_hit"] is True


async def test_a_truncated_reply_is_requested_again_with_twice_the_tokens(tmp_path):
    def behave(body, number):
        if body["max_tokens"] < 128:
            return completion('{"label": "a lo', finish_reason="length")
        return completion('{"label": "a long one"}')

    async with serving(behave) as server, gateway_before(tmp_path, server.url) as gateway:
        _, reply = await gateway.ask(chat("a", max_tokens=64))
    assert [body["max_tokens"] for body in server.bodies] == [64, 128]
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["cuesheet"]["attempts"] == 2
    assert reply["cuesheet"]["completion_tokens"] == 20


async def test_a_reply_that_stays_cut_comes_back_cut(tmp_path):
    async with serving(lambda body, n: completion("{", finish_reason="length")) as server:
        async with gateway_before(tmp_path, server.url) as gateway:
            status, reply = await gateway.ask(chat("a"))
        assert (status, server.calls) == (200, 2)
        assert reply["choices"][0]["finish_reason"] == "length"


async def test_parameters_that_openai_does_not_know_reach_the_server(tmp_path):
    more = {
        "chat_template_kwargs": {"enable_thinking": False},
        "mm_processor_kwargs": {"fps": 2},
        "reasoning_effort": "low",
        "seed": 7,
        "top_k": 3,
    }
    async with serving(lambda body, n: completion("ok")) as server:
        async with gateway_before(tmp_path, server.url) as gateway:
            await gateway.ask(chat("a", **more))
        assert {name: server.bodies[0][name] for name in more} == more
        assert server.bodies[0]["messages"] == chat("a")["messages"]


async def test_calls_of_an_episode_stay_on_one_server_and_episodes_are_spread(tmp_path):
    async with (
        serving(lambda body, n: completion("ok")) as one,
        serving(lambda body, n: completion("ok")) as two,
        gateway_before(tmp_path, one.url, two.url) as gateway,
    ):
        for number in range(3):
            for group in ("d/0", "d/1", "d/2", "d/3"):
                await gateway.ask(chat(f"{group} {number}"), group)
    for server in (one, two):
        groups = [question_of(body).split()[0] for body in server.bodies]
        assert {groups.count(group) for group in groups} == {3}
        assert len(set(groups)) == 2


async def test_a_dead_server_is_replaced_by_a_live_one(tmp_path):
    async with serving(lambda body, n: completion("ok")) as two:
        async with serving(lambda body, n: completion("ok")) as one:
            gone = one.url
        async with gateway_before(tmp_path, gone, two.url) as gateway:
            for number in range(6):
                status, _ = await gateway.ask(chat(f"q{number}"), f"d/{number % 2}")
                assert status == 200
        # The dead one is tried, then left alone.
        assert gateway.counters.retries == 1
        assert two.calls == 6


async def test_a_model_that_is_not_named_is_the_one_that_the_server_lists(tmp_path):
    from cuesheet.serving.backends import ExternalBackend

    async with serving(lambda body, n: completion("ok")) as server:
        backend = ExternalBackend({server.url: KEY}, None, 20.0)
        async with gateway_before(tmp_path, backend=backend) as gateway:
            body = chat("a")
            del body["model"]
            status, _ = await gateway.ask(body)
    assert status == 200
    assert server.bodies[0]["model"] == "test-model"


async def test_a_request_of_many_megabytes_passes(tmp_path):
    async with serving(lambda body, n: completion("ok")) as server:
        async with gateway_before(tmp_path, server.url) as gateway:
            status, _ = await gateway.ask(chat("x" * 30_000_000))
        assert status == 200
        assert len(question_of(server.bodies[0])) == 30_000_000


async def test_a_reply_without_text_is_passed_on_but_not_cached(tmp_path):
    async with serving(lambda body, n: completion(None)) as server:
        async with gateway_before(tmp_path, server.url) as gateway:
            await gateway.ask(chat("a"))
            status, reply = await gateway.ask(chat("a"))
        assert (status, server.calls) == (200, 2)
        assert reply["choices"][0]["message"]["content"] is None


async def test_a_job_that_goes_away_does_not_lose_the_answer(tmp_path):
    go = asyncio.Event()

    async def behave(body, number):
        await go.wait()
        return completion("kept")

    async with serving(behave) as server, gateway_before(tmp_path, server.url) as gateway:
        job = asyncio.create_task(gateway.ask(chat("a")))
        while not server.calls:
            await asyncio.sleep(0.01)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        go.set()
        status, reply = await gateway.ask(chat("a"))
    assert (status, server.calls) == (200, 1)
    assert reply["choices"][0]["message"]["content"] == "kept"


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"messages": 3}', b'{"messages": ["x"]}', b'{"messages": null}']
)
async def test_what_is_not_a_chat_request_is_refused_in_words(tmp_path, content):
    async with serving(lambda body, n: completion("ok")) as server:
        async with gateway_before(tmp_path, server.url) as gateway, aiohttp.ClientSession() as http:
            headers = {"Authorization": f"Bearer {GATEWAY_KEY}"}
            url = f"{gateway.link.url}/chat/completions"
            async with http.post(url, data=content, headers=headers) as response:
                error = (await response.json())["error"]
        assert response.status == 400
        assert error["message"]
        assert server.calls == 0


async def test_only_who_has_the_key_of_the_run_is_served(tmp_path):
    async with serving(lambda body, n: completion("ok")) as server:
        async with gateway_before(tmp_path, server.url) as gateway, aiohttp.ClientSession() as http:
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                url = f"{gateway.link.url}/chat/completions"
                async with http.post(url, json=chat("a"), headers=headers) as response:
                    assert response.status == 401
        assert server.calls == 0


async def test_metrics_and_stats_count_what_happened(tmp_path):
    def behave(body, number):
        return refusal(503, "busy") if number == 0 else completion("ok")

    async with serving(behave) as server, gateway_before(tmp_path, server.url) as gateway:
        await gateway.ask(chat("a"))
        await gateway.ask(chat("a"))
        root = gateway.link.url.removesuffix("/v1")
        async with aiohttp.ClientSession() as http:
            text = await (await http.get(f"{root}/metrics")).text()
            health = await (await http.get(f"{root}/health")).json()
            headers = {"Authorization": f"Bearer {GATEWAY_KEY}"}
            stats = await (await http.get(f"{root}/stats", headers=headers)).json()
            models = await (await http.get(f"{root}/v1/models", headers=headers)).json()
    expected = {
        "calls": 2,
        "cache_hits": 1,
        "retries": 1,
        "attempts": 2,
        "failures": 0,
        "prompt_tokens": 100,
        "completion_tokens": 10,
    }
    for name, value in expected.items():
        assert f"cuesheet_{name}_total {value}\n" in text
        assert stats[name] == value
    assert "cuesheet_in_flight 0\n" in text
    assert health["status"] == "ok"
    assert [model["id"] for model in models["data"]] == ["test-model"]


async def test_a_reply_with_lone_surrogates_is_cached_like_any_other(tmp_path):
    def behave(body, number):
        return web.Response(
            body=json.dumps(completion("half \ud800")).encode(), content_type="application/json"
        )

    async with serving(behave) as server, gateway_before(tmp_path, server.url) as gateway:
        for _ in range(2):
            status, reply = await gateway.ask(chat("a"))
            assert (status, reply["choices"][0]["message"]["content"]) == (200, "half \ud800")
        assert gateway.counters.cache_write_failures == 0
    assert server.calls == 1


async def test_a_reply_of_very_many_values_is_not_parsed(tmp_path):
    """Eight megabytes of empty objects would take hundreds of megabytes."""
    body = b'{"choices": [' + b"{}," * 300_000 + b"{}]}"

    def behave(_, number):
        return web.Response(body=body, content_type="application/json")

    async with serving(behave) as server, gateway_before(tmp_path, server.url) as gateway:
        status, reply = await gateway.ask(chat("a"))
    assert (status, reply["choices"][0]["finish_reason"]) == (200, "reply_too_large")


async def test_a_compressed_error_is_unpacked_no_further_than_needed(tmp_path):
    """A hundred megabytes of spaces are a hundred kilobytes as gzip."""
    bomb = gzip.compress(b" " * 30_000_000)

    def behave(_, number):
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        plain = json.dumps({"error": {"message": "overloaded"}}).encode()
        return web.Response(
            status=503, body=bomb if number == 0 else gzip.compress(plain), headers=headers
        )

    async with (
        serving(behave) as server,
        gateway_before(tmp_path, server.url, max_attempts=2) as gateway,
    ):
        tracemalloc.start()
        status, reply = await gateway.ask(chat("a"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (status, server.calls) == (502, 2)
    assert "503 overloaded" in reply["error"]["message"]
    assert peak < 10_000_000


async def test_a_server_that_does_not_speak_http_is_named_as_such(tmp_path):
    async def answer(reader, writer):
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()
        writer.close()

    ssh = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{ssh.sockets[0].getsockname()[1]}/v1"
    async with gateway_before(tmp_path, url) as gateway:
        status, reply = await gateway.ask(chat("a"))
    ssh.close()
    assert status == 502
    assert "is not valid HTTP" in reply["error"]["message"]


async def test_a_malformed_list_of_keys_is_rejected(tmp_path):
    async with gateway_before(tmp_path, "http://127.0.0.1:9/v1") as gateway:
        for body in ([], {}, {"keys": 3}, "keys"):
            status, _ = await gateway.link.post("/responses/invalidate", body, {})
            assert status == 400


async def test_a_request_whose_text_cannot_be_encoded_is_rejected(tmp_path):
    async with (
        serving(lambda body, n: completion("x")) as server,
        gateway_before(tmp_path, server.url) as gateway,
        aiohttp.ClientSession() as http,
    ):
        headers = {"Authorization": f"Bearer {GATEWAY_KEY}"}
        for text, expected in (("half \ud800", 400), ("whole \U0001f600", 200)):
            body = json.dumps(chat(text)).encode()
            assert b"\\ud8" in body
            url = f"{gateway.link.url}/chat/completions"
            async with http.post(url, data=body, headers=headers) as response:
                assert response.status == expected
    assert server.calls == 1


async def test_no_further_requests_are_sent_if_responses_cannot_be_cached(tmp_path):
    (tmp_path / "cache").write_text("a file in place of the folder")
    shown: list[str] = []
    async with (
        serving(lambda body, n: completion("x")) as server,
        gateway_before(tmp_path, server.url) as gateway,
    ):
        gateway.gateway.dispatcher.notify = shown.append
        replies = [await gateway.ask(chat(str(number))) for number in range(15)]
    statuses = [status for status, _ in replies]
    assert statuses == [200] * MAX_CACHE_FAILURES + [507] * (15 - MAX_CACHE_FAILURES)
    assert server.calls == MAX_CACHE_FAILURES
    assert [reply["cuesheet"]["stored"] for _, reply in replies[:MAX_CACHE_FAILURES]] == (
        [False] * MAX_CACHE_FAILURES
    )
    assert "set vlm.cache_dir" in replies[-1][1]["error"]["message"]
    assert len([text for text in shown if "cannot be cached" in text]) == 1
