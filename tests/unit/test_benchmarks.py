"""The measures of the benchmarks: their numbers are those that a hand works out."""

import json
import sys

import pytest


@pytest.fixture(scope="module", autouse=True)
def benchmarks_are_importable(repository):
    sys.path.insert(0, str(repository / "benchmarks"))
    yield
    sys.path.remove(str(repository / "benchmarks"))


def test_shares_of_the_slots_by_hand():
    from slot_server import shares

    # Both slots from 1 to 4 s and from 5 to 8 s of 10 s; one in all the rest.
    found = shares([(0, 1), (1, 2), (4, 1), (5, 2), (8, 1), (10, 0)], 2)
    assert found["span_s"] == 10
    assert found["ramp_s"] == 1
    assert found["used"] == pytest.approx(16 / 10 / 2)
    assert found["used_with_work"] == pytest.approx(14 / 8 / 2)


def test_slots_that_were_never_all_in_use_have_no_time_with_work():
    from slot_server import shares

    found = shares([(0, 1), (4, 0)], 2)
    assert found["used"] == pytest.approx(0.5)
    assert found["used_with_work"] == 0


def test_both_ways_send_every_request_of_every_episode_once(monkeypatch):
    import server_fill

    monkeypatch.setenv("CUESHEET_PROGRESS", "off")
    found = server_fill.measure(slots=4, reply_s=0.02, episodes=2, jobs=2)
    assert found["calls"] == 2 * server_fill.CALLS
    assert found["plain"]["calls"] == 2 * server_fill.CALLS
    assert 0 < found["used"] <= 1
    assert found["wall_s"] >= found["calls"] * 0.02 / 4


def test_a_server_repeats_what_another_one_answered():
    import urllib.request

    import slot_server

    def ask(base_url: str, body: bytes) -> bytes:
        request = urllib.request.Request(f"{base_url}/chat/completions", data=body)
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read()

    with (
        slot_server.running(0.01, 1) as upstream,
        slot_server.running(0.01, 1, upstream=upstream.base_url) as server,
    ):
        answers = [ask(server.base_url, body) for body in (b'{"a": 1}', b'{"a": 2}', b'{"a": 1}')]
        assert answers[0] == answers[2]
        assert upstream.stats()["calls"] == 2
        assert server.stats()["recorded"] == 2


def test_the_check_of_the_server_is_not_a_request_of_a_job():
    import urllib.request

    import slot_server

    from cuesheet.serving.server_check import CheckRequest

    with slot_server.running(0.01, 1) as server:
        for body in (CheckRequest("m").body(), {"a": 1}, {"a": 2}):
            data = json.dumps(body).encode()
            urllib.request.urlopen(f"{server.base_url}/chat/completions", data, timeout=30).close()
        stats = server.stats()
    assert stats["calls"] == 3
    assert stats["first_of_jobs_at"] >= stats["first_at"] + 0.01
    assert stats["used"] < 1
    assert stats["used_by_jobs"] > stats["used"]


def test_the_size_of_a_request_by_hand():
    import base64
    import io
    import json

    from PIL import Image
    from request_size import size_of

    file = io.BytesIO()
    Image.new("RGB", (280, 56)).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    content = [image, {"type": "text", "text": "x" * 44}]
    messages = [{"role": "system", "content": "y" * 40}, {"role": "user", "content": content}]
    assert size_of(json.dumps({"messages": messages}).encode()) == {
        "images": 1,
        "image_bytes": len(file.getvalue()),
        "image_tokens": 10 * 2,
        "text_tokens": 10 + 11,
    }


@pytest.mark.parametrize(
    ("prompt", "key"),
    [
        ('within [0.0, 6.0]\n  seconds\n{"subtasks": [...]}', "subtasks"),
        ('Generate exactly 3 alternatives\n{"rephrasings": []}', "rephrasings"),
        ('a question of type "bbox".\n{"question": "", "answer": {}}', "question"),
        ('{ "memory": "<sentences>" }', "memory"),
        ('{ "text": "<the spoken acknowledgement>" }', "text"),
    ],
)
def test_every_prompt_of_the_other_annotator_gets_a_reply_of_its_form(prompt, key):
    from lerobot_replies import reply_to

    reply = reply_to(prompt, subtask_s=2.0)
    assert key in reply
    if key == "subtasks":
        assert [part["start"] for part in reply[key]] == [0.0, 2.0, 4.0]
    with pytest.raises(ValueError, match="unknown prompt"):
        reply_to("Hello", subtask_s=2.0)


def test_cost_of_jobs_is_added_up_by_rule_for_the_last_run(tmp_path):
    import json

    from workflow_cost import jobs_of

    def record(run: str, *jobs: tuple[str, float, float]) -> None:
        lines = [
            {"benchmark": f"/w/results/d/benchmarks/{name}.tsv", "cpu_s": cpu_s, "max_rss_mb": mb}
            for name, cpu_s, mb in jobs
        ]
        folder = tmp_path / ".cuesheet" / "runs" / run
        folder.mkdir(parents=True)
        (folder / "job_usage.jsonl").write_text("\n".join(map(json.dumps, lines)))

    assert jobs_of(tmp_path) == {}
    record("1", ("extract_clip/front/000000", 9.0, 1.0))
    record(
        *("2", ("extract_clip/front/000000", 1.0, 50.0), ("extract_clip/front/000001", 2.5, 70.0)),
        ("write_report", 0.5, 90.0),
    )
    assert jobs_of(tmp_path) == {
        "extract_clip": {"count": 2, "cpu_s": 3.5, "peak_mb": 70.0},
        "write_report": {"count": 1, "cpu_s": 0.5, "peak_mb": 90.0},
    }


def test_a_target_is_reached_at_its_bound():
    from measuring import Target

    assert Target("more", 2.0, 2.0).reached
    assert not Target("more", 1.99, 2.0).reached
    assert Target("less", 2.0, 2.0, at_most=True).reached
    assert not Target("less", 2.01, 2.0, at_most=True).reached


def test_a_dataset_of_many_episodes_is_one_that_can_be_indexed(tmp_path):
    from datasets import many_episodes

    from cuesheet.dataset.index import build_index
    from cuesheet.dataset.metadata import read_dataset

    dataset = read_dataset(many_episodes(tmp_path / "many", 10), "many")
    table, _ = build_index(dataset)
    assert table.column("episode_index").to_pylist() == list(range(10))
    assert table.column("length").to_pylist() == [75, 46, 76, 72, 75, 46, 76, 72, 75, 46]


def test_the_server_says_when_its_first_request_came():
    import time
    import urllib.request

    import slot_server

    with slot_server.running(0.01, 1) as server:
        before = time.monotonic()
        request = urllib.request.Request(f"{server.base_url}/chat/completions", data=b"{}")
        urllib.request.urlopen(request, timeout=30).close()
        assert before <= server.stats()["first_at"] <= time.monotonic()


def test_the_length_of_a_prompt_does_not_count_its_template_tags():
    from prompt_lengths import prompts_now, tokens

    text = "Pick one of these colors: red, green or blue."
    assert tokens(f"{{% if task %}}\n{text}{{{{ task }}}}\n{{% endif %}}") == tokens(text) == 11
    assert {"system", "plan_segment", "vocabulary_draft"} <= prompts_now().keys()
