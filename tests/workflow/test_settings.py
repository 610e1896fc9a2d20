"""Settings that change requests or output, each through the whole workflow."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.workflow


def test_many_datasets_in_one_run(workdir, demo_v3):
    workdir.configure(
        dataset={
            "first": str(demo_v3),
            "second": {"path": str(demo_v3), "episodes": [3]},
        },
        episodes=[1],
        vqa={"enabled": False},
        interjections={"enabled": False},
    )
    workdir.run("datasets")
    assert [path.name for path in (workdir.path / "results/first/plan").iterdir()] == [
        "000001.json"
    ]
    second = workdir.path / "results/second/plan"
    assert [path.name for path in second.iterdir()] == ["000003.json"]
    assert (workdir.path / "results/second/annotated/meta/info.json").exists()


@pytest.mark.parametrize(
    "frames",
    [
        {"mode": "single_frames"},
        {"mode": "clip", "max_frames_per_call": 6},
    ],
    ids=lambda frames: "-".join(map(str, frames.values())),
)
def test_every_way_to_show_frames_gives_a_valid_episode(workdir, demo_v3, frames):
    off = {"enabled": False}
    workdir.configure(
        dataset=str(demo_v3), episodes=[0], plan={"frames": frames}, vqa=off, interjections=off
    )
    workdir.run("annotations")
    plan = workdir.json("results/demo_v3/plan/000000.json")
    assert workdir.json("results/demo_v3/validation/000000.json")["errors"] == []
    described = [c for c in plan["provenance"]["calls"] if c["prompt"] == "plan_describe"]
    # 7.5 s at 2 frames per second are 16 frames: one window of 60, or three of 6.
    assert len(described) == (3 if "max_frames_per_call" in frames else 1)
    assert plan["subtasks"][0]["start_frame"] == 0
    assert plan["subtasks"][-1]["end_frame"] == 75


def test_second_look_and_label_candidates_change_the_plan_alone(finished_demo, tmp_path, demo_v3):
    workdir = finished_demo.copy_to(tmp_path / "copy")
    keyframes = workdir.json("results/demo_v3/keyframes/000000/keyframes.json")
    assert keyframes["fine"] == []
    interjections = workdir.json("results/demo_v3/interjections/000000.json")
    workdir.configure(
        dataset=str(demo_v3),
        episodes=[0],
        vqa={"enabled": False},
        plan={"second_look": True, "relabel": "neighbors", "label_candidates": 2},
    )
    assert workdir.run("annotations").jobs["annotate_plan"] == 1
    looked = workdir.json("results/demo_v3/keyframes/000000/keyframes.json")
    assert looked["grid"] == keyframes["grid"]
    assert len(looked["fine"]) > 1.8 * len(keyframes["grid"])
    plan = workdir.json("results/demo_v3/plan/000000.json")
    prompts = [call["prompt"] for call in plan["provenance"]["calls"]]
    assert "plan_second_look" in prompts
    assert prompts.count("plan_relabel") == len(plan["subtasks"])
    assert all(call["outcome"] == "ok" for call in plan["provenance"]["calls"])
    after = workdir.json("results/demo_v3/interjections/000000.json")
    assert interjections["events"][0] == after["events"][0]


def test_every_label_comes_from_the_vocabulary_of_its_task(finished_demo, tmp_path, demo_v3):
    workdir = finished_demo.copy_to(tmp_path / "copy")
    labels = ["open the drawer", "reach for the drawer"]
    settings = {"dataset": str(demo_v3), "episodes": [1, 2]}
    workdir.configure(**settings, plan={"vocabulary": {"Open a drawers": labels}})
    wrong = workdir.run("--dry-run", check=False)
    assert wrong.returncode != 0
    assert (
        "config: plan.vocabulary: no episode has the task 'Open a drawers'; did you mean "
        "'Open a drawer'?" in wrong.output
    )
    plan_file = "results/demo_v3/plan/000001.json"
    workdir.configure(**settings, plan={"vocabulary": {"Open a drawer": labels}})
    both = (plan_file, "results/demo_v3/plan/000002.json")
    assert workdir.run(*both).jobs["annotate_plan"] == 1
    plan = workdir.json(plan_file)
    assert {part["label"] for part in plan["subtasks"]} <= set(labels)


def test_relabel_axes_and_derived_task(finished_demo, tmp_path, demo_v3):
    workdir = finished_demo.copy_to(tmp_path / "copy")
    workdir.configure(
        dataset=str(demo_v3),
        episodes=[1],
        plan={"relabel": "span", "derive_task": "always", "rephrasings": {"mode": "axes"}},
    )
    workdir.run("results/demo_v3/plan/000001.json")
    plan = workdir.json("results/demo_v3/plan/000001.json")
    prompts = [call["prompt"] for call in plan["provenance"]["calls"]]
    assert prompts.count("plan_relabel") == len(plan["subtasks"])
    assert prompts.count("plan_rephrase_axes") == 1
    assert plan["task"]["source"] == "video"
    task_rows = [row for row in plan["persistent"] if row["style"] == "task_aug"]
    assert task_rows[0]["content"] == plan["task"]["text"]
    assert 2 <= len(task_rows) <= 13


def test_stages_can_be_switched_off(workdir, demo_v3):
    workdir.configure(
        dataset=str(demo_v3),
        episodes=[1],
        plan={"enabled": False},
        interjections={"enabled": False},
        vqa={"cameras": "default", "types": ["bbox"], "hz": 2, "frames": 2},
    )
    workdir.run("datasets")
    results = workdir.path / "results/demo_v3"
    assert not (results / "plan").exists()
    pairs = workdir.json("results/demo_v3/vqa/000001.json")["pairs"]
    assert {pair["type"] for pair in pairs} == {"bbox"}
    assert {pair["camera"] for pair in pairs} == {"observation.images.front"}
    # 4.6 s at 10 frames per second: ticks at 0, 0.5, ... 4.5, two frames each, the last has one.
    assert len(pairs) == 19
    table = pq.read_table(results / "annotated/data/chunk-000/file-000.parquet")
    assert not any(table["language_persistent"].to_pylist()[0])


def test_images_may_be_png_files_on_a_shared_disk_which_changes_no_answer(workdir, demo_v3):
    settings = {"dataset": str(demo_v3), "episodes": [1]}
    workdir.configure(**settings, vlm={"images": {"format": "png", "transport": "file_url"}})
    workdir.run("annotations")
    media = list((workdir.path / ".cache/vlm/media").rglob("*.png"))
    assert media
    entries = [json.loads(p.read_text()) for p in (workdir.path / ".cache/vlm").glob("??/*.json")]
    calls = [
        call
        for stage in ("plan", "vqa")
        for call in workdir.json(f"results/demo_v3/{stage}/000001.json")["provenance"]["calls"]
    ]
    assert all(call["outcome"] == "ok" for call in calls)
    assert len(entries) >= len({call["key"] for call in calls})
    workdir.configure(**settings, vlm={"images": {"format": "png", "transport": "data_url"}})
    assert workdir.run("--dry-run", "annotations").jobs == {}


def test_videos_can_be_hard_links_symlinks_or_copies(finished_demo, tmp_path, demo_v3):
    assert_videos(finished_demo.path, demo_v3, is_symlink=False)
    workdir = finished_demo.copy_to(tmp_path / "copy")
    for way in ("symlink", "copy"):
        workdir.configure(dataset=str(demo_v3), output={"videos": way})
        workdir.run("datasets")
        for video in assert_videos(workdir.path, demo_v3, is_symlink=way == "symlink"):
            if way == "copy":
                assert video.stat().st_nlink == 1


def assert_videos(folder: Path, demo_v3: Path, *, is_symlink: bool) -> list[Path]:
    annotated = folder / "results/demo_v3/annotated"
    videos = list((annotated / "videos").rglob("*.mp4"))
    assert len(videos) == 2
    for video in videos:
        assert video.is_symlink() == is_symlink
        assert video.read_bytes() == (demo_v3 / video.relative_to(annotated)).read_bytes()
    return videos


def test_a_users_own_ffmpeg_wins(workdir, demo_v3, tmp_path, monkeypatch):
    real = shutil.which("ffmpeg")
    if real is None:
        import imageio_ffmpeg

        real = imageio_ffmpeg.get_ffmpeg_exe()
    wrapper = tmp_path / "bin" / "ffmpeg"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho used >> {tmp_path}/used\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{shutil.os.environ['PATH']}")
    workdir.configure(dataset=str(demo_v3), episodes=[1], keyframes={"decoder": "ffmpeg"})
    workdir.run("media")
    assert (tmp_path / "used").read_text().count("used") >= 2
