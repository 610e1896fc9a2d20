"""The progress line: its counts, and when it is printed."""

import asyncio
import io
import json
import os
import re

from chat_server import completion, serving
from gateway_setup import chat, gateway_before

from cuesheet.artifacts.finished import jobs_of
from cuesheet.serving.progress import Progress, count_done

TOTALS = {"a": {"episodes": ["000000", "000001"]}, "b": {"episodes": ["000005"]}}


def finish(results, dataset, stage, episode):
    if stage == "keyframes":
        path = results / dataset / stage / episode / "keyframes.json"
    else:
        path = results / dataset / stage / f"{episode}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def stats(**changes):
    return {
        "calls": 0,
        "completed": 0,
        "cache_hits": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "in_flight": 0,
        "waiting": 0,
        "retries": 0,
        "failures": 0,
        "server": "idle",
        **changes,
    }


def test_only_finished_files_of_wanted_episodes_count(tmp_path):
    finish(tmp_path, "a", "plan", "000000")
    finish(tmp_path, "a", "plan", "000009")
    finish(tmp_path, "b", "plan", "000005")
    finish(tmp_path, "a", "keyframes", "000001")
    (tmp_path / "a" / "keyframes" / "000000").mkdir()
    (tmp_path / "a" / "plan" / ".000001.tmp.json").write_text("")
    done = count_done(tmp_path, TOTALS)
    assert set(done.requested.values()) == {3}
    assert done.stages == {
        "keyframes": 1,
        "plan": 2,
        "interjections": 0,
        "vqa": 0,
        "validation": 0,
    }
    assert done.left == 12


def test_a_stage_that_is_turned_off_is_not_waited_for(tmp_path):
    totals = {"a": {"episodes": ["000000"], "stages": ["keyframes", "plan", "validation"]}}
    finish(tmp_path, "a", "plan", "000000")
    finish(tmp_path, "a", "vqa", "000000")
    assert count_done(tmp_path, totals).left == 2
    line = Progress(tmp_path, totals, lambda: stats(calls=1), io.StringIO()).line()
    assert "| keyframes 0/1 plan 1/1 |" in line


def test_a_single_target_is_counted_alone_and_files_to_be_replaced_when_they_are(tmp_path):
    for dataset, episode in (("a", "000000"), ("a", "000001"), ("b", "000005")):
        for stage in ("keyframes", "plan"):
            finish(tmp_path, dataset, stage, episode)
    requested = {"decode_keyframes": (["000001"], []), "annotate_plan": (["000001"], ["000001"])}
    totals = {**TOTALS, "a": {**TOTALS["a"], "jobs": jobs_of(tmp_path / "a", requested)}}
    totals["b"] = {**TOTALS["b"], "jobs": jobs_of(tmp_path / "b", {})}
    totals = json.loads(json.dumps(totals))
    assert count_done(tmp_path, totals).stages == {"keyframes": 1, "plan": 0}
    line = Progress(tmp_path, totals, lambda: stats(calls=1), io.StringIO()).line()
    assert line.startswith("cuesheet: keyframes 1/1 plan 0/1 | ")
    path = tmp_path / "a/plan/000001.json"
    os.utime(path, (1, path.stat().st_mtime + 1))
    assert count_done(tmp_path, totals).left == 0


def test_the_line_says_what_is_done_how_fast_and_what_is_left(tmp_path):
    now = [100.0]
    counts = stats()
    progress = Progress(tmp_path, TOTALS, lambda: counts, io.StringIO(), clock=lambda: now[0])
    assert progress.line() is None
    for episode in ("000000", "000001"):
        for stage in ("keyframes", "plan", "interjections"):
            finish(tmp_path, "a", stage, episode)
    finish(tmp_path, "a", "vqa", "000000")
    finish(tmp_path, "a", "validation", "000000")
    counts = stats(
        calls=123,
        completed=123,
        cache_hits=20,
        prompt_tokens=45_000,
        completion_tokens=123,
        server="ready",
    )
    now[0] = 110.0
    # 8 files in 10 s; 7 are left.
    assert progress.line() == (
        "cuesheet: episodes 1/3 | keyframes 2/3 plan 2/3 interjections 2/3 vqa 1/3 | "
        "12.3 calls/s, 20 cached | 45.1k tokens | left 9 s"
    )
    assert progress.line() is None


def test_what_was_there_before_the_run_does_not_make_it_look_fast(tmp_path):
    for stage in ("keyframes", "plan", "interjections", "vqa", "validation"):
        finish(tmp_path, "a", stage, "000000")
        finish(tmp_path, "a", stage, "000001")
    now = [0.0]
    progress = Progress(tmp_path, TOTALS, stats, io.StringIO(), clock=lambda: now[0])
    finish(tmp_path, "b", "keyframes", "000005")
    now[0] = 60.0
    assert progress.line().endswith("left 4.0 min")


def test_how_often_is_up_to_the_user(tmp_path, monkeypatch):
    progress = Progress(tmp_path, TOTALS, stats, io.StringIO())
    for setting, seconds in {"off": None, "0.5": 0.5, "": 15.0, "nonsense": 15.0}.items():
        monkeypatch.setenv("CUESHEET_PROGRESS", setting)
        assert progress.every_s() == seconds


def test_a_closed_terminal_ends_the_progress_line_but_not_the_run(tmp_path):
    out = io.StringIO()
    progress = Progress(tmp_path, TOTALS, lambda: stats(calls=1), out)
    out.close()
    assert progress.print() is False


def test_totals_of_a_config_file_are_plain_json(tmp_path):
    assert count_done(tmp_path, json.loads(json.dumps(TOTALS))).finished == 0


def test_only_answered_calls_are_counted_and_trouble_is_said(tmp_path):
    times = iter([0.0, 10.0])
    hanging = stats(calls=20, in_flight=12, waiting=8, retries=3)
    line = Progress(tmp_path, TOTALS, lambda: hanging, clock=lambda: next(times)).line()
    assert "0.0 calls/s" in line
    assert "20 pending | 3 retries" in line


async def test_the_rate_is_never_negative_while_requests_are_read(tmp_path):
    """A request that has arrived but waits for nothing yet is not a completed one."""
    now = [0.0]
    async with (
        serving(lambda body, n: completion("x")) as server,
        gateway_before(tmp_path, server.url) as gateway,
    ):
        progress = Progress(
            tmp_path, TOTALS, gateway.gateway.snapshot, io.StringIO(), clock=lambda: now[0]
        )
        requests = [asyncio.create_task(gateway.ask(chat(str(n)))) for n in range(50)]
        rates = []
        while not all(request.done() for request in requests):
            now[0] += 1.0
            rates += re.findall(r"(\S+) calls/s", progress.line() or "")
            await asyncio.sleep(0)
        now[0] += 1.0
        rates += re.findall(r"(\S+) calls/s", progress.line() or "")
    assert gateway.counters.completed == 50
    assert rates
    assert min(map(float, rates)) >= 0.0
