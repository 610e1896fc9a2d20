"""The jobs and requests that follow from a change, counted at the model server."""

import json
import os
import shutil
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from dataset_variants import copy, keep_episodes, set_task
from processes import eventually, processes_in
from workflow_runs import REPOSITORY, Workdir, estimate_of

from cuesheet.serving.response_cache import describe_request

pytestmark = pytest.mark.workflow

DATA = "annotated/data/chunk-000/file-000.parquet"


def settings(demo: Path, vlm: dict) -> dict[str, object]:
    return {"dataset": str(demo), "episodes": [0, 1], "prompts_dir": "prompts", "vlm": vlm}


@pytest.fixture(scope="module")
def annotated(tmp_path_factory, demo_vlm_url, demo_v3) -> Workdir:
    """Two episodes of the demo, annotated; tests copy them."""
    work = Workdir(tmp_path_factory.mktemp("annotated") / "work")
    shutil.copytree(REPOSITORY / "config/prompts", work.path / "prompts")
    vlm = {"serve": "external", "model": "cuesheet-demo-1", "base_urls": [f"{demo_vlm_url}/v1"]}
    work.configure(**settings(demo_v3, vlm))
    work.run()
    return work


def with_server(workdir: Workdir, counting_server, demo: Path) -> Workdir:
    """Send the requests of a working directory to the counting server."""

    def configure(**values: object) -> None:
        workdir.configure(**{**settings(demo, counting_server.vlm), **values})

    configure()
    workdir.configure_external = configure
    return workdir


@pytest.fixture
def external(workdir, counting_server, demo_v3):
    """A new working directory whose calls go to the counting server."""
    shutil.copytree(REPOSITORY / "config/prompts", workdir.path / "prompts")
    return with_server(workdir, counting_server, demo_v3)


@pytest.fixture
def finished(annotated, tmp_path, counting_server, demo_v3):
    """A finished run of two episodes, whose further calls go to the counting server."""
    return with_server(annotated.copy_to(tmp_path / "finished"), counting_server, demo_v3)


def calls_of(work: Workdir, stage: str, episode: int) -> list[dict]:
    (path,) = work.path.glob(f"results/*/{stage}/{episode:06d}.json")
    return json.loads(path.read_text())["provenance"]["calls"]


def rows_of(path: Path, episode: int) -> list:
    table = pq.read_table(path, columns=["episode_index", "language_persistent", "language_events"])
    return [row for row in table.to_pylist() if row["episode_index"] == episode]


def test_editing_one_prompt_reruns_its_stage_and_asks_only_the_changed_calls(
    finished, counting_server
):
    prompt = finished.path / "prompts/interjections_acknowledge.md"
    prompt.write_text(prompt.read_text() + "\nKeep it under ten words.\n")
    done = finished.run()
    assert counting_server.kinds() == ["Acknowledgement"] * 2
    assert done.jobs == {
        "annotate_interjections": 2,
        "validate_episode": 2,
        "merge_language": 1,
        "finalize_dataset": 1,
        "summarize_dataset": 1,
        "write_report": 1,
        "build_review": 1,
    }
    assert "Nothing to be done" in finished.run().output


def test_a_deleted_file_is_made_again_without_asking(finished, counting_server):
    before = finished.json("results/demo_v3/plan/000001.json")
    (finished.path / "results/demo_v3/plan/000001.json").unlink()
    finished.run("results/demo_v3/plan/000001.json")
    assert counting_server.asked == []
    after = finished.json("results/demo_v3/plan/000001.json")
    assert after["persistent"] == before["persistent"]
    assert all(call["cache_hit"] for call in after["provenance"]["calls"])


def test_a_lost_results_folder_costs_no_call(finished, counting_server):
    dataset = finished.path / "results/demo_v3"
    before = pq.read_table(dataset / DATA)
    shutil.rmtree(dataset)
    finished.run("datasets")
    assert counting_server.asked == []
    assert pq.read_table(dataset / DATA).equals(before)


