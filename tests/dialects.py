"""Fakes of common chat servers: what each accepts, and the errors that it reports.

Every fake names the documentation or reports that it follows. A fake answers any request that it
accepts with an instance of the requested schema, in the form of that server.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from chat_server import completion

Answer = dict[str, Any] | web.Response


@dataclass(frozen=True)
class Failure:
    """An error response, and how it must be understood: its kind, and words of the message."""

    status: int
    body: Any
    kind: str
    words: tuple[str, ...]

    def response(self) -> web.Response:
        return web.json_response(self.body, status=self.status)


@dataclass(frozen=True)
class Dialect:
    """A server. `learned`: how requests differ once the server has rejected the usual ones."""

    sources: tuple[str, ...]
    model: str
    behave: Callable[[dict[str, Any]], Answer]
    listed: tuple[dict[str, Any], ...] = ()
    learned: tuple[str, ...] = ()
    answer_field: str = "content"
    failures: dict[str, Failure] = field(default_factory=dict)


def schema_of(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema of the reply: of response_format, else the last one in the prompt."""
    if "response_format" in body:
        return body["response_format"]["json_schema"]["schema"]
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    start = text.rfind('{"')
    return json.JSONDecoder().raw_decode(text[start:])[0] if start >= 0 else None


def instance(schema: dict[str, Any]) -> dict[str, Any]:
    """Return an object of a flat schema."""
    values = {"string": "Yes.", "integer": 1, "number": 1.0, "boolean": True, "array": []}
    return {
        name: one["enum"][0] if "enum" in one else values[one["type"]]
        for name, one in schema["properties"].items()
    }


def object_text(body: dict[str, Any]) -> str:
    schema = schema_of(body)
    return json.dumps(instance(schema)) if schema else "I see a red square."


def plain(body: dict[str, Any]) -> Answer:
    return completion(object_text(body), model=body["model"])


def error(status: int, message: str, **more: Any) -> web.Response:
    return web.json_response({"error": {"message": message, **more}}, status=status)


def _images(body: dict[str, Any]) -> int:
    content = body["messages"][-1]["content"]
    return sum(part["type"] == "image_url" for part in content if isinstance(part, dict))


def _openai_reasoning(body: dict[str, Any]) -> Answer:
    if "max_tokens" in body:
        return error(
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            type="invalid_request_error",
            param="max_tokens",
            code="unsupported_parameter",
        )
    if body.get("temperature", 1) != 1:
        return error(
            400,
            f"Unsupported value: 'temperature' does not support {body['temperature']} with this "
            "model. Only the default (1) value is supported.",
            type="invalid_request_error",
            param="temperature",
            code="unsupported_value",
        )
    return plain(body)


def _gemini(body: dict[str, Any]) -> Answer:
    unknown = [name for name in ("seed", "mm_processor_kwargs") if name in body]
    if unknown:
        lines = [
            f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
            for name in unknown
        ]
        found = {"code": 400, "message": "\n".join(lines), "status": "INVALID_ARGUMENT"}
        return web.json_response([{"error": found}], status=400)
    return plain(body)


def _anthropic(body: dict[str, Any]) -> Answer:
    if {"temperature", "top_p"} <= set(body):
        return error(
            400,
            "`temperature` and `top_p` cannot both be specified for this model. Please use only "
            "one.",
            type="invalid_request_error",
        )
    if "response_format" in body:  # accepted and ignored
        return completion("I see a red square.", model=body["model"])
    return plain(body)


def _litellm(body: dict[str, Any]) -> Answer:
    if "seed" in body:
        return error(
            400,
            "litellm.UnsupportedParamsError: anthropic does not support parameters: ['seed'], for "
            "model=claude-3-7-sonnet-20250219. To drop these, set `litellm.drop_params=True` or "
            "for proxy:\n\n`litellm_settings:\n drop_params: true`\n. \n If you want to use these "
            "params dynamically send allowed_openai_params=['seed'] in your request.",
            type=None,
            param=None,
            code="400",
        )
    return plain(body)


def _openrouter(body: dict[str, Any]) -> Answer:
    reply = completion(None, model=body["model"])
    reply["choices"][0]["message"]["reasoning"] = object_text(body)
    return reply


def _llama_cpp(body: dict[str, Any]) -> Answer:
    if "response_format" in body:
        return error(
            400,
            "Failed to initialize samplers: failed to parse grammar",
            code=400,
            type="invalid_request_error",
        )
    return plain(body)


def _lm_studio(body: dict[str, Any]) -> Answer:
    if body.get("response_format", {}).get("type") not in (None, "json_schema", "text"):
        message = "'response_format.type' must be 'json_schema' or 'text'"
        return web.json_response({"error": message}, status=400)
    return completion(f"<think>A square. Red?</think>{object_text(body)}", model=body["model"])


def _sglang(body: dict[str, Any]) -> Answer:
    reply = completion(None, model=body["model"])
    reply["choices"][0]["message"]["reasoning_content"] = f"\n{object_text(body)}"
    return reply


def _vllm(body: dict[str, Any]) -> Answer:
    if _images(body) > 1:
        return web.json_response(_VLLM_IMAGE_LIMIT, status=400)
    return plain(body)


