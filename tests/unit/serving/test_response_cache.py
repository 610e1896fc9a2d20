"""The response cache: its keys, and its behavior on damage, kills and concurrent writers."""

import base64
import hashlib
import json
import multiprocessing
import os
import signal
import time

import pytest
from chat_server import completion
from gateway_setup import request_key
from processes import PATIENCE_S

from cuesheet.serving.response_cache import ResponseCache, describe_request

PNG = b"\x89PNG not really"


def request(**changes):
    url = "data:image/png;base64," + base64.b64encode(changes.pop("image", PNG)).decode()
    return {
        "model": "m",
        "messages": [
            {"role": "system", "content": "constant"},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": changes.pop("text", "What is there?")},
                ],
            },
        ],
        "temperature": 0.2,
        "max_tokens": 64,
        "seed": 0,
        **changes,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"text": "And now?"},
        {"image": b"another image"},
        {"temperature": 0.3},
        {"top_p": 0.9},
        {"max_tokens": 65},
        {"seed": 1},
        {"response_format": {"type": "json_object"}},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning_effort": "low"},
        {"mm_processor_kwargs": {"fps": 2}},
        {"top_k": 5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_determines_the_reply_changes_the_key(change):
    assert request_key(request(**change)) != request_key(request())


def test_what_is_only_operational_does_not_change_the_key():
    assert request_key(request(user="me", stream=False, timeout=3, top_p=None)) == request_key(
        request()
    )


def test_order_of_fields_and_spelling_of_numbers_do_not_change_the_key():
    turned = dict(reversed(list(request(temperature=1.0).items())))
    assert request_key(turned) == request_key(request(temperature=1))


def test_the_order_of_images_changes_the_key():
    body = request()
    parts = body["messages"][1]["content"]
    other = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64," + base64.b64encode(b"two").decode()},
    }
    forth = {
        **body,
        "messages": [body["messages"][0], {"role": "user", "content": [parts[0], other, parts[1]]}],
    }
    back = {
        **body,
        "messages": [body["messages"][0], {"role": "user", "content": [other, parts[0], parts[1]]}],
    }
    assert request_key(forth) != request_key(back)


def test_an_entry_is_readable_and_contains_no_image(tmp_path):
    cache = ResponseCache(tmp_path)
    body = request()
    key = request_key(body)
    assert cache.put(key, describe_request(body), completion("{}"), {"attempts": 2})
    path = tmp_path / key[:2] / f"{key}.json"
    entry = json.loads(path.read_text())
    image = entry["request"]["messages"][1]["content"][0]["image_url"]
    assert image == {"bytes": len(PNG), "sha256": hashlib.sha256(PNG).hexdigest()}
    assert entry["request"]["messages"][1]["content"][1]["text"] == "What is there?"
    assert entry["reply"] == completion("{}")
    assert entry["attempts"] == 2
    assert entry["asked_at"].endswith("+00:00")
    assert base64.b64encode(PNG).decode() not in path.read_text()


def test_a_file_url_is_keyed_by_the_content_of_the_file(tmp_path):
    def body():
        part = {"type": "image_url", "image_url": {"url": f"file://{tmp_path}/a.png"}}
        return {"model": "m", "messages": [{"role": "user", "content": [part]}]}

    (tmp_path / "a.png").write_bytes(b"one")
    before = request_key(body())
    (tmp_path / "a.png").write_bytes(b"two")
    assert request_key(body()) != before


def test_the_way_of_sending_an_image_does_not_change_the_key(tmp_path):
    (tmp_path / "a b.png").write_bytes(PNG)
    coded = base64.b64encode(PNG).decode()
    urls = [
        f"data:image/png;base64,{coded}",
        f"data:image/x-png;base64,{coded}",
        f"DATA:IMAGE/PNG;charset=utf-8;BASE64,{coded}",
        f"data:;base64,{coded.replace('=', '%3D')}",
        (tmp_path / "a b.png").as_uri(),
        (tmp_path / "a b.png").as_uri().replace("file:", "FILE:"),
    ]
    keys = set()
    for url in urls:
        body = request()
        body["messages"][1]["content"][0]["image_url"]["url"] = url
        keys.add(request_key(body))
    assert keys == {request_key(request())}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "null",
        lambda text: text.replace("constant", "forged"),
        lambda text: text.replace('"choices"', '"chosen"'),
        lambda text: "\x00\xff",
        lambda text: "[" * 100_000,
    ],
    ids=["empty", "cut", "list", "null", "other request", "no choices", "binary", "deep"],
)
def test_a_damaged_entry_is_a_miss_with_a_warning_and_is_rewritten(tmp_path, caplog, damage):
    cache = ResponseCache(tmp_path)
    body = request()
    key = request_key(body)
    cache.put(key, describe_request(body), completion("good"), {})
    path = cache.path(key)
    path.write_text(damage(path.read_text()), encoding="latin-1")
    assert cache.get(key) is None
    assert str(path) in caplog.text
    cache.put(key, describe_request(body), completion("good again"), {})
    assert cache.get(key)["reply"] == completion("good again")