def test_only_the_new_episodes_of_a_dataset_that_grew_are_annotated(
    external, counting_server, demo_v3, tmp_path
):
    source = copy(demo_v3, tmp_path / "grows")
    keep_episodes(source, 2)
    external.configure_external(dataset=str(source), episodes="all")
    external.run("datasets")
    old = external.path / "results/grows"
    before = [rows_of(old / DATA, episode) for episode in (0, 1)]
    counting_server.asked.clear()
    for relative in ("meta", "data"):
        shutil.copytree(demo_v3 / relative, source / relative, dirs_exist_ok=True)
    done = external.run("datasets")
    assert done.jobs["annotate_plan"] == 2
    assert done.jobs["decode_keyframes"] == 2
    assert done.jobs["annotate_vqa"] == 2
    asked = len(counting_server.asked)
    assert asked > 0
    assert [rows_of(old / DATA, episode) for episode in (0, 1)] == before
    stages = ("plan", "interjections", "vqa")
    calls = [
        call for stage in stages for number in (2, 3) for call in calls_of(external, stage, number)
    ]
    # A question without images may be the same for two episodes; it is asked once.
    assert asked == len({call["key"] for call in calls if not call["cache_hit"]})
    assert "Nothing to be done" in external.run("datasets").output


def test_a_changed_source_episode_is_noticed(external, counting_server, demo_v3, tmp_path):
    source = copy(demo_v3, tmp_path / "changes")
    external.configure_external(dataset=str(source), vqa={"enabled": False})
    external.run("annotations")
    counting_server.asked.clear()
    set_task(source, 1, "Pull the drawer out all the way")
    done = external.run("annotations")
    assert done.jobs["annotate_plan"] == 1
    plan = external.json("results/changes/plan/000001.json")
    assert plan["task"]["text"] == "Pull the drawer out all the way"
    assert "Pull the drawer out all the way" in str(counting_server.asked)
    assert "Open a drawer" not in str(counting_server.asked)


def test_other_episodes_stay_as_they_are(external, counting_server):
    external.configure_external(episodes=[0], vqa={"enabled": False})
    external.run("datasets")
    path = external.path / "results/demo_v3" / DATA
    first = rows_of(path, 0)
    assert first[0]["language_persistent"]
    assert not any(row["language_persistent"] for row in rows_of(path, 2))
    external.configure_external(episodes=["2-2"], vqa={"enabled": False})
    external.run("datasets")
    assert rows_of(path, 0) == first
    assert all(row["language_persistent"] for row in rows_of(path, 2))
    assert not any(row["language_persistent"] for row in rows_of(path, 1))
    assert pq.read_table(path).num_rows == 269


def test_operational_settings_rerun_nothing(finished, counting_server):
    vlm = {
        **counting_server.vlm,
        "concurrency": 3,
        "timeout_s": 17,
    }
    finished.configure_external(vlm=vlm)
    assert "Nothing to be done" in finished.run("--dry-run").output


def test_sampling_is_part_of_an_answer(finished, counting_server):
    calls = len(calls_of(finished, "plan", 1))
    vlm = {
        **counting_server.vlm,
        "sampling": {"seed": 7},
    }
    finished.configure_external(episodes=[1], vlm=vlm)
    finished.run("results/demo_v3/plan/000001.json")
    assert len(counting_server.asked) == calls
    assert counting_server.asked[-1]["seed"] == 7


def test_a_killed_run_resumes_and_sends_no_request_twice(external, counting_server):
    counting_server.delay_s = 0.3
    process = external.start()
    responses = external.path / ".cache/vlm"
    eventually(lambda: len(list(responses.glob("??/*.json"))) >= 3, lambda: process.poll() is None)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # Jobs that were running may end by themselves; the supervisor and its gateway must.
    eventually(lambda: processes_in(external.path) == [])
    kept = {
        json.dumps(json.loads(path.read_text())["request"]["messages"], sort_keys=True)
        for path in responses.glob("??/*.json")
    }
    counting_server.delay_s = 0.0
    before = len(counting_server.asked)
    external.run("--unlock")
    external.run()
    assert external.json("results/demo_v3/summary.json")["episodes"]["annotated"] == 2
    for request in counting_server.asked[before:]:
        messages = describe_request(request)["messages"]
        assert json.dumps(messages, sort_keys=True) not in kept


