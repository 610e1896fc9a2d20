"""Compares the estimate of a run with what a real vLLM counted, per prompt.

    python benchmarks/estimate_accuracy.py [--dataset FOLDER ...] [--episodes 2] [--minutes 10]

It needs .venv-vllm, the vLLM for the CPU (`make vllm`), and takes a few minutes per dataset. The
datasets are the demo, those of `--dataset`, and one long episode. Tokens are those that the server
counted in its prompts.

The model is tiny and has random weights: it often repeats a visual question and writes labels that
are too long, which are requested once more. These second requests, which depend on the model, are
listed apart. Requests that depend on no reply should be within 5 % of the estimate, all others
within its range.

Random times are rarely within a window of the long episode, so its plan fails after descriptions of
its windows were requested. These are compared request by request, by the times of their window. For
the other requests of the long episode, the subtasks are given (5 s each).
"""

import argparse
import contextlib
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import long_episodes
import yaml
from measuring import REPOSITORY, Target, publish

sys.path.insert(0, str(REPOSITORY / "tests"))
from real_servers import make_model, vllm_settings
from workflow_runs import Workdir, estimate_of

from cuesheet.config import prompt_files
from cuesheet.vlm.prompts import Prompts
from cuesheet.vlm.token_counts import token_counter
from cuesheet.workflow.estimate import Estimate
from cuesheet.workflow.load import load_run
from cuesheet.workflow.rehearsed_episode import rehearse_episode

DEMO = REPOSITORY / "data" / "demo_v3"
TOLERANCE = 0.05
# Requests that depend on the frames and the task alone.
INDEPENDENT = ("plan_describe", "plan_rephrase", "interjections_acknowledge", "vqa_")
# A long episode has thousands of visual questions, which are all alike.
LONG_VQA_HZ = 0.05
LONG_SUBTASK_S = 5


@dataclass
class Counted:
    """What a run sent: requests and prompt tokens by prompt, second requests apart."""

    requests: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    again_requests: int = 0
    again_tokens: int = 0


