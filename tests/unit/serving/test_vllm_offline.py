"""The code around vLLM's offline entry point. Tests with the real engine are elsewhere."""

import json
import queue
import sys
import threading
import urllib.error
import urllib.request
from types import ModuleType, SimpleNamespace

import pytest

from cuesheet.config.vlm import VlmConfig
from cuesheet.serving import vllm_offline
from cuesheet.serving.launch_command import managed_launch
from cuesheet.serving.vllm_offline import Call, Http, answer, batches, gathered, handler

KEY = "the-run's-own-key"


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    """The two classes of vLLM that say how to sample, as what they are given."""
    package, sampling = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    package.SamplingParams = lambda **given: given
    sampling.StructuredOutputsParams = lambda **given: given
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", sampling)


class Engine:
    """Repeats the last message; refuses a batch that holds the word `long`."""

    def __init__(self):
        self.batches = []
        self.given = []

    def chat(self, messages, sampling, use_tqdm, **shared):
        texts = [conversation[-1]["content"] for conversation in messages]
        self.batches.append(texts)
        self.given.append((sampling, shared))
        if any("long" in text for text in texts):
            raise ValueError("This model's maximum context length is 8192 tokens")
        return [
            SimpleNamespace(
                prompt_token_ids=[1, 2, 3],
                num_cached_tokens=2,
                outputs=[SimpleNamespace(text=text, token_ids=[7], finish_reason="stop")],
            )
            for text in texts
        ]


def body(text, **more):
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def test_calls_that_wait_go_together_and_those_with_other_arguments_apart():
    waiting = queue.SimpleQueue()
    for call in (
        Call(body("a")),
        Call(body("b", mm_processor_kwargs={"fps": 2})),
        Call(body("c", temperature=0.5)),
    ):
        waiting.put(call)
    groups = batches(gathered(waiting))
    texts = [[call.body["messages"][0]["content"] for call in group] for group in groups]
    assert texts == [["a", "c"], ["b"]]


def test_a_refusal_costs_no_call_but_its_own():
    engine, calls = Engine(), [Call(body(text)) for text in ("a", "too long", "c")]
    answer(engine, calls, "m")
    assert [call.answer[0] for call in calls] == [200, 400, 200]
    assert "8192 tokens" in calls[1].answer[1]["error"]["message"]
    assert calls[2].answer[1]["choices"][0]["message"]["content"] == "c"
    assert calls[2].answer[1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    assert engine.batches == [["a", "too long", "c"], ["a"], ["too long"], ["c"]]


def test_what_determines_an_answer_reaches_the_engine():
    engine = Engine()
    form = {"type": "json_schema", "json_schema": {"name": "X", "schema": {"type": "object"}}}
    asked = body("a", temperature=0.2, top_p=1.0, max_tokens=64, seed=7, response_format=form)
    answer(engine, [Call({**asked, "chat_template_kwargs": {"thinking": False}})], "m")
    sampling, shared = engine.given[0]
    assert sampling == [
        {
            "temperature": 0.2,
            "top_p": 1.0,
            "max_tokens": 64,
            "seed": 7,
            "structured_outputs": {"json": {"type": "object"}},
        }
    ]
    assert shared == {"chat_template_kwargs": {"thinking": False}, "mm_processor_kwargs": None}


def test_only_the_run_is_answered_and_only_for_its_model():
    waiting = queue.SimpleQueue()
    with Http(("127.0.0.1", 0), handler(waiting, "m", KEY)) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()

        def post(key, asked):
            url = f"http://127.0.0.1:{http.server_port}/v1/chat/completions"
            headers = {"Authorization": f"Bearer {key}"}
            request = urllib.request.Request(url, json.dumps(asked).encode(), headers)
            try:
                with urllib.request.urlopen(request, timeout=30) as reply:
                    return reply.status, json.load(reply)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)

        assert post("another", body("a"))[0] == 401
        status, reply = post(KEY, {**body("a"), "model": "other"})
        assert (status, "'other'" in reply["error"]["message"]) == (404, True)
        assert waiting.empty()
        threading.Thread(
            target=lambda: answer(Engine(), gathered(waiting), "m"), daemon=True
        ).start()
        status, reply = post(KEY, body("hello"))
        assert (status, reply["choices"][0]["message"]["content"]) == (200, "hello")
        http.shutdown()


def test_the_command_is_that_of_the_environment_of_vllm_with_its_engine_arguments():
    config = VlmConfig(serve="vllm-batch", model="org/m", managed={"max_model_len": 8192})
    settings = {
        **config.managed.model_dump(),
        "server": "vllm-batch",
        "python": "/opt/v/bin/python",
    }
    made = managed_launch(settings, "org/m", ["0"], "/shared")("r")
    assert made.argv[:4] == ["/opt/v/bin/python", vllm_offline.__file__, "--model", "org/m"]
    assert "--trust-request-mm-kwargs" not in made.argv
    assert made.argv[made.argv.index("--max-model-len") + 1] == "8192"
    assert made.full_environment()["VLLM_API_KEY"] == made.api_key
    assert not [word for word in made.argv if made.api_key in word]


@pytest.mark.parametrize("other", [{"server": "transformers"}, {"command": "serve {port}"}])
def test_no_other_server_goes_with_it(other):
    with pytest.raises(ValueError, match="managed names another"):
        VlmConfig(serve="vllm-batch", model="m", managed=other)