def test_another_episode_whose_rerun_failed_is_not_merged_half(finished, counting_server):
    results = finished.path / "results/demo_v3"
    (results / "plan/000001.json").unlink()
    finished.configure_external(episodes=[0], plan={"rephrasings": {"count": 4}})
    done = finished.run("datasets", check=False)
    assert done.returncode != 0
    assert "plan/000001.json is missing or has changed" in done.output
    assert "episodes: [1]" in done.output
    finished.configure_external(episodes=[1])
    finished.run("datasets")
    assert all(row["language_persistent"] for row in rows_of(results / DATA, 0))
    assert all(row["language_persistent"] for row in rows_of(results / DATA, 1))


def test_another_episode_that_was_changed_and_not_validated_is_not_merged(finished):
    finished.configure_external(plan={"max_subtasks": 1})
    finished.run("results/demo_v3/plan/000001.json")
    finished.configure_external(episodes=[0], plan={"rephrasings": {"count": 4}})
    done = finished.run("datasets", check=False)
    assert done.returncode != 0
    assert "is missing or has changed since it was validated" in done.output


def test_a_rewritten_video_is_decoded_again_without_a_request(
    external, counting_server, demo_v3, tmp_path
):
    source = copy(demo_v3, tmp_path / "touched")
    external.configure_external(dataset=str(source), episodes=[1], vqa={"enabled": False})
    external.run("annotations")
    counting_server.asked.clear()
    for video in source.rglob("*.mp4"):
        os.utime(video, (1, 1))
    done = external.run("annotations")
    assert done.jobs["decode_keyframes"] == 1
    assert counting_server.asked == []


def test_changed_images_are_requested_again(external, counting_server, demo_v3, tmp_path):
    """Two cameras exchanged: the metadata says the same, the images differ."""
    plan = "results/exchanged/plan/000001.json"
    source = copy(demo_v3, tmp_path / "exchanged")
    external.configure_external(dataset=str(source), episodes=[1])
    external.run(plan)
    before = external.json(plan)
    asked = len(counting_server.asked)
    folders = [source / "videos" / f"observation.images.{name}" for name in ("front", "wrist")]
    files = [folder / "chunk-000/file-000.mp4" for folder in folders]
    contents = [file.read_bytes() for file in files]
    files[0].write_bytes(contents[1])
    files[1].write_bytes(contents[0])
    external.run(plan)
    after = external.json(plan)
    assert len(counting_server.asked) > asked
    keys = [{call["key"] for call in one["provenance"]["calls"]} for one in (before, after)]
    # Only what goes without images is the same.
    assert len(keys[0] & keys[1]) == 1


def test_a_remote_job_starts_no_server(finished):
    runs = sorted((finished.path / ".cuesheet/runs").iterdir())
    target = "results/demo_v3/validation/000001.txt"
    (finished.path / target).unlink()
    finished.run(
        "--mode", "remote", "--target-jobs", "validate_episode:dataset=demo_v3,episode=000001",
        "--force", "--nolock", "--",
    )  # fmt: skip
    assert (finished.path / target).exists()
    assert sorted((finished.path / ".cuesheet/runs").iterdir()) == runs


