"""Error responses of servers: their kind, message, delay and limits, in the forms they come in."""

import json
import time

import pytest

from cuesheet.serving.adjustments import Adjustments
from cuesheet.serving.server_errors import ServerError, error_in_reply, read_error


def read(status, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_error(
        status, {name.replace("_", "-"): text for name, text in headers.items()}, content
    )


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no room"}},
        [{"error": {"message": "no room"}}],
        {"error": [{"message": "no room"}]},
        {"error": "no room"},
        {"object": "error", "message": "no room"},
        {"detail": "no room"},
        b"no room",
        b"<html><head><title>no room</title></head></html>",
    ],
)
def test_the_message_is_found_in_every_form(body):
    assert read(400, body).message.endswith("no room")


def test_fields_that_fastapi_rejects_are_named():
    body = {"detail": [{"loc": ["body", "seed"], "msg": "extra fields not permitted"}]}
    assert read(422, body).message == "body.seed: extra fields not permitted"


@pytest.mark.parametrize(
    ("error", "delay_s"),
    [
        (read(429, {"error": {"message": "slow down"}}, retry_after="7"), 7),
        (read(429, {"error": {"message": "slow down"}}, retry_after_ms="1500"), 1.5),
        (read(429, {"error": {"message": "Please retry in 1m30.5s."}}), 90.5),
        (read(429, {"error": {"message": "Please try again in 20ms"}}), 0.02),
        (read(429, [{"error": {"details": [{"retryDelay": "37s"}], "message": "x"}}]), 37),
        (read(429, {"error": "Please wait 20 seconds"}), 20),
        (read(429, b"Please retry after 9 seconds."), 9),
        (read(429, b"Please retry after 9 seconds.", retry_after="0"), 0),
        (read(503, {"error": "Model is currently loading", "estimated_time": 20.5}), 20.5),
        (
            read(
                429,
                {
                    "error": {
                        "message": "Provider returned error",
                        "metadata": {"raw": '{"message": "try again in 4 seconds"}'},
                    }
                },
            ),
            4,
        ),
        (read(429, {"error": {"message": "slow down"}}), None),
    ],
)
def test_the_delay_is_found_in_headers_fields_and_words(error, delay_s):
    assert error.retry_after_s == delay_s
    assert error.kind in ("rate_limited", "temporary")


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (429, "You exceeded your current quota, please check your plan", "quota_exhausted"),
        (402, "Payment required", "quota_exhausted"),
        (400, "Your credit balance is too low", "quota_exhausted"),
        (400, "This model's maximum context length is 8192 tokens", "context_length_exceeded"),
        (400, "input length and `max_tokens` exceed context limit", "context_length_exceeded"),
        (413, "anything", "payload_too_large"),
        (400, "image exceeds 5 MB maximum", "payload_too_large"),
        (400, "At most 4 image(s) may be provided in one prompt.", "too_many_images"),
        (400, "too many images in the request", "too_many_images"),
        (404, "No endpoints found that support image input", "images_not_supported"),
        (500, "image input is not supported", "images_not_supported"),
        (400, "flagged by the content_filter", "content_filter"),
        (503, "loading", "temporary"),
        (408, "timeout", "temporary"),
        (400, "no such thing", "refused"),
    ],
)
def test_kinds_and_their_advice(status, message, kind):
    error = ServerError(status, message)
    assert error.kind == kind
    assert bool(error.advice) == (kind not in ("content_filter", "temporary", "refused"))


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        ("At most 4 image(s) may be provided in one prompt.", 4),
        ("Model 'x' supports at most 1 image per prompt.", 1),
        ("the number of images must be at most 8", 8),
        ("only one image is supported", 1),
        ("You set image=2 in `--limit-mm-per-prompt`, but passed 4 image items", 2),
        ("too many images", None),
    ],
)
def test_the_image_limit_is_read(message, limit):
    assert ServerError(400, message).max_images == limit


def test_errors_with_status_200_count_as_what_their_code_says():
    assert error_in_reply({"choices": [{"message": {"content": "x"}}]}) is None
    assert error_in_reply({"error": {"code": 429, "message": "slow down"}}).status == 429
    assert error_in_reply({"error": {"message": "maximum context length is 1 token"}}).status == 400
    inner = {"choices": [{"error": {"code": 502, "message": "bad"}, "message": {"content": ""}}]}
    assert error_in_reply(inner).status == 502


BODY = {"model": "m", "messages": [], "temperature": 0.2, "top_p": 1, "max_tokens": 9, "seed": 0}


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        (
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'",
            ["max_tokens is sent"],
        ),
        ("`temperature` and `top_p` cannot both be specified", ["top_p is omitted"]),
        ("temperature: only the default value is supported", ["temperature is omitted"]),
        ('Unknown name "seed": Cannot find field.', ["seed is omitted"]),
        ("Unrecognized request arguments supplied: seed, top_p", ["seed is", "top_p is"]),
        ("`temperature` may only be set to 1 when thinking is enabled", ["temperature is"]),
        ("`top_p` must be greater than or equal to 0.95 or unset", ["top_p is omitted"]),
        ("body.seed: extra fields not permitted", ["seed is omitted"]),
        ("max_tokens must be at most 4096", None),
        ("messages: unsupported role", None),
    ],
)
def test_what_is_learned_from_a_rejection(message, changes):
    learned = Adjustments().learn(ServerError(400, message), BODY)
    if changes is None:
        assert learned is None
        return
    described = learned.describe(BODY)
    assert len(described) == len(changes)
    assert all(text.startswith(start) for text, start in zip(described, changes, strict=True))
    sent = learned.apply(BODY)
    assert sent.get("max_tokens", sent.get("max_completion_tokens")) == 9
    assert not learned.omitted & set(sent)


