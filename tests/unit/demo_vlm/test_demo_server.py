"""The demo model over real HTTP: protocol, errors, life and death of the process."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import cv2
import httpx
import numpy as np
import pytest
from processes import PATIENCE_S

from cuesheet.vlm import replies
from demo_vlm import MODEL_ID

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
KEY = "a-key-for-tests"


def wait_for(path: Path, process: subprocess.Popen, seconds: float = PATIENCE_S) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists():
            return path.read_text()
        assert process.poll() is None, "the server ended before it listened"
        time.sleep(0.02)
    raise AssertionError("the server did not write its port file")


def command(port_file: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "demo_vlm", "--port", "0"),
        *("--port-file", str(port_file), "--api-key-env", "DEMO_TEST_KEY"),
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "DEMO_TEST_KEY": KEY}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("demo_vlm")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command(folder / "port"), env=environment(), stderr=log)
    try:
        port = int(wait_for(folder / "port", process))
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=PATIENCE_S
        ) as http:
            yield http
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0, "SIGTERM ends the server with status 0"
    assert "not a language model" in (folder / "log").read_text()


def square(size: tuple[int, int] = (96, 128)) -> np.ndarray:
    image = np.full((*size, 3), 120, np.uint8)
    image[30:50, 60:90] = (220, 20, 20)
    return image


def data_url(image: np.ndarray, kind: str = "png") -> str:
    _, encoded = cv2.imencode(f".{kind}", image[..., ::-1])
    media = {"png": "image/png", "jpg": "image/jpeg"}[kind]
    return f"data:{media};base64," + base64.b64encode(encoded.tobytes()).decode()


def body(text: str, reply: type | None, *urls: str, **more: object) -> dict:
    content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    request = {
        "model": MODEL_ID,
        "messages": [
            {"role": "system", "content": "constant"},
            {"role": "user", "content": [*content, {"type": "text", "text": text}]},
        ],
        **more,
    }
    if reply is not None:
        schema = {"name": reply.__name__, "schema": reply.model_json_schema(), "strict": True}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    return request


def ask(client: httpx.Client, request: dict) -> dict:
    response = client.post("/v1/chat/completions", json=request)
    assert response.status_code == 200, response.text
    return response.json()


def content(client: httpx.Client, request: dict) -> str:
    return ask(client, request)["choices"][0]["message"]["content"]


BOX = "Task: push the block\nQuestion type: bbox\nCoordinates: pixels of the image, 128 x 96"


def test_health_needs_no_key_and_says_that_it_is_not_a_language_model(client):
    answer = httpx.get(f"{client.base_url}/health").json()
    assert answer["status"] == "ok"
    assert answer["language_model"] is False


def test_models_lists_the_one_model(client):
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == [MODEL_ID]


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_box_question_is_answered_by_the_schema(client, kind):
    text = content(client, body(BOX, replies.BboxQA, data_url(square(), kind)))
    detection = replies.BboxQA.model_validate_json(text).answer.detections[0]
    assert "red" in detection.label
    assert np.allclose(detection.bbox, [60, 30, 90, 50], atol=2)


def test_usage_counts_words_and_patches_of_28_pixels(client):
    # 128 x 96 px are 5 x 4 patches; "Say hello, robot!" is five tokens, "constant" one.
    usage = ask(client, body("Say hello, robot!", None, data_url(square())))["usage"]
    assert usage["prompt_tokens"] == 20 + 5 + 1
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_reply_longer_than_max_tokens_is_cut_and_says_so(client):
    request = body(BOX, replies.BboxQA, data_url(square()))
    whole = ask(client, request)
    cut = ask(client, {**request, "max_tokens": 7})
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] == 7
    text = cut["choices"][0]["message"]["content"]
    assert whole["choices"][0]["message"]["content"].startswith(text)


def test_replies_do_not_depend_on_temperature_or_seed(client):
    request = body(BOX, replies.BboxQA, data_url(square()))
    first = ask(client, {**request, "temperature": 0, "seed": 1})
    second = ask(client, {**request, "temperature": 1.5, "seed": 2, "top_p": 0.5})
    assert first["choices"] == second["choices"]


def test_without_response_format_the_schema_in_the_text_is_followed(client):
    schema = json.dumps(replies.BboxQA.model_json_schema())
    request = body(f"{BOX}\nAnswer by this schema:\n{schema}", None, data_url(square()))
    replies.BboxQA.model_validate_json(content(client, request))


def test_without_any_schema_the_reply_is_a_sentence(client):
    text = content(client, body("What do you see?", None, data_url(square())))
    assert "red" in text
    assert not text.startswith("{")


def test_a_corrective_second_turn_is_answered_like_the_first(client):
    request = body(BOX, replies.BboxQA, data_url(square()))
    first = content(client, request)
    request["messages"] += [
        {"role": "assistant", "content": "no JSON"},
        {"role": "user", "content": "That was no JSON: answer by the schema."},
    ]
    assert content(client, request) == first


def test_images_on_a_shared_disk_are_read(client, tmp_path):
    path = tmp_path / "a frame.png"
    cv2.imwrite(str(path), square()[..., ::-1])
    assert content(client, body(BOX, replies.BboxQA, path.as_uri())) == content(
        client, body(BOX, replies.BboxQA, data_url(square()))
    )


def test_a_clip_is_decoded_and_divided(client):
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for index in range(30):
            image = np.full((96, 128, 3), 120, np.uint8)
            left = min(4 * index, 60)
            image[40:60, left : left + 20] = (20, 20, 200)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    url = "data:video/mp4;base64," + base64.b64encode(buffer.getvalue()).decode()
    request = body(
        "Clip: 0.00 to 6.00 s\nTask: push the block\nWindow: 0.00 to 6.00 s\n"
        "Limits: at most 4 subtasks, each at least 1.00 s long.",
        replies.Segmentation,
    )
    request["messages"][1]["content"].insert(0, {"type": "video_url", "video_url": {"url": url}})
    answer = ask(client, request)
    spans = replies.Segmentation.model_validate_json(
        answer["choices"][0]["message"]["content"]
    ).subtasks
    assert spans[0].start_s == 0
    assert spans[-1].end_s == 6
    # 30 frames of 5 x 4 patches, two frames a step.
    assert answer["usage"]["prompt_tokens"] > 300


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": "warm"}, "temperature"),
        ({"stream": True}, "stream"),
        ({"n": 2}, "n"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"model": None}, "model"),
    ],
)
def test_a_bad_body_is_refused_in_the_shape_of_the_api(client, change, param):
    response = client.post("/v1/chat/completions", json={**body("hi", None), **change})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,AAAA",
        "data:image/png;base64,%%%",
        "data:image/png",
        "https://example.org/image.png",
        "file:///no/such/file.png",
    ],
)
def test_an_image_that_cannot_be_read_is_rejected(client, url):
    response = client.post("/v1/chat/completions", json=body(BOX, replies.BboxQA, url))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages"


def test_a_question_about_images_without_any_is_rejected(client):
    for reply in (replies.BboxQA, replies.Segmentation):
        response = client.post("/v1/chat/completions", json=body(BOX, reply))
        assert response.status_code == 400
        assert "none was sent" in response.json()["error"]["message"]


def test_text_that_is_not_json_is_rejected(client):
    response = client.post("/v1/chat/completions", content=b"{nope")
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_json"


def test_a_wrong_key_is_refused(client):
    for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": ""}):
        response = client.post("/v1/chat/completions", json=body("hi", None), headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"


def test_a_wrong_model_and_a_wrong_path_are_not_found(client):
    wrong = client.post("/v1/chat/completions", json={**body("hi", None), "model": "gpt-9"})
    assert wrong.status_code == 404
    assert wrong.json()["error"]["code"] == "model_not_found"
    assert client.get("/v1/embeddings").status_code == 404


def test_health_is_answered_while_images_are_processed(client):
    large = np.random.default_rng(0).integers(0, 255, (900, 1200, 3)).astype(np.uint8)
    request = body(BOX, replies.BboxQA, *[data_url(large, "jpg")] * 8)
    codes = []
    threads = [Thread(target=lambda: codes.append(ask(client, request))) for _ in range(6)]
    for thread in threads:
        thread.start()
    answered = 0
    while any(thread.is_alive() for thread in threads):
        assert httpx.get(f"{client.base_url}/health", timeout=10).status_code == 200
        answered += 1
    assert answered >= 1
    assert len(codes) == 6


def test_the_server_ends_when_its_parent_is_killed(tmp_path):
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\n"
            "child = subprocess.Popen(sys.argv[2:])\n"
            "open(sys.argv[1], 'w').write(str(child.pid))\n"
            "time.sleep(600)",
            str(tmp_path / "pid"),
            *command(tmp_path / "port"),
        ],
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    port = int(wait_for(tmp_path / "port", parent))
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    parent.kill()
    parent.wait(PATIENCE_S)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", timeout=PATIENCE_S)
        except httpx.TransportError:
            return
        time.sleep(0.05)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    raise AssertionError("the server outlived its parent")


def test_a_missing_key_variable_is_one_clear_line(tmp_path):
    variables = {name: value for name, value in environment().items() if name != "DEMO_TEST_KEY"}
    done = subprocess.run(
        command(tmp_path / "port"),
        env=variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 2
    assert "DEMO_TEST_KEY" in done.stderr
    assert "Traceback" not in done.stderr
