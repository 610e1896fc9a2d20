"""LeRobot as the judge: v2.1 datasets that its tools wrote, and what they make of our output."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest
from workflow_runs import REPOSITORY, Workdir

PYTHON = REPOSITORY / ".venv-lerobot" / "bin" / "python"
pytestmark = [
    pytest.mark.lerobot,
    pytest.mark.workflow,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-lerobot; run: make lerobot"),
]

LANGUAGE = ("language_persistent", "language_events")


def lerobot(*arguments: object, version: str = "0.4.4") -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    environment.pop("LD_LIBRARY_PATH", None)
    if version != "0.4.4":
        folder = {"0.3.3": "v21", "0.6.1": "v061"}[version]
        environment["PYTHONPATH"] = str(REPOSITORY / ".venv-lerobot" / folder)
    else:
        link = subprocess.run(
            [PYTHON, "-m", "cuesheet.media.torchcodec_libs"],
            env={**environment, "PYTHONPATH": str(REPOSITORY / "scripts")},
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        environment["LD_LIBRARY_PATH"] = link.partition("LD_LIBRARY_PATH=")[2].strip().strip("'")
    tools = REPOSITORY / "tests" / "lerobot_tools.py"
    done = subprocess.run(
        [PYTHON, tools, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def loaded(root: Path) -> list[dict]:
    lines = lerobot("load", root).splitlines()
    return [json.loads(line) for line in lines if line[:1] == "{"]


@pytest.fixture(scope="module")
def v21(demo_v3, tmp_path_factory) -> Path:
    """A dataset of format v2.1 with videos and an image camera, written by lerobot 0.3.3."""
    target = tmp_path_factory.mktemp("v21") / "demo_v21"
    lerobot("write_v21", demo_v3, target, "observation.images.wrist", version="0.3.3")
    return target


@pytest.fixture(scope="module")
def annotated(v21, tmp_path_factory) -> tuple[Path, Path]:
    """The dataset annotated by the workflow: in its own format, and as v3.0."""
    work = Workdir(tmp_path_factory.mktemp("work") / "work")
    work.configure(dataset=str(v21), vqa={"hz": 0.2})
    work.run("datasets")
    own = shutil.copytree(work.path / "results" / v21.name / "annotated", work.path.parent / "own")
    work.configure(dataset=str(v21), vqa={"hz": 0.2}, output={"format": "v3.0"})
    done = work.run("datasets")
    assert "annotate_plan" not in done.jobs
    assert "Nothing to be done" in work.run("--dry-run", "datasets").output
    return own, work.path / "results" / v21.name / "annotated"


@pytest.fixture(scope="module")
def converted(annotated, tmp_path_factory) -> Path:
    """What lerobot's own converter makes of the annotated v2.1 dataset."""
    root = tmp_path_factory.mktemp("converted") / "dataset"
    shutil.copytree(annotated[0], root)
    lerobot("convert", root)
    return root