@pytest.mark.parametrize(
    "message",
    [
        "This response_format type is unavailable now",
        "Failed to compile grammar: unsupported keyword minItems",
        "The specified schema produces a constraint that has too many states for serving.",
        "The provided JSON schema contains features not supported by xgrammar.",
        "outlines: cannot compile the regex of the reply",
        "output_format.schema: For 'array' type, 'minItems' values other than 0 are not supported",
        "Failed to generate JSON. Please adjust your prompt. See 'failed_generation'.",
        "No endpoints found that can handle the requested parameters.",
        "Compiling FSM index failed: regex too large",
    ],
)
def test_a_schema_that_the_server_rejects_is_sent_in_the_prompt(message):
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    learned = Adjustments().learn(ServerError(400, message), {**BODY, "response_format": form})
    assert learned == Adjustments(schema_in_prompt=True)
    assert Adjustments().learn(ServerError(400, message), BODY) is None


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "max_tokens is too large: 99. This model supports at most 32 tokens", None),
        (400, "max_tokens cannot exceed 4096", None),
        (400, "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", None),
        (400, "At most 0 image(s) may be provided in one prompt.", "images_not_supported"),
        (400, "messages[1].content must be a string", "images_not_supported"),
        (400, "invalid type: sequence, expected a string at line 1", "images_not_supported"),
        (400, "unknown variant `image_url`, expected `text`", "images_not_supported"),
        (409, "conflict", "temporary"),
        (424, "Request failed during generation", "temporary"),
        (498, "Flex tier capacity exceeded", "temporary"),
    ],
)
def test_further_kinds_of_errors(status, message, kind):
    error = read(status, {"error": {"message": message}})
    assert error.kind == (kind or "too_many_tokens")
    if kind is None:  # the budget is never omitted, because the reply would have no limit
        assert "vlm.sampling.max_tokens" in error.advice
        assert Adjustments().learn(error, BODY) is None


NOW = 1_800_000_000.0  # 2027-01-15 08:00:00


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-ratelimit-reset-requests": "1m12s", "x-ratelimit-remaining-requests": "0"}, 72),
        (
            {
                "x-ratelimit-reset-requests": "6ms",
                "x-ratelimit-reset-tokens": "40s",
                "x-ratelimit-remaining-tokens": "17",
            },
            0.006,
        ),
        ({"anthropic-ratelimit-requests-reset": "2027-01-15T08:00:40Z"}, 40),
        ({"x-ratelimit-reset": "1800000045000"}, 45),
        ({"x-ratelimit-reset": "1800000045"}, 45),
        ({"retry-after": "12s"}, 12),
        ({"retry-after": "3", "x-ratelimit-reset": "60"}, 3),
        ({"x-ratelimit-reset": "soon"}, None),
    ],
)
def test_the_time_at_which_a_limit_is_reset_is_read_from_headers(headers, expected, monkeypatch):
    monkeypatch.setattr("time.time", lambda: NOW)
    delay_s = read_error(429, headers, b'{"error": {"message": "slow down"}}').retry_after_s
    assert delay_s == (None if expected is None else pytest.approx(expected, abs=0.01))
    if "retry-after" not in headers:
        assert read_error(500, headers, b"{}").retry_after_s is None


def test_headers_of_a_provider_are_read_from_the_body():
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str((time.time() + 30) * 1000)}
    body = {"error": {"message": "free-models-per-min", "metadata": {"headers": headers}}}
    assert read(429, body).retry_after_s == pytest.approx(30, abs=2)


@pytest.mark.parametrize(
    ("code", "kind"), [("rate_limit_exceeded", "rate_limited"), ("overloaded_error", "temporary")]
)
def test_an_error_with_status_200_may_name_its_kind(code, kind):
    assert error_in_reply({"error": {"code": code, "message": "later"}}).kind == kind


@pytest.mark.parametrize(
    "message",
    [
        "Unsupported image format: image/png",
        "messages.0.content.0.image.source.base64.media_type: Input should be 'image/jpeg'",
        "unsupported MIME type: image/png",
        "This model does not support PNG images.",
        "image/png is not supported",
        "Only JPEG images are accepted",
        "Invalid image type",
    ],
)
def test_a_rejected_image_format_names_the_setting(message):
    error = ServerError(400, message)
    assert error.kind == "image_format"
    assert "vlm.images.format" in error.advice


@pytest.mark.parametrize(
    "message",
    [
        "Unsupported Media Type",
        "unsupported content part type: image_url",
        "invalid type: sequence, expected a string",
        "this model does not support images",
        "response_format type json_schema is not supported",
    ],
)
def test_other_rejections_are_not_taken_for_the_image_format(message):
    assert ServerError(400, message).kind != "image_format"
