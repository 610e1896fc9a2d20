"""`cuesheet retry`: the next run requests invalid replies again, and nothing else."""

import json
import subprocess
import sys

import pytest
from chat_server import completion

pytestmark = pytest.mark.workflow

GARBAGE = json.dumps(completion("I cannot see that.")).encode()


def test_an_invalid_reply_is_requested_again_after_cuesheet_retry(
    workdir, counting_server, demo_v3
):
    def garbage_for_one_question(body):
        """Reply garbage to the first visual question and to its correction."""
        if not body["response_format"]["json_schema"]["name"].endswith("QA"):
            return None
        question = json.dumps(body["messages"][:2])
        spoiled.append(question)
        return (200, GARBAGE) if question == spoiled[0] else None

    spoiled: list[str] = []
    counting_server.answer_instead = garbage_for_one_question
    workdir.configure(
        dataset=str(demo_v3),
        episodes="0",
        vlm=counting_server.vlm,
    )
    first = workdir.run()
    assert "invalid replies in episode 0: run `cuesheet retry demo_v3`" in first.output
    summary = workdir.json("results/demo_v3/summary.json")
    assert summary["calls"]["invalid"] == 1
    sent = len(counting_server.asked)
    pairs = len(workdir.json("results/demo_v3/vqa/000000.json")["pairs"])

    counting_server.answer_instead = lambda body: None
    command = [sys.executable, "-m", "cuesheet.app.cli", "retry", "demo_v3"]
    done = subprocess.run(command, cwd=workdir.path, capture_output=True, text=True)
    assert "vqa of episode 0. 2 cached responses will be requested again" in done.stdout
    workdir.run()
    assert len(counting_server.asked) == sent + 1
    assert len(workdir.json("results/demo_v3/vqa/000000.json")["pairs"]) == pairs + 1
    assert workdir.json("results/demo_v3/summary.json")["calls"]["invalid"] == 0