def test_a_deleted_clip_is_created_again_with_the_review_page(finished_demo, tmp_path):
    work = finished_demo.copy_to(tmp_path / "copy")
    page = "results/demo_v3/review/index.html"
    clip = work.path / "results/demo_v3/clips/observation.images.front/episode_000001.mp4"
    other = clip.with_name("episode_000002.mp4")
    content, before = clip.read_bytes(), other.stat().st_mtime_ns
    clip.unlink()
    (work.path / page).unlink()
    assert work.run(page).jobs == {"extract_clip": 1, "build_review": 1}
    assert clip.read_bytes() == content
    assert other.stat().st_mtime_ns == before
    assert (work.path / page).is_file()
    # Snakemake looks for an input of a page that exists only if the input is a target too.
    for target in ((page,), (f"./{page}",), (), ("reports",)):
        clip.unlink()
        assert work.run(*target).jobs == {"extract_clip": 1, "build_review": 1}, target
        assert clip.is_file()


def test_deleted_files_for_people_are_created_again(finished_demo, tmp_path):
    work = finished_demo.copy_to(tmp_path / "copy")
    results = work.path / "results/demo_v3"
    text = results / "validation/000001.txt"
    content = text.read_bytes()
    text.unlink()
    jobs = work.run().jobs
    assert text.read_bytes() == content
    assert jobs["validate_episode"] == 1
    assert "annotate_plan" not in jobs
    layout = results / "signals/layout.json"
    content = layout.read_bytes()
    layout.unlink()
    assert work.run().jobs["detect_signals"] == 1
    assert layout.read_bytes() == content
    assert work.run("--dry-run").jobs == {}


def test_a_new_checkout_of_the_workflow_makes_nothing_again(finished_demo, tmp_path):
    """Its scripts and prompts are newer than all results."""
    work = finished_demo.copy_to(tmp_path / "copy")
    for path in work.path.rglob("*"):
        status = path.lstat()
        days_ago = status.st_mtime_ns - 30 * 86_400 * 10**9
        os.utime(path, ns=(days_ago, days_ago), follow_symlinks=False)
    assert work.run("--dry-run").jobs == {}
    # If this plans nothing either, the profiles need no rerun-triggers.
    with_code = ("--rerun-triggers", "mtime", "params", "input", "software-env", "code")
    assert work.run("--dry-run", *with_code).jobs


def test_the_estimate_leaves_out_what_the_cache_has(finished):
    shutil.rmtree(finished.path / "results")
    estimate = estimate_of(finished)
    total = estimate.total
    assert total.low.requests <= total.likely.requests < 2
    assert total.high.requests >= estimate.cached.requests > 30
    line = next(
        line for line in finished.run("--dry-run").output.splitlines() if "estimated" in line
    )
    assert "responses more from the cache" in line
    # A changed prompt changes all requests of its stage, and those of no other.
    with (finished.path / "prompts/vqa_count.md").open("a") as prompt:
        prompt.write("\nLook closely.\n")
    stages = estimate_of(finished).stages
    assert stages["vqa"].likely.requests == stages["vqa"].low.requests == 26
    assert stages["plan"].likely.requests < 1
    assert "fewer if the cache has responses" in finished.run("--dry-run").output


@pytest.mark.parametrize("changes", ["a prompt", "a setting"])
def test_a_job_that_failed_is_repeated_although_its_earlier_file_is_kept(
    finished, counting_server, changes
):
    plan = finished.path / "results/demo_v3/plan/000001.json"
    before = plan.read_bytes()
    options = {"vlm": {**counting_server.vlm, "max_attempts": 1}, "vqa": {"enabled": False}}
    finished.configure_external(**options)
    if changes == "a prompt":
        prompt = finished.path / "prompts/plan_segment.md"
        prompt.write_text(prompt.read_text() + "\nBe brief.\n")
    else:
        finished.configure_external(**options, seed=7, plan={"granularity": "phases"})
    counting_server.answer_instead = lambda body: (500, b'{"error": {"message": "broken"}}')
    assert finished.run("--keep-going", check=False).returncode != 0
    assert plan.read_bytes() == before
    counting_server.answer_instead = lambda body: None
    assert finished.run().jobs["annotate_plan"] == 2
    assert plan.read_bytes() != before
    assert finished.run("--dry-run").jobs == {}
