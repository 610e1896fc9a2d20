"""`cuesheet retry`: what is requested again, and what is left as it is."""

import json
from pathlib import Path

import pytest

from cuesheet.app import cli
from cuesheet.app.retry import cache_of
from cuesheet.serving.response_cache import ResponseCache, describe_request, key_of

REPLY = {"choices": [{"message": {"content": '{"label": "x"}'}}]}


def store(question: str) -> str:
    """Cache a response and return its key."""
    request = describe_request({"messages": [{"role": "user", "content": question}]})
    key = key_of(request)
    assert ResponseCache(".cache/vlm").put(key, request, REPLY, {})
    return key


def write_stage(stage: str, episode: int, *calls: dict) -> Path:
    path = Path(f"results/demo/{stage}/{episode:06d}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": 1, "stage": stage, "dataset": "demo", "episode_index": episode}
    content |= {"persistent": [], "events": [], "provenance": {"calls": list(calls)}}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def keys(tmp_path, monkeypatch) -> dict[str, str]:
    """Episode 0 is fine; episode 1 has an invalid reply in VQA; the plan of episode 2 failed."""
    monkeypatch.chdir(tmp_path)
    names = ("plan 0", "plan 1", "vqa 0", "valid", "invalid", "correction", "failed")
    keys = {name: store(name) for name in names}
    write_stage("plan", 0, {"key": keys["plan 0"]})
    write_stage("plan", 1, {"key": keys["plan 1"]})
    write_stage("vqa", 0, {"key": keys["vqa 0"]})
    invalid = {"key": keys["invalid"], "correction_key": keys["correction"], "outcome": "invalid"}
    write_stage("vqa", 1, {"key": keys["valid"]}, invalid)
    record = Path("results/demo/failed/annotate_plan/000002.json")
    record.parent.mkdir(parents=True)
    call = {"key": keys["failed"], "correction_key": None, "outcome": "failed"}
    record.write_text(json.dumps({"error": "no subtasks", "log": "x.log", "call": call}))
    return keys


def invalidated(keys: dict[str, str]) -> set[str]:
    cache = ResponseCache(".cache/vlm")
    return {name for name, key in keys.items() if cache.get(key) is None}


def files() -> set[str]:
    return {str(path.relative_to("results/demo")) for path in Path("results").rglob("*.json")}


def test_invalid_replies_and_failed_stages_are_requested_again(keys, capsys):
    assert cli.main(["retry", "demo"]) == 0
    assert invalidated(keys) == {"invalid", "correction", "failed"}
    assert files() == {"plan/000000.json", "plan/000001.json", "vqa/000000.json"}
    assert capsys.readouterr().out == (
        "The next run re-creates: vqa of episode 1; plan of episode 2. 3 cached responses will be "
        "requested again.\n"
    )
    assert cli.main(["retry", "demo"]) == 0
    assert "nothing to request again" in capsys.readouterr().out


def test_drafts_and_lists_of_labels_without_a_usable_reply_are_requested_again(keys, capsys):
    invalid = {"key": keys["plan 1"], "outcome": "invalid"}
    folder = Path("results/demo/vocabulary")
    for number, call in enumerate([{"key": keys["plan 0"]}, invalid]):
        path = folder / f"drafts/{number:06d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = {"format": 1, "stage": "vocabulary", "dataset": "demo", "episode_index": number}
        path.write_text(json.dumps({**draft, "steps": [], "provenance": {"calls": [call]}}))
    labels = {"format": 1, "dataset": "demo", "task": "wave", "labels": [], "drafts": {}}
    (folder / "wave-0.json").write_text(json.dumps(labels))
    (folder / "requests").mkdir()
    requests = {"format": 1, "provenance": {"calls": [{**invalid, "key": keys["vqa 0"]}]}}
    (folder / "requests/wave-0.json").write_text(json.dumps(requests))
    assert cli.main(["retry", "demo"]) == 0
    assert {"plan 1", "vqa 0"} < invalidated(keys)
    assert {name for name in files() if name.startswith("vocabulary")} == {
        "vocabulary/drafts/000000.json"
    }
    assert "draft of episode 1; labels of 1 task. 5 cached" in capsys.readouterr().out


def test_everything_of_given_episodes_is_requested_again(keys, capsys):
    assert cli.main(["retry", "results/demo", "0", "2"]) == 0
    assert invalidated(keys) == {"plan 0", "vqa 0", "failed"}
    assert files() == {"plan/000001.json", "vqa/000001.json"}


def test_an_unknown_episode_or_dataset_is_one_line_and_changes_nothing(keys, capsys):
    assert cli.main(["retry", "demo", "0,7-8"]) == 1
    assert "no annotations of episodes 7 to 8" in capsys.readouterr().err
    assert cli.main(["retry", "dmo"]) == 1
    assert "no results of dmo" in capsys.readouterr().err
    assert cli.main(["retry", "demo", "one"]) == 1
    assert "EPISODES: 'one' is neither" in capsys.readouterr().err
    assert invalidated(keys) == set()
    assert len(files()) == 5


def test_a_damaged_file_is_named_and_nothing_is_changed(keys, capsys):
    Path("results/demo/vqa/000000.json").write_text("{")
    assert cli.main(["retry", "demo"]) == 1
    assert "vqa/000000.json is not valid JSON" in capsys.readouterr().err
    assert invalidated(keys) == set()


def test_the_cache_is_the_one_of_the_newest_run_of_the_dataset(keys, tmp_path):
    for run, cache, dataset in (
        ("20260101-000000-1-aa", "/old", "demo"),
        ("20260102-000000-1-aa", "/new", "demo"),
        ("20260103-000000-1-aa", "/other", "elsewhere"),
    ):
        folder = Path(".cuesheet/runs") / run
        folder.mkdir(parents=True)
        config = {"cache_dir": cache, "totals": {dataset: {"episodes": []}}}
        (folder / "config.json").write_text(json.dumps(config))
    assert cache_of("demo") == Path("/new")
    assert cache_of("unknown") == Path(".cache/vlm")


def test_responses_of_another_cache_are_counted_and_the_option_is_named(keys, capsys):
    assert cli.main(["retry", "demo", "--cache", "elsewhere"]) == 0
    assert "3 responses are not in elsewhere" in capsys.readouterr().out
