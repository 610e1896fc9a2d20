"""Labels that the model drafts for each task, in whole runs of the workflow."""

import json
import shutil
from collections import Counter

import pytest
from chat_server import completion
from workflow_runs import REPOSITORY, Workdir, name_of

pytestmark = pytest.mark.workflow

AUTO = {"vocabulary": "auto"}
PUCK = "Pick and place a puck to a goal"
PLANS = [f"plan/{number:06d}.json" for number in range(4)]


def configure(work: Workdir, demo_v3, **settings) -> None:
    off = {"enabled": False}
    work.configure(dataset=str(demo_v3), vqa=off, interjections=off, **{"plan": AUTO, **settings})


@pytest.fixture(scope="module")
def drafted(tmp_path_factory, demo_v3) -> Workdir:
    """The demo with drafted labels; tests copy it and do not change it."""
    work = Workdir(tmp_path_factory.mktemp("drafted") / "work")
    configure(work, demo_v3)
    jobs = work.run().jobs
    assert (jobs["draft_vocabulary"], jobs["build_vocabulary"], jobs["annotate_plan"]) == (4, 3, 4)
    return work


def lists_of(work: Workdir) -> dict[str, bytes]:
    folder = work.path / "results/demo_v3/vocabulary"
    return {path.name: path.read_bytes() for path in folder.glob("*.json")}


def subtasks_of(work: Workdir) -> list:
    return [work.json(f"results/demo_v3/{name}")["subtasks"] for name in PLANS]


def test_all_episodes_of_a_task_have_the_labels_of_its_list(drafted):
    lists = {one["task"]: one for one in map(json.loads, lists_of(drafted).values())}
    assert len(lists) == 3
    assert list(lists[PUCK]["drafts"]) == ["000000", "000003"]
    for name in PLANS:
        plan = drafted.json(f"results/demo_v3/{name}")
        task = plan["vocabulary"]["task"]
        assert plan["vocabulary"]["labels"] == lists[task]["labels"]
        assert {part["label"] for part in plan["subtasks"]} <= set(lists[task]["labels"])
    # Without the list, the same step has other words in another recording.
    assert len(lists[PUCK]["labels"]) < len(
        {label for labels in lists[PUCK]["drafts"].values() for label in labels}
    )


def test_the_summary_and_the_report_say_how_many_labels_there_are(drafted):
    summary = drafted.json("results/demo_v3/summary.json")
    (puck,) = [one for one in summary["vocabulary"] if one["task"] == PUCK]
    assert puck["drafts"] == 2
    assert puck["drafted_labels"] > len(puck["labels"]) >= puck["used_labels"] > 0
    assert puck["own_labels"] == {}
    line = f"{PUCK}: {puck['used_labels']} distinct labels, list of {len(puck['labels'])} made of"
    assert line in (drafted.path / "results/demo_v3/summary.txt").read_text()
    assert (
        "<h2>Labels of each task</h2>" in (drafted.path / "results/demo_v3/report.html").read_text()
    )
    # 4 drafts and 3 lists are counted like the requests of the plans.
    requests = sum(
        len(drafted.json(f"results/demo_v3/{name}")["provenance"]["calls"]) for name in PLANS
    )
    assert summary["calls"]["total"] == requests + 7


def test_nothing_is_left_to_do_and_the_order_of_jobs_does_not_matter(drafted, tmp_path, demo_v3):
    work = drafted.copy_to(tmp_path / "copy")
    assert "Nothing to be done" in work.run("--dry-run").output
    other = Workdir(tmp_path / "other")
    configure(other, demo_v3)
    # The last episode first, alone, and without any cached response.
    other.run("--cores", "1", "results/demo_v3/vocabulary/drafts/000003.json")
    other.run("--cores", "4", "--scheduler", "greedy", *[f"results/demo_v3/{p}" for p in PLANS])
    assert lists_of(other) == lists_of(drafted)
    assert subtasks_of(other) == subtasks_of(drafted)


