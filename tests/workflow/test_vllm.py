"""A real vLLM with a tiny random model, started, watched and ended by the run.

The model writes random words. So nothing is said here about what they mean: only that replies have
the form that was asked for, that the rows hold what must always hold, and that no process stays.
"""

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest
from processes import command_of, descendants, processes_in
from real_servers import (
    EPISODE,
    PATIENCE_S,
    PYTHON,
    assert_complete,
    calls_of,
    eventually,
    make_model,
    run_folder,
    vllm_settings,
)
from workflow_runs import Workdir, estimate_of

from cuesheet.workflow.estimate import Estimate

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.workflow,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-vllm; run: make vllm"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny-qwen2.5-vl")


def configure(
    work: Workdir, model: Path | str, dataset: Path, serve: str = "managed", **changes: object
) -> None:
    chosen = {"episodes": [EPISODE], **changes}
    work.configure(dataset=str(dataset), vlm=vllm_settings(model, serve), **chosen)


def model_servers_in(folder: Path) -> list[psutil.Process]:
    """The processes of vLLM itself that were started by a command line."""
    return [process for process in processes_in(folder) if is_model_server(process)]


def is_model_server(process: psutil.Process) -> bool:
    words = command_of(process)
    is_guard = any(word.endswith("process_guard.py") for word in words)
    return "vllm.entrypoints.openai.api_server" in words and not is_guard


def cached_of_segment(work: Workdir) -> tuple[int, int]:
    """Tokens of the calls that segment, and how many of them vLLM had from the calls before."""
    prompt = cached = 0
    for call in (call for call in calls_of(work) if call["name"].startswith("segment")):
        entry = work.json(f".cache/vlm/{call['key'][:2]}/{call['key']}.json")
        usage = entry["reply"]["usage"]
        prompt += usage["prompt_tokens"]
        cached += usage["prompt_tokens_details"]["cached_tokens"]
    return prompt, cached


def test_the_demo_is_annotated_and_every_reply_fits_at_once(work, model, demo_v3):
    plan = {"relabel": "span", "label_candidates": 3, "rephrasings": {"mode": "axes"}}
    configure(work, model, demo_v3, plan=plan, episodes=None)
    estimate = estimate_of(work)
    output = work.run().output
    assert_complete(work, demo_v3, range(4))
    calls = calls_of(work)
    selected = [call for call in calls if call["prompt"] == "plan_select_label"]
    assert len(selected) == sum(call["prompt"] == "plan_relabel" for call in calls) > 0
    assert {call["prompt"] for call in calls} >= {"plan_describe", "plan_segment"}
    at_once = [call for call in calls if is_read_at_once(call)]
    asked = [call for call in calls if not call["cache_hit"]]
    print(f"\n{len(calls)} calls, {len(asked)} asked of vLLM; read at the first attempt: ", end="")
    print(f"{sum(call in at_once for call in asked)}")
    assert [call for call in asked if call not in at_once] == []
    assert processes_in(work.path) == []
    assert "failed" not in output

    # The second question about the same images finds them in the server's cache.
    prompt, cached = cached_of_segment(work)
    assert cached > prompt / 2
    counted = (run_folder(work) / "replica-0.metrics.txt").read_text()
    hits = float(re.search(r"^vllm:prefix_cache_hits_total\{.*\} (\S+)", counted, re.M)[1])
    queries = float(re.search(r"^vllm:prefix_cache_queries_total\{.*\} (\S+)", counted, re.M)[1])
    assert hits >= cached
    print(f"prefix cache, segment after describe: {cached} of {prompt} tokens, ", end="")
    print(f"{cached / prompt:.1%}; all calls (/metrics): {hits / queries:.1%}")
    print((run_folder(work) / "supervisor.log").read_text())
    check_estimate(estimate, asked)


def is_read_at_once(call: dict) -> bool:
    """Whether the first reply had the form of the schema; a random model writes long texts."""
    if call["outcome"] == "ok" and call["attempts"] == 1:
        return True
    complaints = ("a label has at most", "memory has at most", "every label is written once")
    complaints += ("labels has several different labels",)
    return (call["error"] or "").startswith(complaints)


