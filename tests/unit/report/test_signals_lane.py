"""The signals lane of the review page: what it shows, and boundaries that snap to gripper strokes.

The episode lasts 10 s at 10 fps. Its gripper closes in frames 30 to 34.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from keyframe_files import keyframes_json

from cuesheet.artifacts.layout import Layout
from cuesheet.report.correction_files import CorrectionFolder
from cuesheet.report.review_site import build_site


def write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    layout = Layout(tmp_path / "kitchen")
    head = {"format": 1, "dataset": "kitchen", "episode_index": 0}
    write(
        layout.keyframes(0) / "keyframes.json",
        keyframes_json("kitchen", 0, task="wipe", fps=10.0, length=100, cameras={}),
    )
    edges = (0, 50, 100)
    subtasks = [
        {"start_frame": a, "end_frame": b, "start_s": a / 10, "end_s": b / 10, "label": f"wipe {a}"}
        for a, b in itertools.pairwise(edges)
    ]
    plan = {**head, "stage": "plan", "persistent": [], "events": [], "subtasks": subtasks}
    write(layout.plan(0), plan)
    empty = {"errors": [], "warnings": [], "counts": {}, "stage_files": {}}
    write(layout.validation(0), {"format": 1, "episode_index": 0, **empty})
    stroke = {"kind": "close", "start_frame": 30, "end_frame": 34, "start_s": 3.0, "end_s": 3.4}
    times = [i / 10 for i in range(100)]
    opening = [1.0 if time < 3.2 else 0.0 for time in times]
    signals = {
        **{**head, "length": 100, "times_s": times, "trajectory": [], "motion": [], "notices": []},
        "grippers": [{"name": "gripper", "strokes": [stroke], "opening": opening}],
        "arms": [{"name": "arm", "still": [], "speed": [0.5] * 100}],
    }
    write(layout.signals(0), signals)
    return layout.folder


def build(results: Path) -> None:
    folder = results.parent / "corrections"
    build_site(results, CorrectionFolder(folder, "kitchen", folder), None)


def test_the_page_gets_curves_and_strokes(results):
    build(results)
    text = (results / "review/data/episodes/000000.js").read_text()
    shown = json.loads(text.partition(",")[2].removesuffix(");\n"))["signals"]
    assert shown["strokes"] == [
        {"gripper": "gripper", "kind": "close", "start_frame": 30, "end_frame": 34}
    ]
    assert shown["times"][-1] == 9.9
    assert shown["grippers"][0]["opening"][31:33] == [1.0, 0.0]
    assert shown["arms"] == [{"name": "arm", "speed": [0.5] * 100}]


def test_without_signals_the_page_has_no_lane(results):
    Layout(results).signals(0).unlink()
    build(results)
    text = (results / "review/data/episodes/000000.js").read_text()
    assert json.loads(text.partition(",")[2].removesuffix(");\n"))["signals"] is None


@pytest.fixture
def page(results) -> Iterator:
    build(results)
    with browser.chromium() as chromium, browser.new_page(chromium) as page:
        page.goto((results / "review/index.html").as_uri() + "#episode=0")
        yield page


def drag_boundary_to(page, time_s: float) -> None:
    edge, lanes = page.locator('.edge[data-edge="1"]'), page.locator(".lanes")
    browser.drag(edge, lanes, None, browser.place(lanes, time_s / 10))
    page.mouse.up()


@pytest.mark.browser
def test_a_boundary_near_a_stroke_snaps_to_it_unless_alt_is_pressed(page):
    start = page.locator("#subtasks .start input").nth(1)
    drag_boundary_to(page, 3.5)  # a frame after the end of the stroke
    browser.expect_value(start.input_value, "3.40")
    page.keyboard.down("Alt")
    drag_boundary_to(page, 3.5)
    page.keyboard.up("Alt")
    browser.expect_value(start.input_value, "3.50")
    drag_boundary_to(page, 7.0)  # far from every stroke
    browser.expect_value(start.input_value, "7.00")
    browser.expect_value(page.locator(".track.signals polyline").count, 2)
    browser.expect_value(page.locator(".stroke.close").count, 1)
