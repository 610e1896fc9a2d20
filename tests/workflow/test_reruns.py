"""The jobs and requests that follow from a change, counted at the model server."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from dataset_variants import copy, keep_episodes, set_task
from processes import matching
from workflow_runs import REPOSITORY

from cuesheet.serving.response_cache import describe_request

pytestmark = pytest.mark.workflow

DATA = "annotated/data/chunk-000/file-000.parquet"


@pytest.fixture
def external(workdir, counting_server, demo_v3):
    """A working directory whose calls go to the counting server, and a way to configure it."""

    def configure(**values):
        workdir.configure(
            **{
                "dataset": str(demo_v3),
                "episodes": [0, 1],
                "prompts_dir": str(workdir.path / "prompts"),
                "vlm": counting_server.vlm,
                **values,
            }
        )

    shutil.copytree(REPOSITORY / "config/prompts", workdir.path / "prompts")
    configure()
    workdir.configure_external = configure
    return workdir


def rows_of(path: Path, episode: int) -> list:
    table = pq.read_table(path, columns=["episode_index", "language_persistent", "language_events"])
    return [row for row in table.to_pylist() if row["episode_index"] == episode]


def test_editing_one_prompt_reruns_its_stage_and_asks_only_the_changed_calls(
    external, counting_server
):
    external.run()
    assert set(counting_server.kinds()) >= {"Description", "Segmentation", "Interjection"}
    counting_server.asked.clear()
    prompt = external.path / "prompts/interjections_acknowledge.md"
    prompt.write_text(prompt.read_text() + "\nKeep it under ten words.\n")
    done = external.run()
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
    assert "Nothing to be done" in external.run().output


def test_a_deleted_file_is_made_again_without_asking(external, counting_server):
    external.run()
    before = external.json("results/demo_v3/plan/000001.json")
    counting_server.asked.clear()
    (external.path / "results/demo_v3/plan/000001.json").unlink()
    external.run("results/demo_v3/plan/000001.json")
    assert counting_server.asked == []
    after = external.json("results/demo_v3/plan/000001.json")
    assert after["persistent"] == before["persistent"]
    assert all(call["cache_hit"] for call in after["provenance"]["calls"])


def test_a_lost_results_folder_costs_no_call(external, counting_server):
    external.run()
    dataset = external.path / "results/demo_v3"
    before = pq.read_table(dataset / DATA)
    counting_server.asked.clear()
    shutil.rmtree(dataset)
    external.run()
    assert counting_server.asked == []
    assert pq.read_table(dataset / DATA).equals(before)


def test_only_the_new_episodes_of_a_dataset_that_grew_are_annotated(
    external, counting_server, demo_v3, tmp_path
):
    source = copy(demo_v3, tmp_path / "grows")
    keep_episodes(source, 2)
    external.configure_external(dataset=str(source), episodes="all")
    external.run()
    old = external.path / "results/grows"
    before = [rows_of(old / DATA, episode) for episode in (0, 1)]
    counting_server.asked.clear()
    for relative in ("meta", "data"):
        shutil.copytree(demo_v3 / relative, source / relative, dirs_exist_ok=True)
    done = external.run()
    assert done.jobs["annotate_plan"] == 2
    assert done.jobs["decode_keyframes"] == 2
    assert done.jobs["annotate_vqa"] == 2
    asked = len(counting_server.asked)
    assert asked > 0
    assert [rows_of(old / DATA, episode) for episode in (0, 1)] == before
    calls = [
        call
        for stage in ("plan", "interjections", "vqa")
        for episode in (2, 3)
        for call in external.json(f"results/grows/{stage}/{episode:06d}.json")["provenance"][
            "calls"
        ]
    ]
    # A question without images may be the same for two episodes; it is asked once.
    assert asked == len({call["key"] for call in calls if not call["cache_hit"]})
    assert "Nothing to be done" in external.run().output


def test_a_changed_source_episode_is_noticed(external, counting_server, demo_v3, tmp_path):
    source = copy(demo_v3, tmp_path / "changes")
    external.configure_external(dataset=str(source))
    external.run()
    counting_server.asked.clear()
    set_task(source, 1, "Pull the drawer out all the way")
    done = external.run()
    assert done.jobs["annotate_plan"] == 1
    plan = external.json("results/changes/plan/000001.json")
    assert plan["task"]["text"] == "Pull the drawer out all the way"
    assert "Pull the drawer out all the way" in str(counting_server.asked)
    assert "Open a drawer" not in str(counting_server.asked)


def test_other_episodes_stay_as_they_are(external, counting_server):
    external.configure_external(episodes=[0])
    external.run()
    path = external.path / "results/demo_v3" / DATA
    first = rows_of(path, 0)
    assert first[0]["language_persistent"]
    assert not any(row["language_persistent"] for row in rows_of(path, 2))
    external.configure_external(episodes=["2-2"])
    external.run()
    assert rows_of(path, 0) == first
    assert all(row["language_persistent"] for row in rows_of(path, 2))
    assert not any(row["language_persistent"] for row in rows_of(path, 1))
    assert pq.read_table(path).num_rows == 269


def test_operational_settings_rerun_nothing(external, counting_server):
    external.run()
    vlm = {
        **counting_server.vlm,
        "concurrency": 3,
        "timeout_s": 17,
    }
    external.configure_external(vlm=vlm)
    assert "Nothing to be done" in external.run().output


def test_sampling_is_part_of_an_answer(external, counting_server):
    external.configure_external(episodes=[1], vqa={"enabled": False})
    external.run()
    asked = len(counting_server.asked)
    vlm = {
        **counting_server.vlm,
        "sampling": {"seed": 7},
    }
    external.configure_external(episodes=[1], vqa={"enabled": False}, vlm=vlm)
    external.run()
    assert len(counting_server.asked) == 2 * asked
    assert counting_server.asked[-1]["seed"] == 7


def ours(work) -> list[psutil.Process]:
    """Processes that belong to a working directory."""

    def belongs(process: psutil.Process) -> bool:
        line = " ".join(process.cmdline())
        return str(work.path) in line and "pytest" not in line

    return matching(belongs)


def test_a_killed_run_resumes_and_sends_no_request_twice(external, counting_server):
    counting_server.delay_s = 0.3
    process = external.start()
    deadline = time.monotonic() + 120
    while len(list((external.path / ".cache/vlm").glob("??/*.json"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # Jobs that were running may end by themselves; the supervisor and its gateway must.
    while ours(external):
        assert time.monotonic() < deadline, [p.cmdline() for p in ours(external)]
        time.sleep(0.1)
    time.sleep(2 * counting_server.delay_s)
    kept = {
        json.dumps(json.loads(path.read_text())["request"]["messages"], sort_keys=True)
        for path in (external.path / ".cache/vlm").glob("??/*.json")
    }
    assert kept
    counting_server.delay_s = 0.0
    before = len(counting_server.asked)
    external.run("--unlock")
    external.run()
    assert external.json("results/demo_v3/summary.json")["episodes"]["annotated"] == 2
    for request in counting_server.asked[before:]:
        messages = describe_request(request)["messages"]
        assert json.dumps(messages, sort_keys=True) not in kept
    counting_server.asked.clear()
    shutil.rmtree(external.path / "results")
    external.run()
    assert counting_server.asked == []


def test_another_episode_whose_rerun_failed_is_not_merged_half(external, counting_server):
    external.run()
    results = external.path / "results/demo_v3"
    (results / "plan/000001.json").unlink()
    external.configure_external(episodes=[0], plan={"rephrasings": {"count": 4}})
    done = external.run(check=False)
    assert done.returncode != 0
    assert "plan/000001.json is missing or has changed" in done.output
    assert "episodes: [1]" in done.output
    external.configure_external(episodes=[1])
    external.run()
    assert all(row["language_persistent"] for row in rows_of(results / DATA, 0))
    assert all(row["language_persistent"] for row in rows_of(results / DATA, 1))


def test_another_episode_that_was_changed_and_not_validated_is_not_merged(external):
    external.run()
    external.configure_external(plan={"max_subtasks": 1})
    external.run("results/demo_v3/plan/000001.json")
    external.configure_external(episodes=[0], plan={"rephrasings": {"count": 4}})
    done = external.run(check=False)
    assert done.returncode != 0
    assert "is missing or has changed since it was validated" in done.output


def test_a_rewritten_video_is_decoded_again_without_a_request(
    external, counting_server, demo_v3, tmp_path
):
    source = copy(demo_v3, tmp_path / "touched")
    external.configure_external(dataset=str(source), episodes=[1])
    external.run()
    counting_server.asked.clear()
    for video in source.rglob("*.mp4"):
        os.utime(video, (1, 1))
    done = external.run()
    assert done.jobs["decode_keyframes"] == 1
    assert counting_server.asked == []


def test_changed_images_are_requested_again(external, counting_server, demo_v3, tmp_path):
    """Two cameras exchanged: the metadata says the same, the images differ."""
    source = copy(demo_v3, tmp_path / "exchanged")
    external.configure_external(dataset=str(source), episodes=[1])
    external.run()
    before = external.json("results/exchanged/plan/000001.json")
    asked = len(counting_server.asked)
    folders = [source / "videos" / f"observation.images.{name}" for name in ("front", "wrist")]
    files = [folder / "chunk-000/file-000.mp4" for folder in folders]
    contents = [file.read_bytes() for file in files]
    files[0].write_bytes(contents[1])
    files[1].write_bytes(contents[0])
    external.run()
    after = external.json("results/exchanged/plan/000001.json")
    assert len(counting_server.asked) > asked
    keys = [{call["key"] for call in plan["provenance"]["calls"]} for plan in (before, after)]
    # Only what goes without images is the same.
    assert len(keys[0] & keys[1]) == 1


def test_a_remote_job_starts_no_server(external):
    external.run()
    runs = sorted((external.path / ".cuesheet/runs").iterdir())
    target = "results/demo_v3/validation/000001.txt"
    (external.path / target).unlink()
    external.run(
        "--mode", "remote", "--target-jobs", "validate_episode:dataset=demo_v3,episode=000001",
        "--force", "--nolock", "--",
    )  # fmt: skip
    assert (external.path / target).exists()
    assert sorted((external.path / ".cuesheet/runs").iterdir()) == runs


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
    clip.unlink()  # the page exists, so Snakemake looks for the clip only if it is a target too
    assert work.run().jobs == {"extract_clip": 1, "build_review": 1}
    assert clip.is_file()
