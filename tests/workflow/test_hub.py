"""Datasets from a hub and to a hub, with the real client and a hub on loopback."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from dataset_variants import as_v21, set_task
from hub_server import HubServer
from workflow_runs import Workdir

pytestmark = pytest.mark.workflow

REPO = "someone/demo"
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
QUICK = {"vqa": {"enabled": False}, "interjections": {"enabled": False}}


@pytest.fixture
def hub():
    server = HubServer()
    yield server
    server.close()


class HubWorkdir(Workdir):
    """Its own hub cache, the hub on loopback, no keys of the user."""

    def __init__(self, path: Path, hub: HubServer) -> None:
        super().__init__(path)
        self.hub = hub

    @property
    def home(self) -> Path:
        return self.path.parent / "hf_home"

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": "hf_test",
        }

    def push(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "cuesheet.app.cli", "push", *arguments],
            cwd=self.path,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture
def work(tmp_path, hub):
    return HubWorkdir(tmp_path / "work", hub)


def state(folder: Path) -> dict[str, tuple]:
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
            path.stat().st_mode,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_only_what_the_chosen_episodes_need_of_exactly_that_revision(
    work, hub, demo_v3, tmp_path, capsys
):
    source = as_v21(demo_v3, tmp_path / "v21")
    info = json.loads((source / "meta/info.json").read_text())
    info["features"][WRIST]["info"]["video.is_depth_map"] = True  # not looked at, but carried over
    (source / "meta/info.json").write_text(json.dumps(info))
    commit = hub.add(REPO, source)
    changed = shutil.copytree(source, tmp_path / "later")
    (changed / "meta/info.json").write_text("{}")
    hub.repositories[REPO].tags["v1"] = commit
    hub.add(REPO, changed)
    work.configure(dataset=f"hf://datasets/{REPO}@v1", episodes=[1, 3], **QUICK)
    work.run("datasets")
    folders = {name.removeprefix(f"{REPO}/").split("/")[0] for name in hub.sent}
    assert folders == {"meta", "data", "videos"}
    numbers = {name[-10:].split(".")[0] for name in hub.sent if "/meta/" not in name}
    assert {number[-1] for number in numbers} == {"1", "3"}
    whole = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    assert hub.bytes_sent < whole
    with capsys.disabled():
        print(f"\n2 of 4 episodes of v2.1: {hub.bytes_sent} of {whole} bytes")
    annotated = work.path / "results/demo/annotated"
    files = sorted(path.name for path in annotated.glob("data/*/*.parquet"))
    assert files == ["episode_000001.parquet", "episode_000003.parquet"]
    videos = sorted(path.relative_to(annotated).as_posix() for path in annotated.rglob("*.mp4"))
    assert videos == [
        f"videos/chunk-000/{camera}/episode_00000{number}.mp4"
        for camera in (FRONT, WRIST)
        for number in (1, 3)
    ]
    assert pq.read_table(annotated / "data/chunk-000" / files[0])["language_persistent"][0].as_py()

    cache = work.home / "hub"
    before, sent, asked = state(cache), hub.bytes_sent, len(hub.asked)
    for path in cache.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o444)
    work.configure(dataset=f"hf://datasets/{REPO}@v1", episodes=[1, 3], seed=1, **QUICK)
    assert "Nothing to be done" not in work.run("--forceall", "datasets").output
    assert hub.bytes_sent == sent
    # Jobs ask nothing: the run itself asks for the commit, and for the list of its metadata.
    assert len(hub.asked) - asked <= 20, hub.asked[asked:]
    after = state(cache)
    assert {name: entry[:2] for name, entry in after.items()} == {
        name: entry[:2] for name, entry in before.items()
    }


def test_two_of_twelve_episodes_are_fetched_with_the_files_that_hold_them(
    work, hub, dev_v3, capsys
):
    hub.add("someone/dev", dev_v3)
    work.configure(dataset="hf://datasets/someone/dev", episodes=[0, 1])
    work.run("-n")
    sent = {name.removeprefix("someone/dev/"): size for name, size in hub.sent.items()}
    whole = sum(path.stat().st_size for path in dev_v3.rglob("*") if path.is_file())
    expected = {"data/chunk-000/file-000.parquet"}
    expected |= {f"videos/{camera}/chunk-000/file-000.mp4" for camera in (FRONT, WRIST)}
    assert {name for name in sent if not name.startswith("meta/")} == expected
    with capsys.disabled():
        print(f"\n2 of 12 episodes of dev_v3: {hub.bytes_sent} of {whole} bytes")
    assert hub.bytes_sent < whole / 2


def test_the_hub_may_lack_the_videos_of_a_camera_that_is_not_in_use(work, hub, demo_v3, tmp_path):
    source = shutil.copytree(demo_v3, tmp_path / "source")
    (source / f"videos/{WRIST}/chunk-000/file-000.mp4").unlink()
    hub.add("someone/part", source)
    work.configure(dataset="hf://datasets/someone/part")
    done = work.run("-n", check=False)
    assert done.returncode != 0
    assert "a file that the metadata names does not exist on the hub" in done.output
    work.configure(dataset={"part": {"path": "hf://datasets/someone/part", "cameras": [FRONT]}})
    assert "annotate_plan" in work.run("-n").output


def test_an_interrupted_download_is_resumed(work, hub, demo_v3):
    hub.add(REPO, demo_v3)
    hub.cut_after = 100_000
    work.configure(dataset=f"hf://datasets/{REPO}", episodes=[0])
    work.run("-n")
    whole = sum(path.stat().st_size for path in demo_v3.rglob("*") if path.is_file())
    assert hub.cut_after is None
    # The client keeps what it wrote in whole pieces of 10 MB; nothing else is sent twice.
    assert hub.bytes_sent <= whole + 100_000


def test_a_new_commit_is_detected_and_only_changed_episodes_are_annotated(
    work, hub, demo_v3, tmp_path
):
    source = shutil.copytree(demo_v3, tmp_path / "source")
    hub.add(REPO, source)
    work.configure(dataset=f"hf://datasets/{REPO}", episodes=[0, 1], **QUICK)
    work.run("datasets")
    set_task(source, 1, "Pull the drawer out all the way")
    hub.add(REPO, source)
    done = work.run("datasets")
    assert done.jobs["annotate_plan"] == 1
    assert "1 recorded again (1)" in done.output
    assert "Nothing to be done" in work.run("-n", "datasets").output


def test_user_errors_are_said_without_a_traceback(work, hub, demo_v3):
    hub.add(REPO, demo_v3)
    said = {
        "hf://datasets/nobody/none": "the hub has no dataset nobody/none",
        f"hf://datasets/{REPO}@v9": "no branch, tag or commit v9",
    }
    work.configure(dataset=list(said))
    done = work.run("-n", check=False)
    assert done.returncode != 0
    for text in said.values():
        assert text in done.output
    assert "Traceback" not in done.output


def test_push_makes_a_private_repository_with_card_and_tags_and_overwrites_nothing(
    work, hub, demo_v3, tmp_path
):
    source = shutil.copytree(demo_v3, tmp_path / "source")
    (source / "README.md").write_text("---\nlicense: mit\n---\n# Demo\nRecorded by hand.\n")
    hub.add(REPO, source)
    truth = tmp_path / "truth.csv"
    truth.write_text("episode,start_s,end_s,text\n0,0.0,2.5,reach for the puck\n")
    reference = {"reference": str(truth)}
    work.configure(dataset=f"hf://datasets/{REPO}", evaluate=reference, **QUICK)
    work.run()
    refused = work.push("results/demo", REPO)
    assert refused.returncode == 1
    assert "is the source of this dataset" in refused.stderr
    assert hub.repositories[REPO].branches["main"] == next(iter(hub.repositories[REPO].commits))

    done = work.push("results/demo", "me/annotated", "--tag", "first")
    assert done.returncode == 0, done.stderr
    made = hub.repositories["me/annotated"]
    assert made.private
    assert set(made.tags) == {"v3.0", "first"}
    files = dict(made.commits[made.tags["v3.0"]])
    annotated = work.path / "results/demo/annotated"
    expected = {
        path.relative_to(annotated).as_posix(): path.read_bytes()
        for path in annotated.rglob("*")
        if path.is_file() and ".snakemake" not in path.name
    }
    card = files.pop("README.md").decode()
    expected.pop("README.md")
    assert files == expected
    told = ["license: mit", "cuesheet-demo-1", "not a language model", "| subtask | "]
    told += ["Against reference segments of 1 episode.", "| boundary F1 within 1.0 s |"]
    for part in [*told, "plan_segment", "Recorded by hand.", f"hf://datasets/{REPO}@main"]:
        assert part in card, card

    again = work.push("results/demo", "me/annotated")
    assert again.returncode == 1
    assert "already has a dataset me/annotated" in again.stderr
    assert len(made.commits) == 2
    assert work.push("results/demo", "me/annotated", "--overwrite").returncode == 0
    assert made.tags["v3.0"] == made.branches["main"]


def test_part_of_a_dataset_and_an_unfinished_one_are_not_pushed(work, hub, demo_v3, tmp_path):
    hub.add(REPO, as_v21(demo_v3, tmp_path / "v21"))
    work.configure(dataset=f"hf://datasets/{REPO}", episodes=[1], **QUICK)
    work.run()
    done = work.push("results/demo", "me/part")
    assert "is part of a dataset: 9 files" in done.stderr
    (work.path / "results/demo/summary.json").unlink()
    assert "is not finished" in work.push("results/demo", "me/part").stderr
    assert "me/part" not in hub.repositories


def test_without_a_network_push_and_unknown_datasets_end_with_one_line_and_opened_ones_work(
    work, hub, demo_v3, monkeypatch
):
    hub.add(REPO, demo_v3)
    work.configure(dataset=f"hf://datasets/{REPO}", episodes=[0], **QUICK)
    work.run()
    address = hub.url
    hub.close()
    assert_one_line_each(work, address)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert_one_line_each(work, "HF_HUB_OFFLINE")
    work.configure(dataset=f"hf://datasets/{REPO}", episodes=[0], **QUICK)
    assert "Nothing to be done" in work.run().output


def assert_one_line_each(work: HubWorkdir, cause: str) -> None:
    """A push, and a run on a dataset that was not opened before, fail with one line."""
    pushed = work.push("results/demo", "me/annotated")
    assert pushed.returncode == 1
    assert "Traceback" not in pushed.stderr
    (line,) = [line for line in pushed.stderr.splitlines() if line.startswith("cuesheet push: ")]
    assert pushed.stderr.splitlines()[-1] == line
    assert "me/annotated" in line
    assert cause in line
    work.configure(dataset="hf://datasets/someone/other", **QUICK)
    opened = work.run("--quiet", "all", check=False)
    assert opened.returncode == 1
    lines = [line for line in opened.output.splitlines() if line and " profile " not in line]
    assert len(lines) == 1, lines
    assert "hf://datasets/someone/other" in lines[0]
