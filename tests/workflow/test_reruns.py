"""The jobs and requests that follow from a change, counted at the model server."""

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from dataset_variants import copy, keep_episodes
from workflow_runs import REPOSITORY, Workdir, estimate_of

pytestmark = pytest.mark.workflow

DATA = "annotated/data/chunk-000/file-000.parquet"


def settings(demo: Path, vlm: dict) -> dict[str, object]:
    return {"dataset": str(demo), "episodes": [0, 1], "prompts_dir": "prompts", "vlm": vlm}


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
def finished(two_episodes, tmp_path, counting_server, demo_v3):
    """A finished run of two episodes, whose further calls go to the counting server."""
    return with_server(two_episodes.copy_to(tmp_path / "finished"), counting_server, demo_v3)


def calls_of(work: Workdir, stage: str, episode: int) -> list[dict]:
    (path,) = work.path.glob(f"results/*/{stage}/{episode:06d}.json")
    return json.loads(path.read_text())["provenance"]["calls"]


def rows_of(path: Path, episode: int) -> list:
    table = pq.read_table(path, columns=["episode_index", "language_persistent", "language_events"])
    return [row for row in table.to_pylist() if row["episode_index"] == episode]


def test_an_edited_prompt_reruns_its_stage_alone_and_operational_settings_rerun_nothing(
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
    finished.configure_external(vlm={**counting_server.vlm, "concurrency": 3, "timeout_s": 17})
    assert "Nothing to be done" in finished.run().output


def test_a_lost_results_folder_costs_no_call(finished, counting_server):
    dataset = finished.path / "results/demo_v3"
    before = pq.read_table(dataset / DATA)
    shutil.rmtree(dataset)
    finished.run("datasets")
    assert counting_server.asked == []
    assert all(call["cache_hit"] for call in calls_of(finished, "plan", 1))
    assert pq.read_table(dataset / DATA).equals(before)


def test_only_the_new_episodes_of_a_dataset_that_grew_are_annotated(
    external, counting_server, demo_v3, tmp_path
):
    source = copy(demo_v3, tmp_path / "grows")
    keep_episodes(source, 1)
    external.configure_external(dataset=str(source), episodes="all")
    external.run("datasets")
    data = external.path / "results/grows" / DATA
    before = rows_of(data, 0)
    counting_server.asked.clear()
    for relative in ("meta", "data"):
        shutil.copytree(demo_v3 / relative, source / relative, dirs_exist_ok=True)
    keep_episodes(source, 2)
    done = external.run("datasets")
    assert done.jobs["annotate_plan"] == 1
    assert done.jobs["decode_keyframes"] == 1
    assert done.jobs["annotate_vqa"] == 1
    assert rows_of(data, 0) == before
    calls = [
        call for stage in ("plan", "interjections", "vqa") for call in calls_of(external, stage, 1)
    ]
    asked = {call["key"] for call in calls if not call["cache_hit"]}
    assert len(counting_server.asked) == len(asked) > 0
    assert "Nothing to be done" in external.run("--dry-run", "datasets").output


def test_other_episodes_stay_as_they_are(finished):
    path = finished.path / "results/demo_v3" / DATA
    first = rows_of(path, 0)
    assert first[0]["language_persistent"]
    assert not any(row["language_persistent"] for row in rows_of(path, 2))
    finished.configure_external(episodes=["2-2"], vqa={"enabled": False})
    finished.run("datasets")
    assert rows_of(path, 0) == first
    assert all(row["language_persistent"] for row in rows_of(path, 2))
    assert not any(row["language_persistent"] for row in rows_of(path, 3))
    assert pq.read_table(path).num_rows == 269


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


def test_another_episode_that_was_changed_and_not_validated_is_not_merged(finished):
    results = finished.path / "results/demo_v3"
    finished.configure_external(plan={"max_subtasks": 1})
    finished.run("results/demo_v3/plan/000001.json")
    finished.configure_external(episodes=[0], plan={"rephrasings": {"count": 4}})
    done = finished.run("datasets", check=False)
    assert done.returncode != 0
    assert "plan/000001.json is missing or has changed since it was validated" in done.output
    assert "episodes: [1]" in done.output
    # As the message says:
    finished.configure_external(episodes=[1])
    finished.run("datasets")
    assert all(row["language_persistent"] for row in rows_of(results / DATA, 0))
    assert all(row["language_persistent"] for row in rows_of(results / DATA, 1))


def test_a_rewritten_video_is_decoded_again_and_only_changed_images_are_requested_again(
    external, counting_server, demo_v3, tmp_path
):
    """Two cameras exchanged: the metadata says the same, the images differ."""
    plan = "results/exchanged/plan/000001.json"
    source = copy(demo_v3, tmp_path / "exchanged")
    external.configure_external(dataset=str(source), episodes="all")
    external.run(plan)  # a single file as a target
    results = external.path / "results/exchanged"
    assert [path.name for path in (results / "plan").iterdir()] == ["000001.json"]
    assert not (results / "vqa").exists()
    assert not (results / "annotated").exists()
    before = external.json(plan)
    counting_server.asked.clear()
    folders = [source / "videos" / f"observation.images.{name}" for name in ("front", "wrist")]
    files = [folder / "chunk-000/file-000.mp4" for folder in folders]
    for file in files:
        os.utime(file, (1, 1))
    assert external.run(plan).jobs["decode_keyframes"] == 1
    assert counting_server.asked == []
    contents = [file.read_bytes() for file in files]
    files[0].write_bytes(contents[1])
    files[1].write_bytes(contents[0])
    external.run(plan)
    after = external.json(plan)
    assert counting_server.asked
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
    clip.unlink()
    for target in ((page,), (f"./{page}",), ()):
        planned = work.run("--dry-run", *target).jobs
        assert planned == {"extract_clip": 1, "build_review": 1}, target
    assert work.run("reports").jobs == {"extract_clip": 1, "build_review": 1}
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
    options = {"vlm": {**counting_server.vlm, "max_attempts": 1}}
    finished.configure_external(**options)
    if changes == "a prompt":
        prompt = finished.path / "prompts/plan_segment.md"
        prompt.write_text(prompt.read_text() + "\nBe brief.\n")
    else:
        finished.configure_external(**options, seed=7, plan={"granularity": "phases"})
    counting_server.answer_instead = lambda body: (500, b'{"error": {"message": "broken"}}')
    plans = [f"results/demo_v3/plan/{number:06d}.json" for number in (0, 1)]
    failed = finished.run("--keep-going", "--", *plans, check=False)
    assert failed.returncode != 0
    assert "annotate_plan: 0 of 2 done, 2 failed" in failed.output
    assert plan.read_bytes() == before
    counting_server.answer_instead = lambda body: None
    assert finished.run(*plans).jobs == {"annotate_plan": 2}
    assert plan.read_bytes() != before
    assert finished.run("--dry-run", *plans).jobs == {}
