"""The site's files hold what the run made, and are written again only when that changed."""

import json
import re
from pathlib import Path

import pytest
from keyframe_files import keyframes_json
from PIL import Image

from cuesheet.report import review_site
from cuesheet.report.correction_files import CorrectionFolder
from cuesheet.report.review_site import build_site

CAMERA = "observation.images.front"


def write(path: Path, data: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three episodes of 1 s with one subtask each."""
    folder = tmp_path / "kitchen"
    for index in range(3):
        name = f"{index:06d}"
        head = {"format": 1, "dataset": "kitchen", "episode_index": index}
        write(
            folder / f"keyframes/{name}/keyframes.json",
            keyframes_json(
                "kitchen", index, task="wipe", fps=10.0, length=10, cameras={CAMERA: [0, 9]}
            ),
        )
        for frame in (0, 9):
            image = folder / f"keyframes/{name}/{CAMERA}/{frame:06d}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 48), "red" if frame else "blue").save(image)
        part = {"start_frame": 0, "end_frame": 10, "start_s": 0.0, "end_s": 1.0}
        write(
            folder / f"plan/{name}.json",
            {
                **{**head, "stage": "plan", "persistent": [], "events": []},
                "subtasks": [{**part, "label": "wipe\u2028</script> it"}],
            },
        )
        write(
            folder / f"validation/{name}.json",
            {
                **{"format": 1, "episode_index": index, "errors": [], "stage_files": {}},
                "warnings": [{"code": "c", "where": "plan", "message": "odd"}] * (index == 1),
                "counts": {},
            },
        )
    return folder


@pytest.fixture
def corrections(tmp_path: Path) -> CorrectionFolder:
    return CorrectionFolder(tmp_path / "corrections", "kitchen", tmp_path / "aside")


def delivered(path: Path) -> object:
    """The value that a data file hands over."""
    name, value = re.fullmatch(r'Cuesheet\.deliver\("([^"]+)",(.*)\);\n', path.read_text()).groups()
    assert path.as_posix().endswith(f"data/{name}.js")
    return json.loads(value)


def test_the_list_and_the_episodes_are_data_files_next_to_the_page(results, corrections):
    given = {"format": 1, "dataset": "kitchen", "episode_index": 2, "verdict": "bad"}
    write(corrections.folder / "000002.json", given)
    assert build_site(results, corrections, CAMERA) == 3
    site = results / "review"
    entries = delivered(site / "data/list/0000.js")
    assert [entry["warnings"] for entry in entries] == [0, 1, 0]
    assert [entry["verdict"] for entry in entries] == [None, None, "bad"]
    episode = delivered(site / "data/episodes/000002.js")
    assert (episode["length"], episode["end_s"], episode["fps"]) == (10, 1.0, 10.0)
    assert episode["subtasks"][0]["label"] == "wipe\u2028</script> it"
    assert episode["correction"] == given
    assert episode["cameras"] == [{"name": CAMERA, "width": 64, "height": 48, "keyframes": [0, 9]}]
    assert "\u2028" not in (site / "data/episodes/000002.js").read_text()
    assert delivered(site / "data/site.js")["colors"] == {"wipe": 0}
    with Image.open(site / "data/thumbs/000000.jpg") as strip:
        assert strip.size == (2 * 85, 64)
        left, right = strip.getpixel((40, 32)), strip.getpixel((130, 32))
    assert left[2] > 200 > 60 > left[0]
    assert right[0] > 200 > 60 > right[2]


def test_agreement_of_samples_is_in_the_list_and_with_the_subtasks(results, corrections):
    path = results / "plan/000001.json"
    plan = json.loads(path.read_text())
    plan["subtasks"][0]["agreement"] = 0.4
    sample = {"temperature": 0.7, "seed": 0, "subtasks": []}
    write(path, {**plan, "agreement": 0.4, "samples": [sample, sample]})
    build_site(results, corrections, CAMERA)
    data = results / "review/data"
    assert [entry["agreement"] for entry in delivered(data / "list/0000.js")] == [None, 0.4, None]
    assert delivered(data / "site.js")["sampled"] is True
    episode = delivered(data / "episodes/000001.js")
    assert (episode["samples"], episode["subtasks"][0]["agreement"]) == (2, 0.4)
    path.write_text(json.dumps(plan))
    build_site(results, corrections, CAMERA)
    assert delivered(data / "site.js")["sampled"] is False


def test_everything_that_the_page_names_is_there(results, corrections):
    build_site(results, corrections, None)
    page = (results / "review/index.html").read_text()
    named = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert len(named) > 8
    local = [name for name in named if not name.startswith("data:")]
    assert [name for name in local if not (results / "review" / name).is_file()] == []


def test_only_what_changed_is_written_again(results, corrections):
    build_site(results, corrections, CAMERA)
    files = {p: p.stat().st_mtime_ns for p in (results / "review/data").rglob("*.*")}
    write(results / "plan/000001.json", json.loads((results / "plan/000002.json").read_text()))
    changed = json.loads((results / "plan/000001.json").read_text())
    changed["subtasks"][0]["label"] = "scrub"
    write(results / "plan/000001.json", changed | {"episode_index": 1})
    build_site(results, corrections, CAMERA)
    written = {p.stem for p, time in files.items() if p.stat().st_mtime_ns != time}
    assert written == {"000001", "0000", "site"}  # its episode, its part of the list, the colors


def test_files_of_episodes_that_no_longer_exist_are_removed(results, corrections, monkeypatch):
    monkeypatch.setattr(review_site, "CHUNK", 2)
    build_site(results, corrections, CAMERA)
    data = results / "review/data"
    assert sorted(p.name for p in (data / "list").iterdir()) == ["0000.js", "0001.js"]
    (results / "validation/000002.json").unlink()
    build_site(results, corrections, CAMERA)
    assert [p.name for p in (data / "list").iterdir()] == ["0000.js"]
    assert not (data / "episodes/000002.js").exists()
    assert not (data / "thumbs/000002.jpg").exists()


@pytest.mark.parametrize("delimiter", [",", ";", ", "])
def test_a_csv_correction_of_every_style_builds_the_page(results, corrections, delimiter):
    rows = [("start", "end", "text"), ("0", "0.5", "wipe"), ("0.5", "1.0", "rinse")]
    corrections.folder.mkdir()
    text = "".join(delimiter.join(row) + "\n" for row in rows)
    (corrections.folder / "000001.csv").write_text(text)
    assert build_site(results, corrections, CAMERA) == 3
    shown = delivered(results / "review/data/episodes/000001.js")["correction"]["subtasks"]
    assert [row["label"] for row in shown] == ["wipe", "rinse"]
