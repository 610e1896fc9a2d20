"""Responses of servers that do not follow the form of the chat API to the letter."""

import json

import pytest

from cuesheet.serving.reply_forms import read_completion
from cuesheet.serving.server_errors import error_in_reply
from cuesheet.vlm.parsing import choice_text

TEXT = '{"label": "red cube"}'


def choice_of(*events: object, **choice: object) -> dict:
    """Return the choice of a response: of the given events, or of one choice."""
    if events:
        text = "".join(
            f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n"
            for event in events
        )
    else:
        text = json.dumps({"choices": [choice]})
    return read_completion(text.encode())["choices"][0]


def test_a_stream_that_was_not_requested_is_joined():
    pieces = [{"choices": [{"delta": {"content": TEXT[i : i + 5]}}]} for i in range(0, 21, 5)]
    first = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
    last = {"choices": [{"delta": {}, "finish_reason": "length"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 7}}
    choice = choice_of(first, *pieces, last, usage, "[DONE]")
    assert choice["message"] == {"role": "assistant", "content": TEXT}
    assert choice["finish_reason"] == "length"
    reply = read_completion(f": OPENROUTER PROCESSING\n\ndata: {json.dumps(usage)}\n\n".encode())
    assert reply["usage"] == {"prompt_tokens": 7}


def test_an_error_in_a_stream_stays_an_error():
    events = [{"choices": [{"delta": {"content": "a"}}]}, {"error": {"message": "overloaded"}}]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    reply = read_completion(text.encode())
    assert reply["error"] == {"message": "overloaded"}
    assert error_in_reply(reply).message == "overloaded"


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"content": TEXT}},
        {"text": TEXT},
        {"message": {"content": TEXT}},
    ],
)
def test_the_text_of_a_choice_is_found_in_each_form(choice):
    assert choice_text(choice_of(**choice, finish_reason="STOP"))[0] == TEXT


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("MAX_TOKENS", "length"),
        ("max_tokens", "length"),
        ("model_length", "length"),
        ("SAFETY", "content_filter"),
        ("content_filter: PROHIBITED_CONTENT", "content_filter"),
        ("STOP", "stop"),
        ("eos", "eos"),
        (None, None),
        (17, 17),
    ],
)
def test_finish_reasons_are_named_as_the_api_does(reason, expected):
    choice = choice_of(message={"content": TEXT}, finish_reason=reason)
    assert choice["finish_reason"] == expected


def test_a_blocked_choice_without_a_message_is_a_refusal():
    choice = choice_of(index=0, finish_reason="content_filter: PROHIBITED_CONTENT")
    assert choice["message"]["content"] is None
    assert "PROHIBITED_CONTENT" in choice["message"]["refusal"]


def test_numbers_that_are_not_finite_and_stray_bytes_do_not_cost_the_answer():
    choices = b'"choices": [{"message": {"content": "a\xe2\x82"}}]'
    reply = read_completion(b'\xef\xbb\xbf{"timings": Infinity, ' + choices + b"}")
    assert reply["timings"] is None
    assert reply["choices"][0]["message"]["content"] == "a�"


@pytest.mark.parametrize("content", [b"<!doctype html><title>Chat</title>", b" \n"])
def test_a_page_in_place_of_an_answer_names_the_setting(content):
    with pytest.raises(ValueError, match=r"vlm\.base_urls"):
        read_completion(content)


COMPLETION = {"choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([COMPLETION]).encode(),
        json.dumps({"code": 0, "data": COMPLETION}).encode(),
        json.dumps(COMPLETION).encode("utf-16"),
        json.dumps(COMPLETION).encode() + b"\0\0",
    ],
    ids=["list", "wrapped", "utf-16", "nul"],
)
def test_a_completion_is_found_in_what_a_gateway_made_of_it(content):
    assert choice_text(read_completion(content)["choices"][0])[0] == TEXT


@pytest.mark.parametrize("reply", [{"error": "x", "data": COMPLETION}, [COMPLETION, COMPLETION]])
def test_errors_and_several_completions_are_not_unwrapped(reply):
    assert read_completion(json.dumps(reply).encode()) == reply