def test_a_changed_prompt_makes_the_lists_again_and_the_plans_only_if_labels_change(
    drafted, tmp_path, demo_v3
):
    work = drafted.copy_to(tmp_path / "copy")
    prompts = tmp_path / "prompts"
    shutil.copytree(REPOSITORY / "config/prompts", prompts)
    configure(work, demo_v3, prompts_dir=str(prompts))
    work.run("annotations")
    before = lists_of(work)
    build = prompts / "vocabulary_build.md"
    build.write_text(build.read_text() + "\nMerge with care.\n")
    jobs = work.run("annotations").jobs
    assert jobs["build_vocabulary"] == 3
    assert "draft_vocabulary" not in jobs
    assert lists_of(work) == before
    draft = prompts / "vocabulary_draft.md"
    # The demo model takes the words of the task.
    draft.write_text(draft.read_text().replace("Task: {{ task", "Task: lift {{ task"))
    jobs = work.run("annotations").jobs
    assert jobs["draft_vocabulary"] == 4
    assert lists_of(work) != before
    plan = work.json("results/demo_v3/plan/000001.json")
    assert (
        plan["vocabulary"]["labels"]
        == work.json("results/demo_v3/vocabulary/open-a-drawer-872ed982.json")["labels"]
    )
    assert "Nothing to be done" in work.run("--dry-run", "annotations").output


def test_without_usable_drafts_the_plans_are_labeled_freely(tmp_path, demo_v3, counting_server):
    work = Workdir(tmp_path / "work")
    vlm = counting_server.vlm
    configure(work, demo_v3, vlm=vlm, episodes=[1, 2])

    def answer(request: dict) -> tuple[int, bytes] | None:
        is_draft = name_of(request) == "DraftedSteps" and "drawer" in json.dumps(request)
        return (200, json.dumps(completion('{"steps": []}')).encode()) if is_draft else None

    counting_server.answer_instead = answer
    work.run("results/demo_v3/summary.json")
    summary = work.json("results/demo_v3/summary.json")
    assert summary["episodes"]["annotated"] == 2
    drawer = work.json("results/demo_v3/vocabulary/open-a-drawer-872ed982.json")
    assert drawer["labels"] == []
    (warning,) = drawer["warnings"]
    assert (
        warning == "no draft of the task 'Open a drawer' has steps; its plans may have any labels"
    )
    plan = work.json("results/demo_v3/plan/000001.json")
    assert plan["subtasks"]
    assert any("has no drafted labels" in warning for warning in plan["warnings"])
    other = work.json("results/demo_v3/plan/000002.json")
    assert other["vocabulary"]["is_drafted"]
    assert summary["invalid_replies_in"] == [1]
    line = "no draft of the task 'Open a drawer' has steps; its plans may have any labels"
    assert line in (work.path / "results/demo_v3/summary.txt").read_text()


def test_shards_use_the_lists_of_one_job_that_runs_before_them(drafted, tmp_path, demo_v3):
    work = Workdir(tmp_path / "work")
    # The second shard has an episode of a task that is drafted in the first one.
    cluster = {"shards": "always", "episodes_per_shard": 2}
    configure(work, demo_v3, cluster=cluster)
    jobs = work.run("annotations").jobs
    assert (jobs["prepare_vocabulary"], jobs["annotate_shard"]) == (1, 2)
    assert lists_of(work) == lists_of(drafted)
    assert subtasks_of(work) == subtasks_of(drafted)
    assert (
        work.json("results/demo_v3/shards/vocabulary.json")["lists"].keys() == lists_of(work).keys()
    )
    assert "Nothing to be done" in work.run("--dry-run", "annotations").output


def test_all_jobs_of_a_sharded_run_share_its_budget_and_so_do_their_attempts(tmp_path, demo_v3):
    work = Workdir(tmp_path / "work")
    cluster = {"shards": "always", "episodes_per_shard": 2}
    # Four drafted episodes and two shards of two: a half and two quarters.
    configure(work, demo_v3, cluster=cluster, vlm={"budget": {"requests": 16}})
    done = work.run("--keep-going", "--retries", "1", check=False)
    assert done.returncode != 0
    assert "nothing of vlm.budget.requests is left for this job" in done.output
    sent = Counter()
    for path in (work.path / ".cuesheet/runs").glob("*/usage.json"):
        usage = json.loads(path.read_text())
        sent[usage["shard"]] += usage["sent"].get("requests", 0)
    # 4 drafts and 3 lists; the second attempt of a shard has nothing left.
    assert sent == {"vocabulary": 7, "00000": 4, "00001": 4}