def _raw(provider: str, raw: str) -> dict[str, Any]:
    metadata = {"raw": raw, "provider_name": provider}
    return {"error": {"message": "Provider returned error", "code": 400, "metadata": metadata}}


_VLLM_IMAGE_LIMIT = {
    "object": "error",
    "message": "At most 1 image(s) may be provided in one prompt.",
    "type": "BadRequestError",
    "param": None,
    "code": 400,
}
_GEMINI_DAILY = (
    "You exceeded your current quota, please check your plan and billing details. * Quota exceeded "
    "for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 20, "
    "model: gemini-2.5-flash\nPlease retry in 58.82s."
)

DIALECTS: dict[str, Dialect] = {
    "openai": Dialect(
        (
            "https://github.com/openai/openai-python/issues/2046",
            "https://platform.openai.com/docs/api-reference/chat/create",
        ),
        "gpt-5",
        _openai_reasoning,
        learned=("temperature is omitted", "max_tokens is sent as max_completion_tokens"),
        failures={
            "quota": Failure(
                429,
                {
                    "error": {
                        "message": "You exceeded your current quota, please check your plan and "
                        "billing details.",
                        "type": "insufficient_quota",
                        "param": None,
                        "code": "insufficient_quota",
                    }
                },
                "quota_exhausted",
                ("exceeded your current quota", "Add credit"),
            ),
            "context": Failure(
                400,
                {
                    "error": {
                        "message": "This model's maximum context length is 4097 tokens. However, "
                        "you requested 4120 tokens (3120 in the messages, 1000 in the completion). "
                        "Please reduce the length of the messages or completion.",
                        "type": "invalid_request_error",
                        "param": "messages",
                        "code": "context_length_exceeded",
                    }
                },
                "context_length_exceeded",
                ("4097 tokens",),
            ),
        },
    ),
    "gemini": Dialect(
        (
            "https://ai.google.dev/gemini-api/docs/openai",
            "https://github.com/MinLL/SkyrimNet-GamePlugin/issues/77",
            "https://github.com/ogkalu2/comic-translate/issues/403",
        ),
        "gemini-2.5-flash",
        _gemini,
        listed=({"id": "models/gemini-2.5-flash", "object": "model"},),
        learned=("seed is omitted",),
        failures={
            "rate limit": Failure(
                429,
                [
                    {
                        "error": {
                            "code": 429,
                            "message": _GEMINI_DAILY,
                            "status": "RESOURCE_EXHAUSTED",
                            "details": [
                                {
                                    "@type": "type.googleapis.com/google.rpc.RetryInfo",
                                    "retryDelay": "58s",
                                }
                            ],
                        }
                    }
                ],
                "gave_up",
                ("Please retry in 58.82s",),
            ),
        },
    ),
    "anthropic": Dialect(
        (
            "https://platform.claude.com/docs/en/api/openai-sdk",
            "https://github.com/BerriAI/litellm/issues/15097",
        ),
        "claude-sonnet-4-5",
        _anthropic,
        learned=(
            "top_p is omitted",
            "the reply schema is sent in the prompt instead of response_format",
        ),
        failures={
            "credit": Failure(
                400,
                {
                    "type": "error",
                    "error": {
                        "type": "invalid_request_error",
                        "message": "Your credit balance is too low to access the Anthropic API. "
                        "Please go to Plans & Billing to upgrade or purchase credits.",
                    },
                },
                "quota_exhausted",
                ("credit balance is too low",),
            ),
            "context": Failure(
                400,
                {
                    "type": "error",
                    "error": {
                        "type": "invalid_request_error",
                        "message": "input length and `max_tokens` exceed context limit: 199759 + "
                        "8192 > 200000, decrease input length or `max_tokens` and try again",
                    },
                },
                "context_length_exceeded",
                ("199759 + 8192 > 200000",),
            ),
        },
    ),
    "openrouter": Dialect(
        (
            "https://openrouter.ai/docs/api/reference/errors-and-debugging",
            "https://github.com/diegosouzapw/OmniRoute/issues/3044",
        ),
        "qwen/qwen-2.5-vl-7b-instruct:free",
        _openrouter,
        listed=({"id": "qwen/qwen-2.5-vl-7b-instruct", "object": "model"},),
        answer_field="reasoning",
        failures={
            "credits": Failure(
                402,
                {"error": {"code": 402, "message": "Insufficient credits"}},
                "quota_exhausted",
                ("Insufficient credits",),
            ),
            "image limit of the provider": Failure(
                400,
                _raw(
                    "Crucible",
                    '{"error":{"message":"Model \'moonshotai/kimi-k2.6\' supports at most 1 image '
                    'per prompt."}}',
                ),
                "too_many_images",
                ("supports at most 1 image", "plan.frames.max_frames_per_call"),
            ),
            "error with status 200": Failure(
                200,
                {"error": {"code": 400, "message": "Provider returned error"}},
                "refused",
                ("Provider returned error",),
            ),
        },
    ),
    "azure": Dialect(
        (
            "https://learn.microsoft.com/azure/ai-services/openai/how-to/switching-endpoints",
            "https://github.com/microsoft/TinyTroupe/issues/85",
        ),
        "my-deployment",
        plain,
    ),
    "litellm": Dialect(
        (
            "https://docs.litellm.ai/docs/completion/drop_params",
            "https://github.com/kaiko-ai/eva/issues/895",
        ),
        "openai/gpt-5",
        _litellm,
        listed=({"id": "openai/*", "object": "model"},),
        learned=("seed is omitted",),
    ),
    "ollama": Dialect(
        ("https://docs.ollama.com/api/openai-compatibility",),
        "qwen2.5vl",
        plain,
        listed=({"id": "qwen2.5vl:latest", "object": "model", "owned_by": "library"},),
        failures={
            "no vision": Failure(
                500,
                {
                    "error": {
                        "message": "this model is missing data required for image input",
                        "type": "api_error",
                        "param": None,
                        "code": None,
                    }
                },
                "images_not_supported",
                ("missing data required for image input", "vlm.model"),
            ),
        },
    ),
    "lm studio": Dialect(
        (
            "https://lmstudio.ai/docs/developer/openai-compat/structured-output",
            "https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/189",
        ),
        "qwen/qwen2.5-vl-7b",
        _lm_studio,
        failures={
            "structured output": Failure(
                400,
                {"error": "'response_format.type' must be 'json_schema' or 'text'"},
                "refused",
                ("'response_format.type' must be",),
            ),
        },
    ),
    "llama.cpp": Dialect(
        (
            "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
            "https://github.com/ggml-org/llama.cpp/pull/15780",
            "https://github.com/ggml-org/llama.cpp/issues/15377",
        ),
        "qwen2.5-vl-7b",
        _llama_cpp,
        learned=("the reply schema is sent in the prompt instead of response_format",),
        failures={
            "context": Failure(
                400,
                {
                    "error": {
                        "code": 400,
                        "message": "the request exceeds the available context size. try "
                        "increasing the context size or enable context shift",
                        "type": "exceed_context_size_error",
                        "n_prompt_tokens": 14429,
                        "n_ctx": 8192,
                    }
                },
                "context_length_exceeded",
                ("exceeds the available context size",),
            ),
            "no vision": Failure(
                500,
                {
                    "error": {
                        "code": 500,
                        "message": "image input is not supported - hint: if this is unexpected, "
                        "you may need to provide the mmproj",
                        "type": "server_error",
                    }
                },
                "images_not_supported",
                ("image input is not supported", "--mmproj"),
            ),
        },
    ),
    "sglang": Dialect(
        (
            "https://docs.sglang.io/basic_usage/openai_api_vision.html",
            "https://github.com/QwenLM/Qwen3/issues/1321",
        ),
        "Qwen/Qwen3-VL-8B-Instruct",
        _sglang,
        answer_field="reasoning_content",
        failures={
            "context": Failure(
                400,
                {
                    "object": "error",
                    "message": "The input (61709 tokens) is longer than the model's context "
                    "length (40960 tokens).",
                    "type": "BadRequestError",
                    "param": None,
                    "code": 400,
                },
                "context_length_exceeded",
                ("61709 tokens",),
            ),
        },
    ),
    "tgi": Dialect(
        (
            "https://huggingface.co/docs/text-generation-inference/messages_api",
            "https://github.com/huggingface/chat-ui/issues/340",
        ),
        "tgi-model",
        plain,
        failures={
            "context": Failure(
                422,
                {
                    "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be "
                    "<= 1512. Given: 1000 `inputs` tokens and 1024 `max_new_tokens`",
                    "error_type": "validation",
                },
                "context_length_exceeded",
                ("must be <= 1512",),
            ),
        },
    ),
    "vllm": Dialect(
        ("https://github.com/vllm-project/vllm/issues/13397",),
        "served-name",
        _vllm,
        listed=({"id": "served-name", "object": "model", "root": "Qwen/Qwen3-VL-8B-Instruct"},),
        failures={
            "image limit": Failure(
                400,
                _VLLM_IMAGE_LIMIT,
                "too_many_images",
                ("At most 1 image(s)", "plan.frames.max_frames_per_call"),
            ),
            "context": Failure(
                400,
                {
                    "object": "error",
                    "message": "The decoder prompt (length 10127) is longer than the maximum "
                    "model length of 8192. Make sure that `max_model_len` is no smaller than the "
                    "number of text tokens plus multimodal tokens.",
                    "type": "BadRequestError",
                    "param": None,
                    "code": 400,
                },
                "context_length_exceeded",
                ("length 10127",),
            ),
        },
    ),
}

# https://github.com/microsoft/TinyTroupe/issues/85
AZURE_FILTER = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content "
        "management policy. Please modify your prompt and retry.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation"},
    }
}
# nginx, client_max_body_size exceeded: https://nginx.org/en/docs/http/ngx_http_core_module.html
NGINX_413 = (
    "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n<center>"
    "<h1>413 Request Entity Too Large</h1></center>\r\n<hr><center>nginx</center>\r\n</body></html>"
)