def calls_in(results: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of the requests of all stage files."""
    for stage in ("plan", "interjections", "vqa"):
        for path in sorted((results / stage).glob("*.json")):
            yield from json.loads(path.read_text())["provenance"]["calls"]


def count(results: Path, cache: Path) -> Counted:
    """Count what was sent to the server for the files below a dataset's results folder."""
    found = Counted()
    seen: set[str] = set()
    for call in calls_in(results):
        if call["cache_hit"] or call["key"] in seen:
            continue
        seen.add(call["key"])
        entry = json.loads((cache / call["key"][:2] / f"{call['key']}.json").read_text())
        first = entry["reply"]["usage"]["prompt_tokens"]
        if call["name"].endswith(" again"):
            found.again_requests += call["attempts"]
            found.again_tokens += call["prompt_tokens"]
            continue
        found.requests[call["prompt"]] += 1
        found.tokens[call["prompt"]] += first
        found.again_requests += call["attempts"] - 1
        found.again_tokens += call["prompt_tokens"] - first
    return found


def measure(folder: Path, model: Path, dataset: Path, **settings: Any) -> tuple[Estimate, Counted]:
    """Estimate a run, do it, and count what was sent."""
    work = Workdir(folder / f"work-{dataset.name}")
    work.configure(dataset=str(dataset), vlm=vllm_settings(model), **settings)
    estimate = estimate_of(work)
    work.run()
    return estimate, count(work.path / "results" / dataset.name, work.path / ".cache" / "vlm")


def compare(estimate: Estimate, counted: Counted) -> tuple[list[str], list[Target]]:
    """Return the rows of a table and the targets of one dataset."""
    rows, targets = [], []
    for name, amount in estimate.prompts.items():
        if not amount.requests and not counted.requests[name]:
            continue
        apart = counted.tokens[name] / amount.prompt_tokens - 1 if amount.prompt_tokens else 1.0
        rows.append(
            f"| {estimate.dataset} | `{name}` | {amount.requests:,.0f} | {counted.requests[name]:,}"
            f" | {amount.prompt_tokens:,.0f} | {counted.tokens[name]:,} | {apart:+.1%} |"
        )
        if name.startswith(INDEPENDENT):
            label = f"{estimate.dataset} {name}: |estimate - counted|"
            targets.append(Target(label, abs(apart), TOLERANCE, at_most=True))
    for stage, amounts in estimate.stages.items():
        names = [name for name in counted.tokens if name.split("_")[0].startswith(stage[:4])]
        tokens = sum(counted.tokens[name] for name in names)
        low, high = amounts.low.prompt_tokens, amounts.high.prompt_tokens
        is_inside = low <= tokens <= high
        rows.append(
            f"| {estimate.dataset} | {stage}, all | | | {low:,.0f} to {high:,.0f} | {tokens:,} | "
            f"{'inside' if is_inside else 'outside'} |"
        )
        targets.append(Target(f"{estimate.dataset} {stage}: in range", float(is_inside), 1))
    rows.append(
        f"| {estimate.dataset} | second requests | | {counted.again_requests:,} | | "
        f"{counted.again_tokens:,} | |"
    )
    return rows, targets


def long_episode(folder: Path, minutes: float) -> tuple[Path, dict[str, Any]]:
    """Make a dataset of one long episode. Return it and its settings."""
    long_episodes.make_dataset(folder / "long", minutes, 1)
    starts = range(0, round(minutes * 60), LONG_SUBTASK_S)
    spans = [
        {"start_s": start, "label": f"move block {start // LONG_SUBTASK_S}"} for start in starts
    ]
    correction = {"format": 1, "dataset": "long", "episode_index": 0, "subtasks": spans}
    path = folder / "corrections" / "long" / "000000.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(correction))
    settings = {"vqa": {"hz": LONG_VQA_HZ}, "corrections_dir": str(folder / "corrections")}
    return folder / "long", settings


def compare_descriptions(
    folder: Path, model: Path, dataset: Path
) -> tuple[list[str], list[Target]]:
    """Compare the descriptions of windows that were requested, whatever became of the plan."""
    work = Workdir(folder / "work-descriptions")
    work.configure(dataset=str(dataset), vlm=vllm_settings(model))
    assumed = described_windows(work, dataset.name)
    work.run(f"results/{dataset.name}/plan/000000.json", check=False)
    measured = described_windows(work, dataset.name)  # the run measured the recorded events
    counted = {}
    for path in (work.path / ".cache/vlm").glob("??/*.json"):
        entry = json.loads(path.read_text())
        form, messages = entry["request"]["response_format"], entry["request"]["messages"]
        if form["json_schema"]["name"] == "Description" and len(messages) == 2:  # no correction
            text = messages[1]["content"][-1]["text"]
            counted[window_of(text)] = entry["reply"]["usage"]["prompt_tokens"]
    rows = []
    for words, estimated in (("assumed", assumed), ("measured", measured)):
        expected, tokens = sum(estimated[window] for window in counted), sum(counted.values())
        apart = tokens / expected - 1
        rows.append(
            f"| {dataset.name} | `plan_describe`, events {words} | {len(estimated)} | "
            f"{len(counted)} | {expected:,.0f} of those sent | {tokens:,} | {apart:+.1%} |"
        )
    label = f"{dataset.name} plan_describe, events measured: |estimate - counted|"
    return rows, [Target(label, abs(apart), TOLERANCE, at_most=True)]


def described_windows(work: Workdir, name: str) -> dict[str, int]:
    """Return the estimated prompt tokens of each description of episode 0, by its window."""
    with contextlib.chdir(work.path):
        run = load_run(yaml.safe_load(Path("config/config.yaml").read_text()), REPOSITORY)
        dataset = run.dataset(name)
        files = (f"{prompt}.md" for prompt in prompt_files.of_stages(["plan"]))
        prompts = Prompts(dataset.prompts_dir / file for file in files)
        requests = rehearse_episode(run, dataset, 0, prompts, LONG_SUBTASK_S, ["plan"])
    counter = token_counter(run.model, run.config.vlm.sampling.mm_processor_kwargs)
    return {
        window_of(request.texts[1]): counter.images(request.images) + counter.text(*request.texts)
        for request in requests
        if request.prompt == "plan_describe"
    }


def window_of(text: str) -> str:
    """Return the times of the window that a prompt is about."""
    return re.search(r"^Window: .+$", text, re.MULTILINE)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--dataset", type=Path, nargs="*", default=[], help="further datasets")
    parser.add_argument("--episodes", type=int, default=2, help="episodes of each of these")
    parser.add_argument("--minutes", type=float, default=10, help="length of the long episode")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    given = parser.parse_args()
    rows: list[str] = []
    targets: list[Target] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cuesheet-accuracy-")))
        model = make_model(folder / "tiny-qwen2.5-vl")
        runs: list[tuple[Path, dict[str, Any]]] = [(DEMO, {})]
        some = {"episodes": f"0-{given.episodes - 1}"}
        runs += [(path.resolve(), some) for path in given.dataset]
        if given.minutes:
            runs.append(long_episode(folder, given.minutes))
            rows, targets = compare_descriptions(folder, model, runs[-1][0])
            print("\n".join(rows), flush=True)
        for dataset, settings in runs:
            found_rows, found_targets = compare(*measure(folder, model, dataset, **settings))
            rows += found_rows
            targets += found_targets
            print("\n".join(found_rows), flush=True)
    header = ["dataset", "prompt", "requests", "sent", "prompt tokens", "counted", "difference"]
    print(f"\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    print("\n".join(rows))
    publish("estimate_accuracy", targets, {"rows": rows}, given.json)


if __name__ == "__main__":
    main()
