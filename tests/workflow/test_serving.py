"""Model servers as the person at the terminal meets them: progress, causes, and keys unseen."""

import json
import os
import re
import sys
import threading

import pytest
from processes import PATIENCE_S, processes_in

from cuesheet.artifacts.stage_files import STAGES

pytestmark = pytest.mark.workflow

KEY = "sk-secret-7f3a9c51e2"

DIES = """
import sys, time
print("INFO 11-21 12:19:11 [loader.py:7] Loading weights 50%", flush=True)
open(sys.argv[1], "a").write("x")
time.sleep(3)
sys.exit(sys.argv[2])
"""


def managed(work, dataset, **settings):
    work.configure(
        dataset=str(dataset),
        episodes=[1],
        interjections={"enabled": False},
        vlm={"serve": "managed", "model": "some/model", "managed": settings},
    )


@pytest.mark.parametrize(
    ("ending", "cause", "starts"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory.", "out of memory: choose a smaller model", 1),
        ("OSError: [Errno 98] Address already in use", "its port was taken", 4),
    ],
    ids=["memory", "port"],
)
def test_a_server_that_cannot_start_ends_the_run_with_the_cause(
    work, demo_v3, monkeypatch, ending, cause, starts
):
    (work.path / "dies.py").write_text(DIES)
    command = [sys.executable, "dies.py", "starts", ending, "{port}"]
    managed(work, demo_v3, command=command)
    monkeypatch.setattr(work, "environment", lambda: {**os.environ, "CUESHEET_PROGRESS": "0.2"})
    done = work.run("--keep-going", check=False)
    assert done.returncode != 0
    # While one waits, one sees what it does.
    assert re.search(r"cuesheet: replica-0 starting, \d s: Loading weights 50%", done.output)
    said = [line for line in done.output.splitlines() if line.startswith("cuesheet: the model")]
    assert len(said) == 1
    assert cause in said[0]
    assert ending in said[0]
    assert (work.path / "starts").read_text() == "x" * starts
    assert processes_in(work.path) == []


def test_a_python_without_the_server_ends_the_run_with_the_cause(work, demo_v3):
    managed(work, demo_v3, python=sys.executable)
    done = work.run(check=False)
    assert done.returncode != 0
    assert "a Python package is missing" in done.output
    assert "No module named" in done.output


def test_a_run_that_has_used_up_its_budget_ends_and_the_next_one_continues(
    work, demo_v3, counting_server
):
    vlm = counting_server.vlm
    work.configure(dataset=str(demo_v3), episodes=[1], vlm={**vlm, "budget": {"requests": 5}})
    done = work.run(check=False)
    assert done.returncode != 0
    assert "vlm.budget.requests is used up: 5 of 5" in done.output
    assert len(counting_server.answered) == 5
    assert len(list((work.path / ".cache/vlm").rglob("*.json"))) == 5
    assert processes_in(work.path) == []

    work.configure(dataset=str(demo_v3), episodes=[1], vlm=vlm)
    output = work.run().output
    asked = [json.dumps(body, sort_keys=True) for body in counting_server.answered]
    assert len(asked) == len(set(asked)) > 5
    # Stages that the first run finished are not in the estimate, cached replies are.
    sent, low, high = re.search(
        r"this run sent (\d+) requests: .*estimated: \d+ \((\d+) to (\d+)\) requests", output
    ).groups()
    assert int(sent) == len(asked) - 5
    assert int(low) <= int(sent) + 5
    assert int(sent) <= int(high)


def files_with_key(folder):
    return [p for p in folder.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


def test_the_key_of_an_external_server_is_nowhere_to_be_seen(
    work, demo_v3, counting_server, monkeypatch
):
    """Not in a result, log, cache entry or file of the run, nor on the terminal, all told."""
    refused = []

    def answer(request):
        # It repeats the key wherever it can: in refusals, in replies.
        if len(counting_server.asked) % 7 == 3:
            return 503, json.dumps({"error": {"message": f"no slot for {KEY}"}}).encode()
        if refused:
            return 403, f"the key {KEY} is blocked".encode()
        return None

    counting_server.answer_instead = answer
    settings = {
        **counting_server.vlm,
        "api_key_env": "SOME_MODEL_KEY",
    }
    work.configure(dataset=str(demo_v3), episodes=[1], vlm=settings)
    environment = {**os.environ, "SOME_MODEL_KEY": KEY, "CUESHEET_PROGRESS": "0.2"}
    monkeypatch.setattr(work, "environment", lambda: environment)
    output = work.run("--verbose", "--printshellcmds").output
    assert set(counting_server.authorizations) == {f"Bearer {KEY}"}
    assert all((work.path / f"results/demo_v3/{stage}/000001.json").exists() for stage in STAGES)
    log = "".join(p.read_text() for p in work.path.rglob("supervisor.log"))
    assert "no slot for ***" in log
    assert KEY not in output
    assert files_with_key(work.path) == []

    refused.append(True)
    work.configure(dataset=str(demo_v3), episodes=[2], vlm=settings)
    done = work.run("--verbose", "--printshellcmds", check=False)
    assert done.returncode != 0
    assert "the key *** is blocked" in done.output
    assert KEY not in done.output
    assert files_with_key(work.path) == []


def test_jobs_that_wait_for_the_model_take_no_core_from_others(work, demo_v3, counting_server):
    """On one core all four episodes are decoded and asked about while no reply has come yet."""
    asked, all_four = set(), threading.Event()

    def answer(request):
        image = request["messages"][1]["content"][0]["image_url"]["url"]
        if request["response_format"]["json_schema"]["name"] == "Description":
            asked.add(image)
        if len(asked) == 4:
            all_four.set()
        return None if all_four.wait(PATIENCE_S) else (400, b"not all of them asked")

    counting_server.answer_instead = answer
    work.configure(
        dataset=str(demo_v3),
        interjections={"enabled": False},
        vqa={"enabled": False},
        plan={"rephrasings": {"mode": "off"}},
        vlm=counting_server.vlm,
    )
    work.run("--cores", "1")
    assert len(asked) == 4
