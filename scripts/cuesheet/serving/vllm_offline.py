"""vLLM's offline entry point behind the run's gateway: `vlm.serve: vllm-batch`.

    python vllm_offline.py --host 127.0.0.1 --port PORT [vLLM's engine arguments, --model and more]

This file runs in the environment of vLLM, without any other module of this package. One process
holds the engine instead of vLLM's server. All requests that wait, of all episodes, form one batch
of `LLM.chat`; requests that arrive meanwhile wait for the next batch. The gateway sends requests as
to any server, so replies, cache and provenance are the same. The API key is VLLM_API_KEY.
"""

import argparse
import hmac
import json
import os
import queue
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# The engine runs in this process.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
GATHER_S = 0.02  # requests that arrive within this time form one batch
# Sampling parameters that have the same name in requests and in vLLM.
SAMPLED = (
    *("temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "stop"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty"),
)


@dataclass
class Call:
    """A chat request; `answer` is the HTTP status and JSON of its response once `done` is set."""

    body: dict[str, Any]
    done: threading.Event = field(default_factory=threading.Event)
    answer: tuple[int, dict[str, Any]] = (500, {})

    def finish(self, status: int, answer: dict[str, Any]) -> None:
        self.answer = status, answer
        self.done.set()


def gathered(waiting: "queue.SimpleQueue[Call]") -> list[Call]:
    """Wait for a request; return it with all that arrive within GATHER_S."""
    calls = [waiting.get()]
    time.sleep(GATHER_S)
    while not waiting.empty():
        calls.append(waiting.get())
    return calls


def batches(calls: list[Call]) -> Iterator[list[Call]]:
    """Yield groups of requests that can share one call of `LLM.chat`."""
    groups: dict[str, list[Call]] = {}
    for call in calls:
        shared = json.dumps(_shared(call.body), sort_keys=True)
        groups.setdefault(shared, []).append(call)
    yield from groups.values()


def _shared(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body.get(name) for name in ("chat_template_kwargs", "mm_processor_kwargs")}


def answer(llm: Any, calls: list[Call], model: str) -> None:
    """Answer the requests of one group; if the batch is rejected, send each request by itself."""
    try:
        outputs = llm.chat(
            [call.body["messages"] for call in calls],
            [_sampling(call.body) for call in calls],
            use_tqdm=False,
            **_shared(calls[0].body),
        )
    except (ValueError, TypeError, KeyError, OSError) as error:
        if len(calls) > 1:
            for call in calls:
                answer(llm, [call], model)
        else:
            calls[0].finish(400, _refusal(f"{type(error).__name__}: {error}"))
        return
    for call, output in zip(calls, outputs, strict=True):
        call.finish(200, _completion(output, model))


def _sampling(body: dict[str, Any]) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    given = {name: body[name] for name in SAMPLED if body.get(name) is not None}
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        given["structured_outputs"] = StructuredOutputsParams(json=form["json_schema"]["schema"])
    elif form.get("type") == "json_object":
        given["structured_outputs"] = StructuredOutputsParams(json_object=True)
    return SamplingParams(**given)


def _completion(output: Any, model: str) -> dict[str, Any]:
    (choice,) = output.outputs
    prompt, completion = len(output.prompt_token_ids), len(choice.token_ids)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": choice.text},
                "finish_reason": choice.finish_reason,
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": output.num_cached_tokens or 0},
        },
    }


def _refusal(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": None}}


def handler(
    waiting: "queue.SimpleQueue[Call]", model: str, key: str
) -> type[BaseHTTPRequestHandler]:
    """Return the HTTP handler, which queues requests of the gateway and sends their responses."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/health":
                self._send(200, {})
            elif self.path == "/v1/models" and self._allowed():
                self._send(200, {"object": "list", "data": [{"id": model, "object": "model"}]})
            else:
                self._send(404, _refusal(f"{self.path} does not exist"))

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if not self._allowed():
                self._send(401, _refusal("wrong or missing key"))
                return
            body = json.loads(content)
            if body.get("model") != model:
                self._send(404, _refusal(f"the model {body.get('model')!r} does not exist"))
                return
            call = Call(body)
            waiting.put(call)
            call.done.wait()
            self._send(*call.answer)

        def _allowed(self) -> bool:
            given = self.headers.get("Authorization", "")
            return hmac.compare_digest(given.encode(), f"Bearer {key}".encode())

        def _send(self, status: int, answer: dict[str, Any]) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


class Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


def main() -> int:
    # Modules next to this file must not shadow packages of the same name.
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    from vllm import LLM, EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options: argparse.Namespace = EngineArgs.add_cli_args(parser).parse_args()
    names = options.served_model_name
    model = (names[0] if isinstance(names, list) else names) or options.model
    waiting: queue.SimpleQueue[Call] = queue.SimpleQueue()
    key = os.environ.pop("VLLM_API_KEY")
    with Http((options.host, options.port), handler(waiting, model, key)) as http:
        llm = LLM.from_engine_args(EngineArgs.from_cli_args(options))
        # Connections that were opened while the model was loading are served now.
        threading.Thread(target=http.serve_forever, daemon=True).start()
        while True:
            for calls in batches(gathered(waiting)):
                answer(llm, calls, model)
                print(f"INFO answered {len(calls)} calls at once", flush=True)


if __name__ == "__main__":
    sys.exit(main())
