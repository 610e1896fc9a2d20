"""The summary counts what the files hold."""

import json
from pathlib import Path

import pytest

from cuesheet.errors import CuesheetError
from cuesheet.report.summary import as_text, summarize


def write(path: Path, data: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def call(**changes) -> dict:
    return {
        "name": "ask",
        "cache_hit": False,
        "latency_s": 0.1,
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "attempts": 1,
        "outcome": "ok",
        **changes,
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    for index in (0, 1):
        name = f"{index:06d}.json"
        warning = {"code": "stage_warning", "where": "vqa", "message": "no reply"}
        write(
            folder / "validation" / name,
            {
                "format": 1,
                "episode_index": index,
                "errors": [],
                "warnings": [warning] * index,
                "counts": {"subtask": 3, "speech": 1, "vqa": 2},
                "stage_files": {},
            },
        )
        for stage in ("plan", "vqa"):
            calls = [call(), call(cache_hit=True), call(outcome="retried", prompt_tokens=200)]
            if stage == "vqa":
                calls.append(call(outcome="invalid", error="no JSON"))
            write(
                folder / stage / name,
                {
                    "format": 1,
                    "stage": stage,
                    "dataset": "demo",
                    "episode_index": index,
                    "persistent": [],
                    "events": [],
                    "provenance": {
                        "model": "cuesheet-demo-1",
                        "served_by": "demo",
                        "calls": calls,
                    },
                },
            )
    return folder


def test_everything_is_counted_once(results):
    summary = summarize(results, range(5), left_out=[3])
    assert summary["episodes"] == {
        "total": 5,
        "annotated": 2,
        "left_out": [3],
        "kept": [],
        "not_selected": 2,
    }
    assert summary["rows"] == {"subtask": 6, "vqa": 4, "speech": 2}
    assert summary["calls"] == {"total": 14, "cache_hits": 4, "retried": 4, "invalid": 2}
    assert summary["tokens"] == {
        "prompt": 1400,
        "completion": 100,
        "prompt_from_cache": 400,
        "completion_from_cache": 40,
    }
    assert summary["warnings"]["by_code"] == {"stage_warning": 1}


def test_the_text_names_the_dataset_and_says_that_the_demo_model_is_not_a_language_model(results):
    text = as_text(summarize(results, range(5), left_out=[3]))
    assert str(results / "annotated") in text
    assert "2 of 5 annotated, 2 not selected, left out after errors: 3" in text
    assert "cuesheet-demo-1" in text
    assert "not a language model" in text
    assert "episode 1, vqa: no reply" in text


def test_a_real_model_is_named_without_that_note(results):
    for path in results.glob("*/*.json"):
        text = path.read_text().replace("cuesheet-demo-1", "org/model")
        path.write_text(text.replace('"demo"', '"external"'))
    text = as_text(summarize(results, range(2), left_out=[]))
    assert "org/model" in text
    assert "not a language model" not in text


def test_a_broken_file_is_named(results):
    (results / "vqa/000001.json").write_text("{")
    with pytest.raises(CuesheetError, match=r"vqa/000001\.json is not valid JSON"):
        summarize(results, range(2), left_out=[])


def test_notices_about_the_source_are_in_the_summary(results):
    notice = "Camera depth records depth, not color, and is not used."
    summary = summarize(results, range(5), left_out=[3], notices=[notice])
    assert summary["notices"] == [notice]
    assert notice in as_text(summary)


def test_invalid_replies_and_failed_stages_are_named_with_the_command_that_retries_them(results):
    summary = summarize(results, range(5), left_out=[3])
    assert summary["invalid_replies_in"] == [0, 1]
    text = as_text(summary)
    assert (
        "invalid replies in episodes 0-1 and failed stages in episode 3: run `cuesheet retry demo`"
        in text
    )
    assert "Not cached" not in text


def test_no_retry_is_proposed_if_all_replies_are_valid(results):
    for path in results.glob("vqa/*.json"):
        path.write_text(path.read_text().replace('"invalid"', '"ok"'))
    assert "cuesheet retry" not in as_text(summarize(results, range(2), left_out=[]))


def test_responses_that_could_not_be_cached_are_counted(results):
    path = results / "vqa/000001.json"
    path.write_text(path.read_text().replace('"attempts": 1', '"attempts": 1, "stored": false'))
    summary = summarize(results, range(2), left_out=[])
    assert summary["not_cached"] == 4
    assert "Not cached:        4 responses, which a later run" in as_text(summary)
