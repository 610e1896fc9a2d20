"""The client of a stage: typed replies, corrections, records, and errors."""

import asyncio
import hashlib
import json
import time
from contextlib import asynccontextmanager

import pytest
from chat_server import completion, question_of, refusal, serving
from gateway_setup import gateway_before
from processes import imported_after
from pydantic import Field

from cuesheet.errors import CuesheetError, SurroundingsError
from cuesheet.serving.response_cache import ResponseCache
from cuesheet.vlm.client import Clip, Image, Vlm
from cuesheet.vlm.errors import VlmError
from cuesheet.vlm.parsing import UnusableReplyError, parse_reply
from cuesheet.vlm.replies import Reply

PROMPTS = {"plan_relabel": "0" * 64}
SETTINGS = {"model": "test-model", "temperature": 0.2, "max_tokens": 64, "seed": 5}


class Point(Reply):
    x: float = Field(ge=0)
    label: str


GOOD = '{"x": 1.5, "label": "cup"}'


def connect(folder, **settings):
    return Vlm.connect(folder / "server.json", {**SETTINGS, **settings}, "demo/000003", PROMPTS)


@asynccontextmanager
async def model(folder, behave):
    """A server that behaves so, a gateway before it and a stage's connection to that."""
    async with (
        serving(behave) as server,
        gateway_before(folder, server.url),
        connect(folder) as vlm,
    ):
        yield server, vlm


PICTURE = Image(b"\xff\xd8jpeg")