def without_language(root: Path, target: Path) -> Path:
    """lerobot 0.4.4 does not know the feature type `language` yet."""
    shutil.copytree(root, target)
    info = json.loads((target / "meta/info.json").read_text())
    for name in LANGUAGE:
        del info["features"][name]
    (target / "meta/info.json").write_text(json.dumps(info))
    for path in target.glob("data/*/*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(list(LANGUAGE)), path)
    return target


def rendered(root: Path, *options: str) -> list[dict]:
    lines = lerobot("render", root, *options, version="0.6.1").splitlines()
    return [json.loads(line) for line in lines if line[:1] == "{"]


def expected_messages(results: Path, episode_index: int, cameras: list[str]) -> list[dict]:
    """What each recipe has to say on every frame of an episode, from the files of the stages."""
    files = {
        stage: json.loads((results / stage / f"{episode_index:06d}.json").read_text())
        for stage in ("plan", "interjections", "vqa")
    }
    keyframes = results / f"keyframes/{episode_index:06d}/keyframes.json"
    times = json.loads(keyframes.read_text())["timestamps_s"]
    rows = [row for data in files.values() for row in (*data["persistent"], *data["events"])]
    subtasks = files["plan"]["subtasks"]
    labels = [None, *(part["label"] for part in subtasks), None]
    pairs = {(pair["frame_index"], pair["camera"]): pair for pair in files["vqa"]["pairs"]}
    frames = []
    for frame_index, time_s in enumerate(times):
        active = {}
        for row in sorted(rows, key=lambda row: row["timestamp"]):
            if row["timestamp"] <= time_s:
                active[row["style"]] = row["content"]
        here = {row["style"]: row for row in rows if row["timestamp"] == time_s}
        place = next(n for n, p in enumerate(subtasks, 1) if frame_index < p["end_frame"])
        found = {name: active.get(name) for name in ("subtask", "plan", "memory")}
        found |= {"previous": labels[place - 1], "next": labels[place + 1]}
        found["interjection"] = here["interjection"]["content"] if "interjection" in here else None
        found["speech"] = here[None]["tool_calls"] if None in here else None
        for camera in cameras:
            pair = pairs.get((frame_index, camera))
            found[f"vqa {camera}"] = pair and [pair["question"], pair["answer"]]
        frames.append(found)
    return frames


def said(name: str, messages: list[dict] | None) -> object:
    """The part of rendered messages that a recipe is about; None if it rendered none."""
    if messages is None:
        return None
    if name == "speech":
        return messages[-1]["tool_calls"]
    if name.startswith("vqa"):
        (asked, answered) = messages
        assert asked["content"][0] == {"type": "image", "feature": name.removeprefix("vqa ")}
        return [asked["content"][1]["text"], json.loads(answered["content"])]
    return messages[-1]["content"]


def table_of(root: Path, part: str) -> dict[str, list]:
    """All rows of a folder of parquet files, by column."""
    columns: dict[str, list] = {}
    for path in sorted((root / part).rglob("*.parquet")):
        for name, values in pq.read_table(path).to_pydict().items():
            columns.setdefault(name, []).extend(values)
    return columns


def frame_hashes(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        return [
            hashlib.sha256(frame.to_ndarray(format="rgb24").tobytes()).hexdigest()
            for frame in container.decode(video=0)
        ]


def test_v21_keeps_its_layout_and_gains_the_columns(v21, annotated):
    own, _ = annotated
    files = lambda root: {  # noqa: E731
        str(p.relative_to(root))
        for p in root.rglob("*")
        if p.is_file() and ".snakemake" not in p.name
    }
    assert files(own) == files(v21)
    before, after = table_of(v21, "data"), table_of(own, "data")
    assert list(after) == [*before, *LANGUAGE]
    assert {name: after[name] for name in before} == before
    assert all(after["language_persistent"])
    info = json.loads((own / "meta/info.json").read_text())
    assert info["codebase_version"] == "v2.1"
    assert info["features"]["language_events"]["dtype"] == "language"


def test_v30_is_what_lerobots_converter_makes(annotated, converted):
    _, ours = annotated
    for part in ("data", "meta/episodes"):
        found, expected = table_of(ours, part), table_of(converted, part)
        assert list(found) == list(expected)
        for name in expected:
            assert found[name] == expected[name], name
    tasks = [pq.read_table(root / "meta/tasks.parquet").to_pydict() for root in (ours, converted)]
    assert tasks[0] == tasks[1]
    infos = [json.loads((root / "meta/info.json").read_text()) for root in (ours, converted)]
    assert infos[0] == infos[1]
    found, expected = (
        json.loads((root / "meta/stats.json").read_text()) for root in (ours, converted)
    )
    assert found.keys() == expected.keys()
    for feature, statistics in expected.items():
        assert found[feature].keys() == statistics.keys()
        for name, value in statistics.items():
            flat = [_flat(found[feature][name]), _flat(value)]
            assert flat[0] == pytest.approx(flat[1], rel=1e-12, abs=1e-12), (feature, name)
    files = [sorted(p.relative_to(r) for p in r.rglob("*.mp4")) for r in (ours, converted)]
    assert files[0] == files[1]
    compared = 0
    for file in files[0]:
        frames = frame_hashes(ours / file)
        assert frames == frame_hashes(converted / file)
        compared += len(frames)
    print(f"{len(found)} features, {compared} video frames compared, 0 differ")


def _flat(value) -> list[float]:
    return [leaf for item in value for leaf in _flat(item)] if isinstance(value, list) else [value]


def test_lerobot_reads_frames_as_from_its_own_conversion(annotated, converted, tmp_path):
    _, ours = annotated
    found = loaded(without_language(ours, tmp_path / "ours"))
    expected = loaded(without_language(converted, tmp_path / "theirs"))
    assert len(found) == 269
    assert found == expected


def test_lerobot_061_renders_every_recipe_for_every_frame(finished_demo):
    results = finished_demo.path / "results/demo_v3"
    frames = rendered(results / "annotated")
    assert [frame["index"] for frame in frames] == list(range(269))
    cameras = sorted(frames[0]["shapes"])
    assert {tuple(shape) for frame in frames for shape in frame["shapes"].values()} == {
        (3, 224, 224)
    }
    for episode_index in range(4):
        of_episode = [frame for frame in frames if frame["episode_index"] == episode_index]
        expected = expected_messages(results, episode_index, cameras)
        found = [
            {name: said(name, messages) for name, messages in frame["messages"].items()}
            for frame in of_episode
        ]
        assert found == expected
        plan = json.loads((results / f"plan/{episode_index:06d}.json").read_text())
        rephrasings = {r["content"] for r in plan["persistent"] if r["style"] == "task_aug"}
        told = {frame["messages"]["subtask"][0]["content"] for frame in of_episode}
        assert len(told) > 1
        assert told <= rephrasings
        assert {frame["task"] for frame in of_episode} == {plan["task"]["text"]}
    count = sum(m is not None for frame in frames for m in frame["messages"].values())
    print(f"demo_v3: {len(frames)} frames, {count} messages rendered by LeRobot 0.6.1, 0 differ")


def test_lerobot_061_renders_what_was_converted_from_v21(annotated):
    _, ours = annotated
    frames = rendered(ours, "no-video")
    total = json.loads((ours / "meta/info.json").read_text())["total_frames"]
    assert [frame["index"] for frame in frames] == list(range(total))
    assert all(frame["messages"]["subtask"] for frame in frames)
    assert any(frame["messages"]["speech"] for frame in frames)


def test_lerobot_061_renders_a_blend_of_recipes_in_a_dataloader(finished_demo):
    lines = lerobot("batches", finished_demo.path / "results/demo_v3/annotated", version="0.6.1")
    batches = [json.loads(line) for line in lines.splitlines() if line[:1] == "{"]
    assert len(batches) == 9  # of at most 32 of 269 frames
    assert all(len(set(batch["sizes"])) == 1 and batch["sizes"][0] > 0 for batch in batches)
    assert all(batch["roles"] == ["assistant", "user"] for batch in batches)


def test_lerobot_044_looks_up_the_subtask_of_every_frame(finished_demo, demo_v3, tmp_path):
    work = finished_demo.copy_to(tmp_path / "work")
    work.configure(dataset=str(demo_v3), output={"subtask_index": True})
    jobs = work.run("datasets").jobs
    assert "annotate_plan" not in jobs
    assert "number_subtasks" in jobs
    results = work.path / "results/demo_v3"
    frames = loaded(without_language(results / "annotated", tmp_path / "plain"))
    expected = []
    for episode_index in range(4):
        plan = json.loads((results / f"plan/{episode_index:06d}.json").read_text())
        for part in plan["subtasks"]:
            expected += [part["label"]] * (part["end_frame"] - part["start_frame"])
    assert [frame["subtask"] for frame in frames] == expected