def test_the_schemas_of_all_switches_are_obeyed(work, model, demo_v3):
    """A second look, candidates of labels from drafted lists, several questions, inspections."""
    plan = {"second_look": True, "relabel": "neighbors", "label_candidates": 3}
    plan |= {"vocabulary": "auto", "memory": False, "rephrasings": {"mode": "off"}}
    plan |= {"samples": 8}  # random times are often outside the window
    configure(
        work,
        model,
        demo_v3,
        plan=plan,
        episodes=[0, 3],  # of one task
        vqa={"frames": 3, "per_call": 3, "hz": 0.5, "cameras": "default", "max_invalid": 1},
        interjections={"enabled": False},
        inspect={"enabled": True},
    )
    work.run()
    assert_complete(work, demo_v3, [0, 3])
    (labels,) = (work.path / "results/demo_v3/vocabulary").glob("*.json")
    vocabulary = json.loads(labels.read_text())
    assert vocabulary["labels"]
    for episode in (0, 3):
        used = work.json(f"results/demo_v3/plan/{episode:06d}.json")["vocabulary"]
        assert used["labels"] == vocabulary["labels"]
    calls = recorded_calls(work)
    found = Counter(call["prompt"] for call in calls)
    obeyed = Counter(call["prompt"] for call in calls if is_read_at_once(call) or is_blank(call))
    parsed = Counter(call["prompt"] for call in calls if call["outcome"] in ("ok", "retried"))
    print(f"\n{sum(map(is_blank, calls))} replies with a text of spaces alone, requested again")
    for name in sorted(found):
        print(f"{name}: {obeyed[name]} of {found[name]} obey the schema, {parsed[name]} are read")
    assert found.keys() >= {
        *("vocabulary_draft", "vocabulary_build", "plan_segment", "plan_second_look"),
        # Of a list with one label, this model repeats one candidate, so nothing is selected here.
        *("plan_relabel", "vqa_frame", "inspect_subtask", "inspect_episode"),
    }
    assert obeyed == parsed == found
    assert processes_in(work.path) == []


def recorded_calls(work: Workdir) -> list[dict]:
    """The records of all calls in the files of the demo, whichever rule made them."""
    files = (work.path / "results/demo_v3").glob("*/**/*.json")
    records = [json.loads(path.read_text()) for path in files]
    found = [one.get("provenance", {}) for one in records if isinstance(one, dict)]
    return [call for provenance in found for call in provenance.get("calls", [])]


def is_blank(call: dict) -> bool:
    """Whether a reply had the form of the schema, which cannot exclude a text of spaces alone."""
    return "String should have at least 1 character (got ' " in (call["error"] or "")


def check_estimate(estimate: Estimate, asked: list[dict]) -> None:
    """Compare an estimate with the prompt tokens that the server counted.

    Requests that depend on no reply are within 5 %, all together within the range. A random model
    repeats itself; what was requested once more because of that does not count.
    """
    assert estimate.notices == ("subtasks are assumed to take 5 s",)
    counted, requests = Counter(), Counter()
    for call in asked:
        if not call["name"].endswith(" again"):
            counted[call["prompt"]] += call["prompt_tokens"]
            requests[call["prompt"]] += 1
    print(f"\n{'prompt':<26}{'requests':>9}{'estimate':>9}{'tokens':>9}{'estimate':>9}")
    for name, amount in estimate.prompts.items():
        print(f"{name:<26}{requests[name]:>9}{amount.requests:>9.0f}", end="")
        print(f"{counted[name]:>9}{amount.prompt_tokens:>9.0f}")
    for name in counted:
        expected = estimate.prompts[name]
        if name.startswith(("plan_describe", "plan_rephrase", "interjections_acknowledge")):
            assert expected.requests == requests[name], name
            # The table of recorded events is not known before the run.
            share = 0.1 if name == "plan_describe" else 0.05
            assert expected.prompt_tokens == pytest.approx(counted[name], rel=share), name
        elif name.startswith("vqa_"):
            each = expected.prompt_tokens / expected.requests
            assert each == pytest.approx(counted[name] / requests[name], rel=0.05), name
    plan = estimate.stages["plan"]
    tokens = sum(counted[name] for name in counted if name.startswith("plan_"))
    assert 0.95 * plan.low.prompt_tokens <= tokens <= 1.05 * plan.high.prompt_tokens