def question(text="Where is the cup?", media=(PICTURE,), **more):
    return {
        "name": "where",
        "prompt": "plan_relabel",
        "reply": Point,
        "system": "Look.",
        "media": list(media),
        "text": text,
        **more,
    }


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```",
        f"Sure! Here it is:\n{GOOD}\nI hope this helps {{really}}.",
        f"The set {{a, b}} is not it; {GOOD} is.",
        f"<think>A cup, {{x: 2}} or {GOOD[:-1]}?</think>\n{GOOD}",
        f"<think>one</think> <think>two {{</think>{GOOD}",
        f"thinking aloud {{ not closed </think>{GOOD}",
        f"</think><think>more</think>{GOOD}",
        f"{GOOD}</think>",
        f"{GOOD}<think>am I sure? never ends",
        f"<think>a<think>b</think>{GOOD}",
        f"<THINK>loud</THINK>{GOOD}",
        '{"x": 1.5, "label": "cup", "more": {"a": [1, {"b": "}"}]}}',
        '{"label": "cup", "x": "1.5"}',
    ],
)
def test_the_object_is_found_whatever_stands_around_it(text):
    assert parse_reply(text, Point) == Point(x=1.5, label="cup")


def test_braces_and_quotes_inside_strings_do_not_end_an_object():
    text = json.dumps({"x": 1, "label": 'a "}" and a \\ and a {'})
    assert parse_reply(f"so: {text} done", Point).label == 'a "}" and a \\ and a {'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "empty"),
        ("", "empty"),
        (" \n", "empty"),
        ("no object here", "no JSON object"),
        ('{"x": 1.5, "label": "cu', "complete"),
        ('{"items": [{"x": 1, "label": "a"}, {"x": 2', "complete"),
        ('{"x": NaN, "label": "cup"}', "finite"),
        ('{"x": Infinity, "label": "cup"}', "finite"),
        ('{"x": 1e999, "label": "cup"}', "finite"),
        ('{"x": ' + "9" * 5000 + ', "label": "cup"}', "read"),
        ('{"x": ' + "9" * 400 + ', "label": "cup"}', "x:"),
        ('{"x": -1, "label": "cup"}', "x: Input should be greater"),
        ('{"label": "cup"}', "x: Field required"),
        ('{"x": "left", "label": "cup"}', "x: "),
        ("<think>for ever", "no JSON object"),
        ("</think>", "no JSON object"),
        ("[" * 100_000, "no JSON object"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "read"),
        ("{" * 500_000, "complete"),
        ("<think>" * 100_000, "no JSON object"),
        ("</think>" * 100_000, "no JSON object"),
        ('{"' + '\\"' * 400_000, "complete"),
        ("{}" * 400_000, "x: Field required"),
        ("x" * 2_000_000, "characters"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_cannot_be_used_is_said_in_words_and_in_bounded_time(text, says):
    begun = time.process_time()
    with pytest.raises(UnusableReplyError, match=says):
        parse_reply(text, Point)
    # Seconds of CPU: anything quadratic in these sizes takes minutes.
    assert time.process_time() - begun < 20


async def test_the_request_is_system_media_and_question_with_the_schema_and_set_parameters(
    tmp_path,
):
    async with (
        serving(lambda body, n: completion(GOOD)) as server,
        gateway_before(tmp_path, server.url),
    ):
        media = (Image(b"one", "image/png"), Clip(b"two"))
        async with connect(tmp_path, chat_template_kwargs={"a": 1}, top_p=None) as vlm:
            answer = await vlm.ask(**question(media=media, sampling={"max_tokens": 99}))
    body = server.bodies[0]
    assert answer.value == Point(x=1.5, label="cup")
    assert body["messages"] == [
        {"role": "system", "content": "Look."},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,b25l"}},
                {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,dHdv"}},
                {"type": "text", "text": "Where is the cup?"},
            ],
        },
    ]
    assert body["response_format"]["json_schema"] == {
        "name": "Point",
        "schema": {**Point.model_json_schema(), "additionalProperties": False},
        "strict": True,
    }
    del body["messages"], body["response_format"]
    assert body == {
        "model": "test-model",
        "temperature": 0.2,
        "max_tokens": 99,
        "seed": 5,
        "chat_template_kwargs": {"a": 1},
    }


async def test_the_record_of_a_call_says_what_it_took(tmp_path):
    async with model(tmp_path, lambda body, n: completion(GOOD)) as (__, vlm):
        answer = await vlm.ask(**question())
        await vlm.ask(**question())
        first, second = vlm.calls
        assert vlm.model == "test-model"
    assert answer.call is first
    key = first["key"]
    assert first.pop("latency_s") >= 0
    assert first == {
        "name": "where",
        "prompt": "plan_relabel",
        "key": key,
        "correction_key": None,
        "cache_hit": False,
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "attempts": 1,
        "finish_reason": "stop",
        "outcome": "ok",
        "error": None,
    }
    assert (second["key"], second["cache_hit"], second["attempts"]) == (key, True, 0)
    entry = ResponseCache(tmp_path / "cache").get(key)
    image = entry["request"]["messages"][1]["content"][0]["image_url"]
    assert image["sha256"] == hashlib.sha256(b"\xff\xd8jpeg").hexdigest()


async def test_a_bad_reply_is_shown_to_the_model_once_and_retried(tmp_path):
    def behave(body, number):
        return completion('{"x": -3, "label": "cup"}' if number == 0 else GOOD)

    async with model(tmp_path, behave) as (server, vlm):
        answer = await vlm.ask(**question())
    assert answer.value == Point(x=1.5, label="cup")
    assert answer.call["outcome"] == "retried"
    assert "x: " in answer.call["error"]
    assert answer.call["completion_tokens"] == 20
    assert answer.call["attempts"] == 2
    before, after = server.bodies
    assert after["messages"][:2] == before["messages"]
    assert after["messages"][2] == {"role": "assistant", "content": '{"x": -3, "label": "cup"}'}
    assert "x: Input should be greater than or equal to 0" in question_of(after)
    # With the same seed, the model would be more likely to repeat its mistake.
    assert (before["seed"], after["seed"]) == (5, 6)
    assert answer.call["key"] == (await _key_of(before))


async def _key_of(body):
    from gateway_setup import request_key

    return request_key(body)


async def test_a_second_bad_reply_is_recorded_as_invalid(tmp_path):
    async with model(tmp_path, lambda body, n: completion("I cannot see a cup.")) as (server, vlm):
        answer = await vlm.ask(**question())
        assert vlm.calls == [answer.call]
        assert answer.value is None
        assert answer.text == "I cannot see a cup."
        assert answer.call["outcome"] == "invalid"
        assert answer.call["error"].count("no JSON object") == 2
        assert answer.call["reply"] == answer.text
        assert server.calls == 2


@pytest.mark.parametrize(
    ("message", "finish_reason", "recorded"),
    [
        ({"refusal": "I cannot judge people."}, "stop", "I cannot judge people."),
        ({"content": "I cannot"}, "content_filter", "I cannot"),
        ({}, "content_filter", "the server's content filter withheld the reply"),
    ],
)
async def test_refusals_and_content_filters_are_recorded_with_their_text(
    tmp_path, message, finish_reason, recorded
):
    def behave(body, number):
        reply = completion(None)
        reply["choices"][0]["message"].update(message)
        reply["choices"][0]["finish_reason"] = finish_reason
        return reply

    async with model(tmp_path, behave) as (__, vlm):
        answer = await vlm.ask(**question())
    assert answer.value is None
    assert answer.call["refusal"] == recorded
    assert ("content filter" in answer.call["error"]) == (finish_reason == "content_filter")


async def test_thinking_that_was_cut_off_is_no_answer_even_with_an_object_in_it(tmp_path):
    def behave(body, number):
        reply = completion(None, "length")
        reply["choices"][0]["message"]["reasoning_content"] = f"Perhaps {GOOD}, or"
        return reply

    async with model(tmp_path, behave) as (_, vlm):
        answer = await vlm.ask(**question())
    assert answer.value is None
    assert answer.call["outcome"] == "invalid"
    assert "cut off at the token limit, vlm.sampling.max_tokens" in answer.call["error"]
    assert "only these fields had text: reasoning_content" in answer.call["error"]


async def test_a_reply_of_null_is_corrected_too(tmp_path):
    def behave(body, number):
        return completion(None if number == 0 else GOOD)

    async with model(tmp_path, behave) as (server, vlm):
        answer = await vlm.ask(**question())
    assert (answer.call["outcome"], server.calls) == ("retried", 2)


async def test_a_huge_reply_is_not_sent_back_whole(tmp_path):
    def behave(body, number):
        return completion("y" * 10_000_000 if number == 0 else GOOD)

    async with model(tmp_path, behave) as (server, vlm):
        answer = await vlm.ask(**question())
    assert answer.call["outcome"] == "retried"
    assert len(json.dumps(server.bodies[1])) < 20_000


async def test_without_frames_no_request_is_sent(tmp_path):
    async with serving(lambda body, n: completion(GOOD)) as server:
        async with gateway_before(tmp_path, server.url) as gateway, connect(tmp_path) as vlm:
            with pytest.raises(VlmError, match="needs frames"):
                await vlm.ask(**question(media=()))
            assert (server.calls, gateway.counters.calls, vlm.calls) == (0, 0, [])
            answer = await vlm.ask(**question(media=(), needs_media=False))
        assert answer.value is not None
        assert server.calls == 1


async def test_a_prompt_that_is_not_of_the_stage_is_refused(tmp_path):
    async with model(tmp_path, lambda body, n: completion(GOOD)) as (server, vlm):
        with pytest.raises(VlmError, match="plan_segment"):
            await vlm.ask(**question(prompt="plan_segment"))
        assert server.calls == 0


async def test_records_are_in_the_order_of_asking_not_of_answering(tmp_path):
    second_done = asyncio.Event()

    async def behave(body, number):
        if question_of(body) == "first":
            await second_done.wait()
        else:
            second_done.set()
        return completion(GOOD)

    async with model(tmp_path, behave) as (__, vlm):
        await asyncio.gather(
            vlm.ask(**question("first", name="one")), vlm.ask(**question("second", name="two"))
        )
        assert [call["name"] for call in vlm.calls] == ["one", "two"]


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (lambda: refusal(401, "no such key"), "vlm.api_key_env.*401 no such key"),
        (lambda: refusal(404, "The model `m` does not exist"), "vlm.model.*does not exist"),
        (lambda: refusal(503, "overloaded"), "3 attempts.*503 overloaded"),
        (lambda: refusal(400, "image is upside down"), "400 image is upside down"),
        (
            lambda: refusal(
                400,
                "This model's maximum context length is 8192 tokens. However, you requested 9764 "
                "tokens (8740 in the messages, 1024 in the completion).",
            ),
            r"length is 8192 tokens.*requested 9764.*max_frames_per_call",
        ),
        (
            lambda: refusal(
                400,
                "The decoder prompt (length 20311) is longer than the maximum model length of "
                "16384. Make sure that `max_model_len` is no smaller than the number of text "
                "tokens plus multimodal tokens.",
            ),
            r"length 20311.*length of 16384.*max_frames_per_call",
        ),
    ],
    ids=["401", "404", "gave up", "400", "context", "context of vLLM"],
)
async def test_no_reply_at_all_is_an_error_that_says_what_to_do(tmp_path, response, says):
    async with model(tmp_path, lambda body, n: response()) as (__, vlm):
        with pytest.raises(VlmError, match=rf"(?s)'where' \(demo/000003\).*{says}") as caught:
            await vlm.ask(**question())
        assert isinstance(caught.value, CuesheetError)


async def test_a_correction_that_does_not_fit_the_context_is_invalid(tmp_path):
    def behave(body, number):
        if number == 0:
            return completion("hm")
        return refusal(400, "This model's maximum context length is 512 tokens.")

    async with model(tmp_path, behave) as (__, vlm):
        answer = await vlm.ask(**question())
    assert answer.value is None
    assert answer.call["outcome"] == "invalid"
    assert "does not fit the context" in answer.call["error"]


async def test_a_failed_server_ends_a_job_at_once_with_the_end_of_its_log(tmp_path):
    (tmp_path / "replica.log").write_text("loading\nCUDA out of memory\n")
    state = {
        "state": "failed",
        "error": "replica-0 ended with exit status 1",
        "logs": {"replica-0": str(tmp_path / "replica.log")},
    }
    (tmp_path / "server.json").write_text(json.dumps(state))
    with pytest.raises(CuesheetError, match=r"(?s)exit status 1.*CUDA out of memory"):
        async with connect(tmp_path):
            pass


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (None, "snakemake"),
        ({"state": "stopped", "logs": {}}, "stopped"),
        ({"state": "starting", "pid": 2**22 - 1, "logs": {}}, "ended unexpectedly"),
    ],
    ids=["no file", "stopped", "dead"],
)
async def test_a_run_that_is_not_there_is_said_so(tmp_path, state, says):
    if state is not None:
        (tmp_path / "server.json").write_text(json.dumps(state))
    with pytest.raises(CuesheetError, match=says):
        async with connect(tmp_path):
            pass


async def test_a_job_waits_for_the_gateway_to_be_ready(tmp_path):
    async def ask():
        async with connect(tmp_path) as vlm:
            return await vlm.ask(**question())

    server_file = tmp_path / "server.json"
    async with (
        serving(lambda body, n: completion(GOOD)) as server,
        gateway_before(tmp_path, server.url),
    ):
        ready = server_file.read_text()
        server_file.write_text('{"state": "starting", "pid": null, "logs": {}}')
        asking = asyncio.create_task(ask())
        await asyncio.sleep(0.2)
        assert not asking.done()
        (tmp_path / "replacement").write_text(ready)
        (tmp_path / "replacement").replace(server_file)
        assert (await asking).value is not None


async def test_a_gateway_that_goes_away_is_an_error_not_a_hang(tmp_path):
    async with serving(lambda body, n: completion(GOOD)) as server:
        async with gateway_before(tmp_path, server.url):
            pass
        async with connect(tmp_path) as vlm:
            with pytest.raises(CuesheetError, match="does not answer"):
                await vlm.ask(**question())


async def test_a_dataset_name_in_any_script_is_a_valid_group(tmp_path):
    async with model(tmp_path, lambda body, n: completion(GOOD)) as (_, vlm):
        vlm.group = "données été\r\nX-Evil: 1/000001"
        answer = await vlm.ask(**question())
    assert answer.value is not None


def test_a_stage_script_does_not_import_heavy_packages():
    heavy = {"openai", "aiohttp", "httpx", "numpy", "pandas", "pyarrow", "tenacity", "snakemake"}
    heavy |= {"yaml"}  # only malformed replies need it
    assert not imported_after("import cuesheet.vlm.client") & heavy


@pytest.mark.parametrize(
    ("second", "cause", "requested_again"),
    [
        ("rejected", None, ["rejected"]),
        ("invalid", "the plan is empty", ["invalid"]),
        ("fine", "the plan is empty", ["first", "fine"]),
        ("fine", "the disk is full", []),
    ],
)
async def test_after_a_failed_stage_only_the_replies_at_fault_are_requested_again(
    tmp_path, second, cause, requested_again
):
    def behave(body, number):
        if number < 2 and "rejected" in question_of(body):
            return refusal(400, "image is upside down")
        return completion("hm" if "invalid" in str(body) and number < 3 else GOOD)

    async def run_stage(vlm, cause):
        await vlm.ask(**question("first"))
        await vlm.ask(**question(second))
        if cause:
            raise (SurroundingsError if "disk" in cause else CuesheetError)(cause)

    async with serving(behave) as server, gateway_before(tmp_path, server.url):
        with pytest.raises(CuesheetError):
            async with connect(tmp_path) as vlm:
                await run_stage(vlm, cause)
        before = server.calls
        async with connect(tmp_path) as vlm:
            await run_stage(vlm, None)
        assert [question_of(body) for body in server.bodies[before:]] == requested_again
