"""verify, stats and prune on a cache with known entries, and replays from the cache."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from chat_server import completion, serving
from gateway_setup import chat, gateway_before, request_key
from pydantic import BaseModel

from cuesheet.serving.backends import ReplayBackend
from cuesheet.serving.cache_cli import main
from cuesheet.serving.response_cache import ResponseCache, describe_request
from cuesheet.vlm.client import Vlm
from cuesheet.vlm.errors import VlmError


def body(number, model="m", reply_class="Segmentation"):
    form = {"type": "json_schema", "json_schema": {"name": reply_class, "schema": {}}}
    messages = [{"role": "user", "content": f"question {number}"}]
    return {"model": model, "messages": messages, "response_format": form}


@pytest.fixture
def cache(tmp_path):
    """Six entries, two each of a model; the first of each is 100 days old."""
    cache = ResponseCache(tmp_path / "vlm")
    cache.keys = []
    for number, model in enumerate(("a", "a", "b", "b", "c", "c")):
        request = body(number, model, "Description" if model == "c" else "Segmentation")
        key = request_key(request)
        assert cache.put(
            key, describe_request(request), completion(f"reply {number}"), {"attempts": 1}
        )
        cache.keys.append(key)
        if number % 2 == 0:
            entry = json.loads(cache.path(key).read_text())
            entry["asked_at"] = (datetime.now(UTC) - timedelta(days=100)).isoformat()
            cache.path(key).write_text(json.dumps(entry))
    return cache


def left(cache):
    return {number for number, key in enumerate(cache.keys) if cache.path(key).exists()}


def run(cache, *arguments):
    return main([arguments[0], "--cache", str(cache.folder), *arguments[1:]])


def test_a_whole_cache_verifies(cache, capsys):
    assert run(cache, "verify") == 0
    assert capsys.readouterr().out == "6 files checked, 0 damaged\n"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[: len(text) // 2], "char"),
        (lambda text: text.replace("question 3", "question 4"), "request"),
        (lambda text: text.replace("reply 3", "reply 4"), "response was changed"),
        (lambda text: text.replace('"choices"', '"chosen"'), "no choice with text"),
        (lambda text: "[1]", "not a cache entry"),
    ],
    ids=["cut", "request", "reply", "no choices", "not an entry"],
)
def test_verify_names_the_damaged_entry_and_reads_count_it_as_a_miss(cache, capsys, damage, says):
    path = cache.path(cache.keys[3])
    path.write_text(damage(path.read_text()))
    assert run(cache, "verify") == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{path}: ")
    assert says in first
    assert last == "6 files checked, 1 damaged; delete them"
    assert cache.get(cache.keys[3]) is None


def test_verify_checks_images_and_ignores_unfinished_files(cache, capsys):
    media = cache.folder / "media" / "ab"
    media.mkdir(parents=True)
    good = hashlib.sha256(b"image").hexdigest()
    (media / f"{good}.png").write_bytes(b"image")
    (media / f"{'0' * 64}.png").write_bytes(b"image")
    (cache.folder / "ab").mkdir(exist_ok=True)
    (cache.folder / "ab" / f".{good}.x1.json").write_text("{")
    assert run(cache, "verify") == 1
    out = capsys.readouterr().out
    assert f"{'0' * 64}.png: its content does not match its name" in out
    assert out.endswith("8 files checked, 1 damaged; delete them\n")


def test_stats_count_by_model_class_and_age(cache, capsys):
    assert run(cache, "stats", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    sizes = [cache.path(key).stat().st_size for key in cache.keys]
    assert (found["entries"], found["bytes"], found["unreadable"]) == (6, sum(sizes), 0)
    assert {model: counts["entries"] for model, counts in found["by_model"].items()} == {
        "a": 2,
        "b": 2,
        "c": 2,
    }
    assert found["by_reply_class"]["Description"] == {"entries": 2, "bytes": sum(sizes[4:])}
    assert found["by_age"] == {"1 day": 3, "1 week": 0, "30 days": 0, "1 year": 3, "older": 0}
    assert run(cache, "stats") == 0
    text = capsys.readouterr().out
    assert "6 entries" in text
    assert "model b" in text


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (["--older-than", "90d"], {0, 2, 4}),
        (["--older-than", "2400h"], {0, 2, 4}),
        (["--older-than", "15w"], set()),
        (["--model", "b"], {2, 3}),
        (["--model", "a", "--model", "c"], {0, 1, 4, 5}),
        (["--model", "a", "--older-than", "90d"], {0}),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_prune_deletes_what_fits_every_condition_and_a_dry_run_nothing(cache, arguments, gone):
    assert run(cache, "prune", "--dry-run", *arguments) == 0
    assert left(cache) == set(range(6))
    assert run(cache, "prune", *arguments) == 0
    assert left(cache) == set(range(6)) - gone


def test_prune_deletes_the_notes_of_what_it_deletes(cache):
    noting = ResponseCache(cache.folder, {"demo": {"vqa": "recipe"}})
    for episode, number in ((0, 0), (1, 0), (1, 3), (2, 3)):
        noting.note(f"demo/{episode:06d}", "vqa", cache.keys[number])
    notes = cache.folder / "requests" / "recipe"
    assert run(cache, "prune", "--dry-run", "--model", "a") == 0
    assert len(list(notes.iterdir())) == 3
    assert run(cache, "prune", "--model", "a") == 0
    assert {path.name: path.read_text() for path in notes.iterdir()} == {
        "000001.txt": f"{cache.keys[3]}\n",
        "000002.txt": f"{cache.keys[3]}\n",
    }
    assert run(cache, "prune", "--model", "b") == 0
    assert not notes.exists()


def test_prune_without_a_condition_deletes_nothing(cache, capsys):
    assert run(cache, "prune") == 2
    assert "--older-than" in capsys.readouterr().err
    assert left(cache) == set(range(6))


def test_prune_keeps_what_results_were_made_of_corrections_too(cache, tmp_path, capsys):
    calls = [
        {"key": cache.keys[1], "correction_key": None},
        {"key": cache.keys[2], "correction_key": cache.keys[5]},
    ]
    stage = tmp_path / "results" / "demo" / "plan"
    stage.mkdir(parents=True)
    (stage / "000000.json").write_text(json.dumps({"provenance": {"calls": calls}}))
    assert run(cache, "prune", "--unused-by", str(tmp_path / "results")) == 0
    assert left(cache) == {1, 2, 5}
    assert "3 entries" in capsys.readouterr().out


def test_prune_refuses_results_that_it_cannot_read(cache, tmp_path, capsys):
    (tmp_path / "results" / "demo" / "vqa").mkdir(parents=True)
    assert run(cache, "prune", "--unused-by", str(tmp_path / "results")) == 2
    (tmp_path / "results" / "demo" / "vqa" / "000000.json").write_text("{")
    assert run(cache, "prune", "--unused-by", str(tmp_path / "results")) == 2
    assert "nothing is deleted" in capsys.readouterr().err
    assert left(cache) == set(range(6))


def test_a_folder_that_is_not_there_is_said_so(tmp_path, capsys):
    assert main(["stats", "--cache", str(tmp_path / "no")]) == 2
    assert str(tmp_path / "no") in capsys.readouterr().err


class Point(BaseModel):
    x: float


async def where(folder):
    settings = {"model": "test-model", "max_tokens": 64}
    async with Vlm.connect(folder / "server.json", settings, "demo/000003", {"p": "0"}) as vlm:
        return await vlm.ask(
            name="where", prompt="p", reply=Point, system="s", media=[], text="t", needs_media=False
        )


def replaying(folder):
    return gateway_before(folder, backend=ReplayBackend("test-model", folder / "cache"))


@pytest.mark.parametrize(
    "first", [None, "y" * 10_000_000, "no", '{"x": 1}'], ids=lambda x: str(x)[:4]
)
async def test_a_replay_takes_the_same_way_to_the_same_answer(tmp_path, first):
    def behave(body, number):
        return completion(first if number == 0 else '{"x": 2}')

    async with serving(behave) as server, gateway_before(tmp_path, server.url):
        asked = await where(tmp_path)
    async with replaying(tmp_path) as gateway:
        replayed = await where(tmp_path)
        assert (gateway.counters.attempts, gateway.counters.retries) == (0, 0)
    assert replayed.value == asked.value
    assert replayed.call["cache_hit"]
    same = ("key", "correction_key", "outcome", "error", "finish_reason")
    assert [replayed.call[name] for name in same] == [asked.call[name] for name in same]


async def test_what_is_not_in_the_cache_fails_a_replay_at_once_with_its_key(tmp_path):
    async with replaying(tmp_path) as gateway:
        with pytest.raises(VlmError) as caught:
            await where(tmp_path)
        status, listed = await gateway.ask(chat("a"))
    key = caught.value.call["key"]
    message = str(caught.value)
    assert "'where' (demo/000003)" in message
    assert f"{key[:2]}/{key}.json" in message
    assert str(tmp_path / "cache") in message
    assert "vlm.serve" in message
    assert caught.value.call["outcome"] == "failed"
    assert (status, listed["error"]["code"]) == (404, "not_in_cache")
    assert gateway.naps == []