@pytest.mark.parametrize("reply", [completion(None), completion("  ")], ids=["null", "blank"])
def test_a_reply_without_text_is_cached_for_replays_only(tmp_path, reply):
    cache, key = ResponseCache(tmp_path), request_key(request())
    assert cache.put(key, describe_request(request()), reply, {})
    assert cache.get(key) is None
    assert cache.get(key, replaying=True)["reply"] == reply
    assert cache.put(key, describe_request(request()), completion("{}"), {})
    assert cache.get(key)["reply"] == completion("{}")


@pytest.mark.parametrize("reply", [{}, {"choices": []}, {"error": {"message": "x"}}])
def test_an_incomplete_reply_is_never_cached(tmp_path, reply):
    with pytest.raises(ValueError, match="only chat completions"):
        ResponseCache(tmp_path).put(request_key(request()), describe_request(request()), reply, {})
    assert not any(tmp_path.rglob("*.json"))


def test_a_folder_that_cannot_be_written_loses_the_entry_but_not_the_run(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = ResponseCache(tmp_path / "file")
    assert (
        cache.put(request_key(request()), describe_request(request()), completion("x"), {}) is False
    )
    assert "could not be cached" in caplog.text


def _write_for_ever(folder: str, writer: int) -> None:
    cache = ResponseCache(folder)
    for round_ in range(1_000_000):
        body = request(text=f"question {round_ % 5}")
        cache.put(
            request_key(body),
            describe_request(body),
            completion(f"from {writer} " + "x" * 20_000),
            {},
        )


def test_writers_that_are_killed_in_the_middle_leave_only_whole_entries(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_for_ever, args=(str(tmp_path), n)) for n in range(3)]
    for writer in writers:
        writer.start()
    cache = ResponseCache(tmp_path)
    keys = [request_key(request(text=f"question {number}")) for number in range(5)]
    deadline = time.monotonic() + PATIENCE_S
    while not all(cache.path(key).exists() for key in keys) and time.monotonic() < deadline:
        time.sleep(0.02)
    read = [cache.get(key) for _ in range(20) for key in keys]
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    read += [cache.get(key) for key in keys]
    assert all(entry is not None for entry in read)


def test_the_description_of_a_request_is_what_its_key_is_made_of():
    assert "image_url" in json.dumps(describe_request(request()))
    assert describe_request(request()) == json.loads(json.dumps(describe_request(request())))


def test_a_cache_may_hold_responses_of_a_model_that_it_has_usable_ones_of(tmp_path):
    cache = ResponseCache(tmp_path)
    assert not cache.may_hold("m")
    body = {**request(), "model": "m"}
    cache.put(request_key(body), describe_request(body), completion("x"), {})
    assert cache.may_hold("m")
    assert not cache.may_hold("other")
    cache.invalidate(request_key(body))
    assert not cache.may_hold("m")


def test_the_model_behind_a_served_name_is_remembered(tmp_path):
    ResponseCache(tmp_path).write_root("robots", "Qwen/Qwen3-VL-8B-Instruct")
    ResponseCache(tmp_path).write_root("robots", "")
    assert ResponseCache(tmp_path).read_root("robots") == "Qwen/Qwen3-VL-8B-Instruct"
    assert ResponseCache(tmp_path).read_root("other") == ""


def test_the_keys_of_an_episode_are_noted_once_and_only_while_their_responses_exist(tmp_path):
    cache = ResponseCache(tmp_path, {"demo": {"vqa": "recipe"}})
    body = request()
    key = request_key(body)
    cache.put(key, describe_request(body), completion("x"), {})
    for _ in range(2):
        cache.note("demo/000003", "vqa", key)
    cache.note("demo/000003", "vqa", "0" * 64)  # a response that could not be stored
    cache.note("demo/000003", "judge", key)
    cache.note("other/000003", "vqa", key)
    (file,) = tmp_path.glob("requests/*/*")
    assert file.name == "000003.txt"
    assert file.read_text().count(key) == 1
    assert cache.has_noted("recipe")
    assert not cache.has_noted("another")
    assert cache.noted("recipe", "000003") == {key}
    assert cache.noted("recipe", "000004") == set()
    file.write_bytes(b"\xff damaged")
    assert cache.noted("recipe", "000003") == set()


@pytest.mark.parametrize("harm", ["invalidated", "cut", "empty", "without text", "deleted"])
def test_a_noted_response_that_cannot_be_used_is_not_counted(tmp_path, harm):
    cache = ResponseCache(tmp_path, {"demo": {"vqa": "recipe"}})
    keys = []
    for text in ("x", "y"):
        body = request(text=text)
        keys.append(request_key(body))
        reply = completion("" if (text, harm) == ("y", "without text") else "}")
        cache.put(keys[-1], describe_request(body), reply, {})
        cache.note("demo/000003", "vqa", keys[-1])
    path = cache.path(keys[1])
    content = path.read_bytes()
    if harm == "invalidated":
        assert cache.invalidate(keys[1])
    elif harm == "deleted":
        path.unlink()
    elif harm in ("cut", "empty"):
        path.write_bytes(content[: len(content) // 2] if harm == "cut" else b"")
    assert cache.noted("recipe", "000003") == {keys[0]}
    assert cache.get(keys[1]) is None