def test_a_model_that_is_not_there_ends_the_run_with_the_cause(work, demo_v3):
    configure(work, "no-such/model", demo_v3, interjections={"enabled": False})
    done = work.run(check=False)
    assert done.returncode != 0
    (said,) = [line for line in done.output.splitlines() if line.startswith("cuesheet: the model")]
    assert "the model does not exist under this name (vlm.model)" in said
    assert processes_in(work.path) == []
    print((run_folder(work) / "supervisor.log").read_text())


def test_the_same_without_a_server_of_vllm(work, model, demo_v3):
    """Batches of the offline entry point, in one process."""
    plan = {"second_look": False, "relabel": "off"}
    configure(work, model, demo_v3, serve="vllm-batch", episodes=[0, 1], plan=plan, vqa={"hz": 2})
    work.run()
    assert_complete(work, demo_v3, [0, 1])
    asked = [call for call in calls_of(work) if not call["cache_hit"]]
    assert [call for call in asked if not is_read_at_once(call)] == []
    assert processes_in(work.path) == []
    log = (run_folder(work) / "replica-0.log").read_text()
    sizes = [int(size) for size in re.findall(r"answered (\d+) calls at once", log)]
    # The check of the server, and the corrections of labels that are too long.
    assert sum(sizes) == sum(call["attempts"] for call in asked) + 1
    assert max(sizes) >= 8
    prompt, cached = cached_of_segment(work)
    assert cached > prompt / 2
    print(f"\n{len(asked)} calls in {len(sizes)} batches, the largest of {max(sizes)}; ", end="")
    print(f"segment after describe: {cached / prompt:.1%} of tokens cached")
    print((run_folder(work) / "supervisor.log").read_text())


def test_clips_are_taken_and_a_killed_vllm_is_replaced_in_the_middle_of_a_run(work, model, demo_v3):
    configure(
        work, model, demo_v3, plan={"frames": {"mode": "clip"}}, vqa={"hz": 5, "types": ["count"]}
    )
    run = work.start()
    replies = work.path / ".cache" / "vlm"
    eventually(lambda: len(list(replies.rglob("*.json"))) >= 3, run)
    (server,) = model_servers_in(work.path)
    keys = {server.parent().environ()["VLLM_API_KEY"]}
    server.kill()
    eventually(lambda: [p for p in model_servers_in(work.path) if p.pid != server.pid], run)
    (after,) = model_servers_in(work.path)
    keys.add(after.parent().environ()["VLLM_API_KEY"])
    assert run.wait(PATIENCE_S) == 0
    assert_complete(work, demo_v3, [EPISODE])
    calls = calls_of(work)
    assert len(calls) > 30
    assert {call["outcome"] for call in calls} == {"ok"}
    assert processes_in(work.path) == []
    assert "restart 1 of 3" in (run_folder(work) / "supervisor.log").read_text()
    # The servers' keys are in no file, their own logs included.
    assert len(keys) == 2
    for path in work.path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [key for key in keys if key.encode() in content], path


def test_no_process_of_vllm_survives_if_its_supervisor_is_killed(work, model, demo_v3):
    """The attacks on runs (tests/attack/kills.py) also kill Snakemake and the process guard."""
    configure(work, model, demo_v3)
    run = work.start()
    # vLLM, its engine core, its worker and more are there, below the process guard.
    eventually(
        lambda: [p for p in model_servers_in(work.path) if len(descendants(p)) >= 2],
        run,
    )
    pid = work.json(str(run_folder(work).relative_to(work.path) / "server.json"))["pid"]
    os.kill(pid, signal.SIGKILL)
    assert run.wait(PATIENCE_S) != 0
    eventually(lambda: processes_in(work.path) == [])
