"""The review page in a real browser: it shows the content of the dataset, and saves edits."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import browser
import pyarrow.parquet as pq
import pytest
from browser import expect_value, place
from processes import PATIENCE_S, eventually
from workflow_runs import Workdir

from cuesheet.report.correction_files import CorrectionFolder
from cuesheet.report.review_site import build_site

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [pytest.mark.workflow, pytest.mark.browser]

EPISODE = 3


@pytest.fixture(scope="module")
def chromium() -> Iterator[playwright.Browser]:
    with browser.chromium() as started:
        yield started


@pytest.fixture
def page(chromium) -> Iterator[playwright.Page]:
    with browser.new_page(chromium) as page:
        yield page


@pytest.fixture(scope="module")
def work(finished_demo: Workdir, tmp_path_factory) -> Workdir:
    """The finished demo, for tests that write nothing into it."""
    return finished_demo.copy_to(tmp_path_factory.mktemp("review") / "work")


@pytest.fixture(scope="module")
def review_server(finished_demo: Workdir, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """Address of `make review` on a copy of the demo, and the folder of the copy."""
    copy = finished_demo.copy_to(tmp_path_factory.mktemp("served") / "work")
    process = subprocess.Popen(
        [sys.executable, "-m", "cuesheet.app.cli", "review", "results/demo_v3"],
        cwd=copy.path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield re.search(r"http://\S+", process.stdout.readline()).group(), copy.path
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.fixture
def served(review_server: tuple[str, Path]) -> Iterator[tuple[str, Path]]:
    """Address of the served page, and its folder of corrections, which is empty."""
    address, folder = review_server
    yield address, folder / "corrections" / "demo_v3"
    for made in ("corrections", ".cuesheet/corrections"):
        shutil.rmtree(folder / made, ignore_errors=True)


def as_file(work: Workdir, episode: int = EPISODE) -> str:
    return (work.path / "results/demo_v3/review/index.html").as_uri() + f"#episode={episode}"


def opened(page: playwright.Page, address: str, episode: int = EPISODE) -> None:
    page.goto(f"{address.partition('#')[0]}#episode={episode}")
    is_opened(page, episode)


def is_opened(page: playwright.Page, episode: int) -> None:
    """Wait until the page shows an episode, and the list with it."""
    playwright.expect(page.locator("#episode-name")).to_have_text(f"Episode {episode}")
    chosen = page.locator(".entry[aria-selected=true]")
    playwright.expect(chosen).to_have_attribute("data-episode", str(episode))


def frame_rows(work: Workdir, episode: int) -> list[dict]:
    """The annotated frames of an episode, from the merged parquet."""
    table = pq.read_table(work.path / "results/demo_v3/annotated/data/chunk-000/file-000.parquet")
    return [row for row in table.to_pylist() if row["episode_index"] == episode]


def state(page: playwright.Page, style: str) -> list[str]:
    return page.locator(f'#state dd[data-style="{style}"]').all_inner_texts()


def expect_state(page: playwright.Page, style: str, texts: list[str]) -> None:
    expect_value(lambda: state(page, style), texts)


def shown_frame(page: playwright.Page) -> int:
    return int(page.locator("#clock").inner_text().split()[-1])


def expect_frame(page: playwright.Page, frame: object) -> None:
    expect_value(lambda: shown_frame(page), frame)


def seek(page: playwright.Page, share: float) -> int:
    """Click on the ruler at a share of the episode. Return the frame that is then shown."""
    ruler = page.locator(".ruler")
    ruler.click(position=place(ruler, share))
    last = int(page.locator("#timeline").get_attribute("aria-valuemax"))
    expect_frame(page, pytest.approx(share * (last + 1), abs=1))
    return shown_frame(page)


def go_to(page: playwright.Page, index: int, frames: int) -> None:
    """Show a frame: by a click that is close to it, and with the arrow keys."""
    steps = index - seek(page, (index + 0.5) / frames)
    for _ in range(abs(steps)):
        page.keyboard.press("ArrowRight" if steps > 0 else "ArrowLeft")
    expect_frame(page, index)


def width(locator: playwright.Locator) -> float:
    return locator.bounding_box()["width"]


def test_the_state_at_a_frame_is_what_the_dataset_says_there(page, work):
    opened(page, as_file(work))
    frames = frame_rows(work, EPISODE)
    seen = set()
    for share in (0.0, 0.31, 0.52, 0.77, 0.999):
        index = seek(page, share)
        seen.add(index)
        frame = frames[index]
        assert abs(index - share * len(frames)) <= 1
        past = [r for r in frame["language_persistent"] if r["timestamp"] <= frame["timestamp"]]
        for style in ("subtask", "plan", "memory"):
            rows = [row["content"] for row in past if row["style"] == style]
            expect_state(page, style, [rows[-1] if rows else "none"])
    assert len(seen) == 5


def test_events_are_shown_on_their_frame_alone(page, work):
    opened(page, as_file(work))
    frames = frame_rows(work, EPISODE)
    asked = [
        (i, row["content"])
        for i, frame in enumerate(frames)
        for row in frame["language_events"]
        if row["style"] == "interjection"
    ]
    assert asked
    for index, text in asked:
        go_to(page, index, len(frames))
        expect_state(page, "interjection", [text])
        page.keyboard.press("ArrowRight")
        expect_frame(page, index + 1)
        expect_state(page, "interjection", [])


def test_boxes_are_drawn_in_pixels_of_the_frame(page, work):
    opened(page, as_file(work))
    pairs = work.json(f"results/demo_v3/vqa/{EPISODE:06d}.json")["pairs"]
    pair = next(pair for pair in pairs if pair["type"] == "bbox")
    page.locator(f'.tick[data-frame="{pair["frame_index"]}"]').click()
    expect_frame(page, pair["frame_index"])
    left, top, right, bottom = pair["answer"]["detections"][0]["bbox"]
    drawn = page.locator("figure", has_text=pair["camera"]).locator("rect").first
    expect_value(
        lambda: [float(drawn.get_attribute(name)) for name in ("x", "y", "width", "height")],
        pytest.approx([left, top, right - left, bottom - top]),
    )
    playwright.expect(page.locator("#questions")).to_contain_text(pair["question"])


def test_all_clips_play_in_step_and_show_the_frame(page, work):
    opened(page, as_file(work))
    page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.readyState >= 2)")
    frames = frame_rows(work, EPISODE)
    time = frames[seek(page, 0.5)]["timestamp"]
    times = "[...document.querySelectorAll('video')].map(video => video.currentTime)"
    expect_value(lambda: page.evaluate(times), [pytest.approx(time + 0.05, abs=0.05)] * 2)
    before = seek(page, 0.1)  # far from the end of the episode, at which playback stops
    page.keyboard.press(" ")
    playwright.expect(page.locator("#play")).to_have_text("Pause")
    page.wait_for_function(
        f"""() => {{
          const [first, second] = {times};
          const frame = Number(document.querySelector('#clock').textContent.split(' ').at(-1));
          return frame > {before + 5} && Math.abs(first - second) < 0.25;
        }}"""
    )
    page.keyboard.press(" ")
    playwright.expect(page.locator("#play")).to_have_text("Play")


def test_nothing_is_fetched_from_elsewhere(page, work):
    fetched = []
    page.on("request", lambda request: fetched.append(request.url))
    opened(page, as_file(work))
    page.wait_for_function(
        """() => {
          const images = [...document.querySelectorAll('.entry img')];
          const videos = [...document.querySelectorAll('video')];
          return images.length == 4 && images.every(image => image.complete)
            && videos.length == 2 && videos.every(video => video.readyState >= 2);
        }"""
    )
    folder = (work.path / "results/demo_v3").as_uri()
    assert len(fetched) > 15
    assert [url for url in fetched if not url.startswith((folder, "data:"))] == []


def expect_entries(page: playwright.Page, episodes: list[str]) -> None:
    """Wait until the list shows these episodes, in this order."""
    shown = "all => all.map(one => one.dataset.episode)"
    expect_value(lambda: page.locator(".entry").evaluate_all(shown), episodes)


def hold_boundary(page: playwright.Page, number: int, share: float) -> None:
    """Drag the boundary before subtask `number` to a share of the episode, and hold it there."""
    edge, ruler = page.locator(f'.edge[data-edge="{number}"]'), page.locator(".ruler")
    browser.drag(edge, ruler, None, place(ruler, share))


def saved(page: playwright.Page, folder: Path) -> dict:
    playwright.expect(page.locator("#saved")).to_have_text("saved")
    return json.loads((folder / f"{EPISODE:06d}.json").read_text())


def write_long_episode(copy: Workdir, subtasks: int = 200) -> dict:
    """Replace what the page knows of an episode by two hours with so many subtasks."""
    path = copy.path / f"results/demo_v3/review/data/episodes/{EPISODE:06d}.js"
    text = path.read_text()
    episode = json.loads(text[text.index("{") : text.rindex(")")])
    length, end_s = 72_000, 7200.0
    starts = [end_s * i / subtasks for i in range(subtasks)]
    parts = [
        {"start_s": start, "end_s": start + end_s / subtasks, "label": f"move item {i}"}
        for i, start in enumerate(starts)
    ]
    episode |= {
        **{"length": length, "end_s": end_s, "fps": 10.0, "subtasks": parts, "pairs": []},
        "timestamps": [i / 10 for i in range(length)],
        "persistent": [
            {"style": "subtask", "timestamp": part["start_s"], "content": part["label"]}
            for part in parts
        ],
        "events": [],
    }
    name = json.dumps(f"episodes/{EPISODE:06d}")
    path.write_text(f"Cuesheet.deliver({name},{json.dumps(episode)});")
    return episode


@pytest.fixture
def long_page(page, work, tmp_path) -> playwright.Page:
    copy = work.copy_to(tmp_path / "long")
    write_long_episode(copy)
    opened(page, as_file(copy))
    return page


def visible_labels(page: playwright.Page) -> list[str]:
    """Labels on the timeline that can be read, as they are not cut off."""
    return page.evaluate(
        """() => {
          const zone = document.querySelector('#timeline').getBoundingClientRect();
          return [...document.querySelectorAll('.part .text')].filter((text) => {
            const box = text.getBoundingClientRect();
            return text.scrollWidth <= text.clientWidth && box.left >= zone.left - 1
              && box.right <= zone.right + 1;
          }).map((text) => text.textContent);
        }"""
    )


def test_an_episode_of_two_hours_with_200_subtasks_is_readable(long_page):
    page = long_page
    expect_value(lambda: len(visible_labels(page)) >= 6, True)
    playwright.expect(page.locator("#minimap .parts i")).to_have_count(200)
    page.locator("#zoom-fit").click()
    visible = pytest.approx(width(page.locator("#timeline")), abs=1)
    expect_value(lambda: width(page.locator(".lanes")), visible)
    expect_value(lambda: visible_labels(page), [])  # a few pixels each, so labels would be noise
    marks = page.locator(".ruler span")
    playwright.expect(marks.first).to_have_text("0 s")
    playwright.expect(marks.get_by_text("1:00:00", exact=True)).to_have_count(1)


def test_the_timeline_zooms_at_the_pointer_and_follows_the_playhead(long_page):
    page = long_page
    timeline, lanes, playhead = (page.locator(one) for one in ("#timeline", ".lanes", ".playhead"))
    page.keyboard.press("0")
    zone = timeline.bounding_box()
    expect_value(lambda: width(lanes), pytest.approx(zone["width"], abs=1))
    timeline.click(position={"x": 0.5 * zone["width"], "y": 60})
    expect_frame(page, pytest.approx(36_000, abs=100))
    page.keyboard.down("Control")
    for _ in range(4):
        page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    expect_value(lambda: width(lanes) / zone["width"], pytest.approx(2.718281828**4, rel=0.02))
    # One hour is still below the pointer.
    middle = pytest.approx(zone["x"] + 0.5 * zone["width"], abs=3)
    expect_value(lambda: playhead.bounding_box()["x"], middle)
    page.keyboard.press("End")
    expect_frame(page, 71_999)
    visible = pytest.approx(zone["x"] + zone["width"] / 2, abs=zone["width"] / 2 + 1)
    expect_value(lambda: playhead.bounding_box()["x"], visible)
    page.keyboard.press("0")
    expect_value(lambda: width(lanes), pytest.approx(zone["width"], abs=1))
    page.keyboard.press("+")
    expect_value(lambda: width(lanes), pytest.approx(2 * zone["width"], rel=0.01))


def test_the_minimap_moves_the_visible_part(long_page):
    page = long_page
    minimap, timeline = page.locator("#minimap"), page.locator("#timeline")
    minimap.click(position=place(minimap, 0.75))

    def middle() -> float:
        """Return the center of the visible part as a share of the width of the minimap."""
        window, whole = page.locator("#minimap .window").bounding_box(), minimap.bounding_box()
        return (window["x"] + window["width"] / 2 - whole["x"]) / whole["width"]

    expect_value(middle, pytest.approx(0.75, abs=3 / width(minimap)))
    timeline.click(position={"x": 0.5 * width(timeline), "y": 60})
    expect_frame(page, pytest.approx(0.75 * 72_000, abs=60))


def test_thumbnails_are_frames_of_the_clip_at_their_time(page, served):
    address, _ = served
    opened(page, address)
    canvases = page.locator(".thumbnails canvas")
    playwright.expect(canvases.nth(9)).to_be_attached()
    spread = canvases.first.evaluate(
        """(canvas) => {
          const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          return Math.max(...data.filter((_, i) => i % 4 == 0))
            - Math.min(...data.filter((_, i) => i % 4 == 0));
        }"""
    )
    assert spread > 50  # an image, not a single color
    first = canvases.first.evaluate("canvas => canvas.toDataURL()")
    last = canvases.last.evaluate("canvas => canvas.toDataURL()")
    assert first != last


def test_cameras_are_enlarged_and_hidden(page, work):
    opened(page, as_file(work))
    front = page.locator('figure[data-camera="observation.images.front"]')
    wrist = page.locator('figure[data-camera="observation.images.wrist"]')
    before = width(front)
    front.get_by_role("button", name="Enlarge").click()
    expect_value(lambda: width(front) > 1.8 * before, True)
    front.get_by_role("button", name="Reduce").click()
    expect_value(lambda: width(front), pytest.approx(before, abs=1))
    wrist.get_by_role("button", name="Hide").click()
    playwright.expect(wrist).to_be_hidden()
    expect_value(lambda: width(front) > 1.8 * before, True)
    page.locator('.entry[data-episode="1"]').click()  # it stays hidden in other episodes
    playwright.expect(page.locator("#episode-name")).to_have_text("Episode 1")
    playwright.expect(wrist).to_be_hidden()
    page.get_by_role("button", name="Show wrist").click()
    playwright.expect(wrist).to_be_visible()


def edited_review(work: Workdir, folder: Path, edit: Callable[[dict], None]) -> Workdir:
    """Return a copy whose review page shows an episode as `edit` changes it."""
    copy = work.copy_to(folder)
    path = copy.path / f"results/demo_v3/review/data/episodes/{EPISODE:06d}.js"
    text = path.read_text()
    episode = json.loads(text[text.index("{") : text.rindex(")")])
    edit(episode)
    name = json.dumps(f"episodes/{EPISODE:06d}")
    path.write_text(f"Cuesheet.deliver({name},{json.dumps(episode)});")
    return copy


def test_task_and_rephrasings_are_those_of_the_frame(page, work, tmp_path):
    first = ["pick up the puck", "lift the puck"]
    second = ["place the puck", "put the puck down", "set the puck on the goal"]

    def give_two_tasks(episode: dict) -> None:
        rows = [row for row in episode["persistent"] if row["style"] != "task_aug"]
        like = {"style": "task_aug", "role": "user"}
        for frame, texts in ((0, first), (20, second)):
            time = episode["timestamps"][frame]
            rows += [{**like, "timestamp": time, "content": text} for text in texts]
        episode["persistent"] = sorted(rows, key=lambda row: row["timestamp"])

    opened(page, as_file(edited_review(work, tmp_path / "tasks", give_two_tasks)))
    frames = len(frame_rows(work, EPISODE))
    for index, texts in ((0, first), (19, first), (20, second), (frames - 1, second)):
        go_to(page, index, frames)
        task = page.locator('#state dd[data-style="task"]')
        playwright.expect(task).to_have_text(re.compile(f"^{texts[0]}"))
        others = task.locator("[title]")
        playwright.expect(others).to_have_attribute("title", "\n".join(texts[1:]))


def test_labels_of_boxes_stay_inside_the_image(page, work, tmp_path):
    def give_long_labels(episode: dict) -> None:
        camera = episode["cameras"][0]
        width, height = camera["width"], camera["height"]
        corners = [
            [width - 9, 0, width, 8, "a label much longer than the box is wide"],
            [0, height - 5, 9, height, "small"],
            [width / 2, height / 2, width, height, "word " * 40],
        ]
        pair = {"frame_index": 0, "camera": camera["name"], "type": "bbox", "question": "Where?"}
        detections = [{"label": one, "bbox_format": "xyxy", "bbox": box} for *box, one in corners]
        episode["pairs"] = [{**pair, "answer": {"detections": detections}}]

    opened(page, as_file(edited_review(work, tmp_path / "labels", give_long_labels)))
    labels = page.locator(".overlay text")
    playwright.expect(labels).to_have_count(3)
    playwright.expect(labels.last).to_have_text(re.compile("…$"))
    image = page.locator(".overlay").first.bounding_box()
    for label in labels.all():
        box = label.bounding_box()
        assert box["x"] >= image["x"] - 1
        assert box["x"] + box["width"] <= image["x"] + image["width"] + 1
        assert box["y"] >= image["y"] - 3
        assert box["y"] + box["height"] <= image["y"] + image["height"] + 3


def test_a_dragged_boundary_is_saved_and_is_there_again(page, served, work):
    address, folder = served
    opened(page, address)
    plan = work.json(f"results/demo_v3/plan/{EPISODE:06d}.json")
    before = plan["subtasks"]
    middle = (before[0]["start_s"] + before[1]["end_s"]) / 2 + 0.3
    page.evaluate(
        """() => {
          const saved = document.querySelector('#saved');
          window.said = [];
          const hear = new MutationObserver(() => said.push(saved.textContent));
          hear.observe(saved, {childList: true});
        }"""
    )
    hold_boundary(page, 1, middle / before[-1]["end_s"])
    page.mouse.up()
    file = saved(page, folder)
    assert page.evaluate("said") == ["saving…", "saved"]
    times = [frame["timestamp"] for frame in frame_rows(work, EPISODE)]
    moved = file["subtasks"][1]["start_s"]
    assert abs(moved - middle) <= 0.06
    assert min(abs(moved - time) for time in times) < 1e-5
    assert moved != before[1]["start_s"]
    assert file["subtasks"][0]["end_s"] == moved
    assert [part["label"] for part in file["subtasks"]] == [part["label"] for part in before]
    assert file["subtasks"][0]["start_s"] == 0
    assert file["subtasks"][-1]["end_s"] == before[-1]["end_s"]
    assert (file["format"], file["dataset"], file["episode_index"]) == (1, "demo_v3", EPISODE)
    assert file["length"] == len(times)
    page.reload()
    start = page.locator('tr[data-row="1"] .start input')
    playwright.expect(start).to_have_value(f"{moved:.2f}")


def test_the_table_shows_a_boundary_while_it_is_dragged(page, work):
    opened(page, as_file(work))
    parts = work.json(f"results/demo_v3/plan/{EPISODE:06d}.json")["subtasks"]
    end = page.locator('tr[data-row="0"] .end input')
    playwright.expect(end).to_have_value(f"{parts[0]['end_s']:.2f}")
    time_s = (parts[1]["start_s"] + parts[1]["end_s"]) / 2
    hold_boundary(page, 1, time_s / parts[-1]["end_s"])
    expect_value(lambda: float(end.input_value()), pytest.approx(time_s, abs=0.06))
    dragged = end.input_value()
    playwright.expect(page.locator('tr[data-row="1"] .start input')).to_have_value(dragged)
    page.mouse.up()
    playwright.expect(page.locator("#saved")).to_have_text("saved in this browser")
    playwright.expect(end).to_have_value(dragged)


def test_times_can_be_typed_and_escape_restores_them(page, served, work):
    address, folder = served
    opened(page, address)
    parts = work.json(f"results/demo_v3/plan/{EPISODE:06d}.json")["subtasks"]
    frame = (parts[0]["start_frame"] + parts[0]["end_frame"]) // 2
    time_s = frame_rows(work, EPISODE)[frame]["timestamp"]
    typed = f"{time_s:.2f}"
    end = page.locator('tr[data-row="0"] .end input')
    before = end.input_value()
    end.fill(f"0:{time_s:05.2f}")
    end.press("Enter")
    file = saved(page, folder)
    assert file["subtasks"][0]["end_s"] == pytest.approx(time_s, abs=1e-5)
    assert file["subtasks"][1]["start_s"] == file["subtasks"][0]["end_s"]
    expect_frame(page, frame)
    end.fill("soon")
    end.press("Enter")
    playwright.expect(end).to_have_value(typed)
    end.fill(before)
    end.press("Escape")
    playwright.expect(end).to_have_value(typed)
    label = page.locator('tr[data-row="0"] .label input')
    name = label.input_value()
    label.fill("half typed")
    label.press("Escape")
    playwright.expect(label).to_have_value(name)
    assert saved(page, folder)["subtasks"][0]["label"] == name


def test_escape_closes_the_form_which_shows_its_frame(page, work):
    opened(page, as_file(work))
    pair = work.json(f"results/demo_v3/vqa/{EPISODE:06d}.json")["pairs"][0]
    page.locator(f'.tick[data-frame="{pair["frame_index"]}"]').click()
    page.locator("#questions").get_by_role("button", name="Edit").first.click()
    form = page.locator("#questions form")
    playwright.expect(form).to_contain_text(f"frame {pair['frame_index']} ")
    back = form.get_by_role("button", name=f"Show frame {pair['frame_index']}")
    playwright.expect(back).to_be_hidden()
    assert seek(page, 0.4) != pair["frame_index"]
    back.click()
    expect_frame(page, pair["frame_index"])
    form.locator("input").first.fill("Nothing of this stays.")
    page.keyboard.press("Escape")
    playwright.expect(form).to_have_count(0)
    playwright.expect(page.locator("#questions")).to_contain_text(pair["question"])


def test_back_and_links_with_a_time_open_the_moment(page, work):
    page.goto(as_file(work, 2) + "&t=3.5")
    is_opened(page, 2)
    playwright.expect(page.locator("#now-time")).to_have_text("3.50 s")
    page.locator('.entry[data-episode="0"]').click()
    playwright.expect(page.locator("#episode-name")).to_have_text("Episode 0")
    seek(page, 0.5)
    page.wait_for_function("location.hash.includes('t=')")
    time = page.evaluate("location.hash").partition("t=")[2]
    playwright.expect(page.locator("#now-time")).to_have_text(f"{float(time):.2f} s")
    page.go_back()
    playwright.expect(page.locator("#episode-name")).to_have_text("Episode 2")
    playwright.expect(page.locator("#now-time")).to_have_text("3.50 s")
    page.go_forward()
    playwright.expect(page.locator("#episode-name")).to_have_text("Episode 0")
    playwright.expect(page.locator("#now-time")).to_have_text(f"{float(time):.2f} s")


def test_texts_of_every_kind_are_corrected_and_written_by_the_next_run(
    page, served, work, tmp_path
):
    address, folder = served
    opened(page, address)
    page.locator("summary", has_text="Rephrasings").click()
    page.get_by_label("Rephrasing 1", exact=True).fill("Bring the puck home")
    page.get_by_label("Rephrasing 1", exact=True).press("Enter")
    page.get_by_label("Delete rephrasing 2", exact=True).click()
    page.locator("#add-rephrasing").click()
    page.get_by_label("New rephrasing").fill("Puck to goal, please")
    page.get_by_label("New rephrasing").press("Enter")
    plan = work.json(f"results/demo_v3/plan/{EPISODE:06d}.json")
    rows = [row["content"] for row in plan["persistent"] if row["style"] == "task_aug"]
    talked = seek(page, 0.2)
    page.keyboard.press("i")
    page.get_by_label("person says").fill("Careful now")
    page.keyboard.press("Enter")  # both texts are needed
    playwright.expect(page.locator("#talk form")).to_have_count(1)
    page.get_by_label("robot says").fill("I will be careful")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#talk")).to_contain_text("I will be careful")
    expect_state(page, "interjection", ["Careful now"])
    page.keyboard.press("n")
    memory = page.get_by_label("Memory at the start of subtask 2")
    memory.fill("The puck is below the gripper.")
    memory.blur()
    expect_state(page, "memory", ["The puck is below the gripper."])
    start = shown_frame(page)
    page.locator("#subtasks .label input").first.fill("stretch out towards the puck")
    page.locator("#subtasks .label input").first.press("Enter")
    file = saved(page, folder)
    texts = ["Bring the puck home", *rows[3:], "Puck to goal, please"]
    assert file["rephrasings"] == texts
    assert file["subtasks"][1]["memory"] == "The puck is below the gripper."
    copy = Workdir(folder.parents[1]).copy_to(tmp_path / "next")
    copy.run("datasets")
    frames = frame_rows(copy, EPISODE)
    persistent = frames[0]["language_persistent"]
    found = [row["content"] for row in persistent if row["style"] == "task_aug"]
    assert found == [rows[0], *texts]
    memories = {row["timestamp"]: row["content"] for row in persistent if row["style"] == "memory"}
    assert memories[frames[start]["timestamp"]] == "The puck is below the gripper."
    said = [row["content"] for row in frames[talked]["language_events"]]
    assert "Careful now" in said
    labels = [row["content"] for row in persistent if row["style"] == "subtask"]
    assert labels == [part["label"] for part in file["subtasks"]]
    assert labels[0] == "stretch out towards the puck"


def test_an_interjection_is_edited_deleted_and_reset(page, served, work):
    address, folder = served
    opened(page, address)
    events = work.json(f"results/demo_v3/interjections/{EPISODE:06d}.json")["events"]
    asked = [row for row in events if row["style"] == "interjection"]
    page.locator(".dot.asks").first.click()
    page.locator("#talk").get_by_role("button", name="Edit").click()
    page.get_by_label("person says").fill("Stop there")
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#talk")).to_contain_text(asked[0]["content"])
    page.locator("#talk").get_by_role("button", name="Delete").click()
    expect_state(page, "interjection", [])
    file = saved(page, folder)
    assert len(file["interjections"]) == len(asked)  # the speech at the first frame is left
    assert asked[0]["content"] not in json.dumps(file)
    page.locator("#reset-talks").click()
    expect_state(page, "interjection", [asked[0]["content"]])


def test_splitting_renaming_merging_and_undoing(page, served, work):
    address, folder = served
    opened(page, address)
    labels = page.locator("#subtasks .label input")
    count = len(work.json(f"results/demo_v3/plan/{EPISODE:06d}.json")["subtasks"])
    playwright.expect(labels).to_have_count(count)
    seek(page, 0.05)
    page.keyboard.press("s")
    playwright.expect(labels).to_have_count(count + 1)
    labels.first.fill("wait for it")
    labels.first.press("Enter")
    assert saved(page, folder)["subtasks"][0]["label"] == "wait for it"
    page.keyboard.press("Control+z")
    playwright.expect(labels.first).not_to_have_value("wait for it")
    page.keyboard.press("Control+z")
    playwright.expect(labels).to_have_count(count)
    page.keyboard.press("Control+Shift+z")
    playwright.expect(labels).to_have_count(count + 1)
    page.keyboard.press("ArrowLeft")  # into the first part
    page.keyboard.press("m")
    playwright.expect(labels).to_have_count(count)


def test_one_label_after_the_other_can_be_typed(page, served):
    address, folder = served
    opened(page, address)
    labels = page.locator("#subtasks .label input")
    count = labels.count()
    for number, text in ((0, "smash"), (1, "merge")):  # s, m and b are keys of the page
        labels.nth(number).click(click_count=3)
        page.keyboard.type(text)
    labels.nth(1).press("Enter")
    playwright.expect(labels).to_have_count(count)
    found = [part["label"] for part in saved(page, folder)["subtasks"]]
    assert found[:2] == ["smash", "merge"]


def test_judging_noting_and_fixing_a_question(page, served, work):
    address, folder = served
    opened(page, address)
    page.keyboard.press("b")
    page.locator("#note").fill("the puck fell")
    page.locator("#note").blur()
    pairs = work.json(f"results/demo_v3/vqa/{EPISODE:06d}.json")["pairs"]
    first = pairs[0]["frame_index"]
    here = [pair for pair in pairs if pair["frame_index"] == first]
    assert len(here) == 2
    page.locator(f'.tick[data-frame="{first}"]').click()
    page.locator("#questions").get_by_role("button", name="Delete").first.click()
    page.locator("#questions").get_by_role("button", name="Edit").first.click()
    page.locator("form.question input").first.fill("What is it?")
    page.get_by_role("button", name="Save").click()
    playwright.expect(page.locator("#questions")).to_contain_text("What is it?")
    file = saved(page, folder)
    assert (file["verdict"], file["note"]) == ("bad", "the puck fell")
    deleted, fixed = file["vqa"]
    assert deleted == {
        **{"frame_index": first, "camera": here[0]["camera"], "type": here[0]["type"]},
        "delete": True,
    }
    assert fixed["question"] == "What is it?"
    assert fixed["answer"] == here[1]["answer"]
    assert "subtasks" not in file


def test_questions_are_added_and_boxes_drawn(page, served, work, tmp_path):
    address, folder = served
    opened(page, address)
    decoded = work.json(f"results/demo_v3/keyframes/{EPISODE:06d}/keyframes.json")["keyframes"]
    pairs = work.json(f"results/demo_v3/vqa/{EPISODE:06d}.json")["pairs"]
    camera = "observation.images.front"
    asked = {pair["frame_index"] for pair in pairs if pair["camera"] == camera}
    free = [one["frame_index"] for one in decoded[camera] if one["frame_index"] not in asked]
    seek(page, (free[1] + 1.5) / len(frame_rows(work, EPISODE)))  # next to it
    page.locator("#add-camera").select_option(camera)
    page.locator("#add-type").select_option("bbox")
    page.locator("#add-question").click()
    expect_frame(page, free[1])
    page.get_by_label("question", exact=True).fill("Where is the button?")
    page.get_by_label("label 1").fill("red button")
    page.get_by_role("button", name="Save").click()
    playwright.expect(page.locator(".problem")).to_contain_text("min less than max")
    image = page.locator("figure", has_text=camera).locator(".overlay")
    browser.drag(image, image, place(image, 0.25, 0.5), place(image, 0.5, 0.75))
    page.mouse.up()
    page.get_by_role("button", name="Save").click()
    added = saved(page, folder)["vqa"]
    assert [(entry["frame_index"], entry["camera"]) for entry in added] == [(free[1], camera)]
    (found,) = added[0]["answer"]["detections"]
    assert found["bbox"] == pytest.approx([56, 112, 112, 168], abs=1)  # of 224 x 224 pixels
    # Text alone, on the next free frame of the same camera.
    page.locator("#add-type").select_option("attribute")
    page.keyboard.press("a")
    page.get_by_label("question", exact=True).fill("What color is the button?")
    for name, value in (("label", "button"), ("attribute", "color"), ("value", "red")):
        page.get_by_label(name, exact=True).fill(value)
    page.get_by_role("button", name="Save").click()
    file = saved(page, folder)
    assert sorted(entry["type"] for entry in file["vqa"]) == ["attribute", "bbox"]
    assert len({entry["frame_index"] for entry in file["vqa"]}) == 2
    copy = Workdir(folder.parents[1]).copy_to(tmp_path / "next")
    copy.run("datasets")
    for entry in file["vqa"]:
        rows = frame_rows(copy, EPISODE)[entry["frame_index"]]["language_events"]
        said = {
            row["role"]: row["content"]
            for row in rows
            if row["style"] == "vqa" and row["camera"] == camera
        }
        assert said["user"] == entry["question"]
        assert json.loads(said["assistant"]) == entry["answer"]


def test_what_the_next_run_would_refuse_is_said_and_not_lost(page, served):
    address, folder = served
    opened(page, address)
    labels = page.locator("#subtasks .label input")
    labels.nth(0).fill("words worth keeping")
    labels.nth(1).fill("\u0001")  # nothing that can be written
    labels.nth(1).press("Enter")
    notice = page.locator("#notice")
    playwright.expect(notice).to_contain_text("subtasks.1.label")
    playwright.expect(page.locator("#saved")).to_have_text("not saved")
    first = folder / f"{EPISODE:06d}.json"
    assert not first.exists() or "\\u0001" not in first.read_text()
    page.reload()
    playwright.expect(labels.nth(0)).to_have_value("words worth keeping")
    playwright.expect(notice).to_contain_text("saved in this browser")
    labels.nth(1).fill("press it")
    labels.nth(1).press("Enter")
    playwright.expect(notice).to_be_hidden()
    file = saved(page, folder)
    assert [part["label"] for part in file["subtasks"]][:2] == ["words worth keeping", "press it"]


def test_episodes_that_samples_agree_on_least_can_come_first(page, work, tmp_path):
    copy = work.copy_to(tmp_path / "sampled")
    results = copy.path / "results/demo_v3"
    values = {0: (0.9, [0.95, 0.9, 0.85]), 2: (0.45, [0.9, 0.15]), 3: (0.7, None)}
    for index, (agreement, parts) in values.items():
        path = results / f"plan/{index:06d}.json"
        plan = json.loads(path.read_text())
        for number, part in enumerate(plan["subtasks"]):
            part["agreement"] = parts[number] if parts else agreement
        sample = {"temperature": 0.7, "seed": 0, "subtasks": plan["subtasks"]}
        path.write_text(json.dumps({**plan, "agreement": agreement, "samples": [sample] * 5}))
    none = CorrectionFolder(copy.path / "corrections", "demo_v3", copy.path / "aside")
    build_site(results, none, None)
    opened(page, as_file(copy), 2)
    playwright.expect(page.locator("#sort option:not([hidden])")).to_have_count(6)
    page.locator("#sort").select_option("agreement")
    expect_entries(page, ["2", "3", "0", "1"])
    mark = page.locator('.entry[data-episode="2"] .mark.warn')
    playwright.expect(mark).to_have_text("≈ 0.45")
    agreed = page.locator("#subtasks td.agreed")
    playwright.expect(agreed).to_have_text(["≈ 0.90", "≈ 0.15"])
    part = page.locator('.span[data-part="1"]')
    title = re.compile("agreement of 5 samples: 0.15")
    playwright.expect(part).to_have_attribute("title", title)
    share = pytest.approx(0.15, abs=0.01)
    expect_value(lambda: width(part.locator(".agreed")) / width(part), share)
    # What a person changed has no agreement any more.
    page.locator("#subtasks .label input").nth(1).fill("something else")
    page.locator("#subtasks .label input").nth(1).press("Enter")
    playwright.expect(agreed).to_have_text(["≈ 0.90", "–"])


def test_without_samples_nothing_is_said_of_agreement(page, work):
    opened(page, as_file(work))
    playwright.expect(page.locator("#sort [value=agreement]")).to_be_hidden()
    playwright.expect(page.locator("#main .agreed")).to_have_count(0)
    playwright.expect(page.locator("#list")).not_to_contain_text("≈")


def test_what_someone_else_saved_is_not_overwritten_unseen(page, served):
    address, folder = served
    opened(page, address)
    page.keyboard.press("g")
    mine = saved(page, folder)
    theirs = {**mine, "note": "of another person"}
    (folder / f"{EPISODE:06d}.json").write_text(json.dumps(theirs))
    page.keyboard.press("b")
    notice = page.locator("#notice")
    playwright.expect(notice).to_contain_text("Someone else also corrected")
    assert json.loads((folder / f"{EPISODE:06d}.json").read_text()) == theirs
    notice.get_by_role("button", name="Keep mine").click()
    playwright.expect(notice).to_be_hidden()
    assert saved(page, folder)["verdict"] == "bad"
    (aside,) = (folder.parents[1] / ".cuesheet/corrections/demo_v3").iterdir()
    assert json.loads(aside.read_text()) == theirs


def test_what_is_being_typed_outlives_a_closed_tab(page, served):
    address, folder = served
    opened(page, address)
    page.route("**/api/corrections/*", lambda route: route.abort())  # nothing reaches the server
    page.locator("#subtasks .label input").first.fill("half a sen")
    again = page.context.new_page()
    again.goto(f"{address}assets/review.css")  # of the same origin, so of the same storage
    again.wait_for_function("JSON.stringify(localStorage).includes('half a sen')")
    page.close(run_before_unload=False)
    opened(again, address)
    playwright.expect(again.locator("#subtasks .label input").first).to_have_value("half a sen")
    assert saved(again, folder)["subtasks"][0]["label"] == "half a sen"


def test_opened_as_a_file_corrections_stay_and_can_be_downloaded(page, work):
    opened(page, as_file(work))
    page.keyboard.press("g")
    playwright.expect(page.locator("#saved")).to_have_text("saved in this browser")
    page.reload()
    playwright.expect(page.locator("#good")).to_have_attribute("aria-pressed", "true")
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == f"{EPISODE:06d}.json"
    file = json.loads(Path(download.value.path()).read_text())
    assert (file["verdict"], file["episode_index"]) == ("good", EPISODE)


def test_ten_thousand_episodes_are_a_short_page(page, work, tmp_path):
    copy = work.copy_to(tmp_path / "many")
    data = copy.path / "results/demo_v3/review/data"
    text = (data / "list/0000.js").read_text()
    (entry, *_) = json.loads(text[text.index("[") : text.rindex("]") + 1])
    for chunk in range(10):
        rows = [{**entry, "index": 1000 * chunk + i, "thumb": False} for i in range(1000)]
        rows[7]["task"] = f"polish lamp {chunk}"
        name = f"list/{chunk:04d}"
        (data / f"{name}.js").write_text(f"Cuesheet.deliver({json.dumps(name)},{json.dumps(rows)})")
    site = (data / "site.js").read_text()
    (data / "site.js").write_text(site.replace('"chunks":1', '"chunks":10'))
    opened(page, as_file(copy), 0)
    playwright.expect(page.locator("#counts")).to_have_text("10,000 episodes")
    assert page.locator(".entry").count() < 40
    page.evaluate("document.querySelector('#list').scrollTop = 84 * 7000")
    playwright.expect(page.locator('.entry[data-episode="7000"]')).to_be_visible()
    assert page.locator(".entry").count() < 40
    page.locator("#search").fill("lamp 4 polish")
    playwright.expect(page.locator("#counts")).to_have_text("1 of 10,000 episodes")
    playwright.expect(page.locator(".entry")).to_have_attribute("data-episode", "4007")


def test_a_review_goes_from_episode_to_episode_and_counts_those_that_are_done(page, served):
    address, folder = served
    opened(page, address, 0)
    page.locator("#reviewer").fill("Ana")
    page.locator("#reviewer").press("Tab")
    progress = page.locator("#progress")
    playwright.expect(progress).to_have_text("0 of 4 done")
    page.locator("#done-next").click()
    playwright.expect(page.locator("#episode-name")).to_have_text("Episode 1")
    playwright.expect(progress).to_have_text("1 of 4 done")
    page.keyboard.press("g")
    page.keyboard.press("d")
    playwright.expect(page.locator("#episode-name")).to_have_text("Episode 2")
    playwright.expect(progress).to_have_text("2 of 4 done")
    path = folder / "000001.json"
    eventually(lambda: path.is_file() and "done" in path.read_text())
    file = json.loads(path.read_text())
    assert (file["done"], file["verdict"], file["reviewer"]) == (True, "good", "Ana")
    playwright.expect(page.locator("#next")).to_be_hidden()  # nothing changes the dataset
    page.reload()
    playwright.expect(progress).to_have_text("2 of 4 done")
    playwright.expect(page.locator("#reviewer")).to_have_value("Ana")
    page.locator("#filters summary").click()
    page.locator("#filter-done").select_option("open")
    expect_entries(page, ["2", "3"])
    playwright.expect(progress).to_have_text("0 of 2 done")


def test_filters_are_combined(page, work, tmp_path):
    copy = work.copy_to(tmp_path / "filtered")
    results = copy.path / "results/demo_v3"
    for index, code in ((0, "stage_warning"), (2, "plans_disagree"), (3, "plans_disagree")):
        path = results / f"validation/{index:06d}.json"
        warning = {"code": code, "where": "plan", "message": "of a test"}
        path.write_text(json.dumps({**json.loads(path.read_text()), "warnings": [warning]}))
    build_site(results, CorrectionFolder(copy.path / "c", "demo_v3", copy.path / "b"), None)
    opened(page, as_file(copy), 0)
    page.keyboard.press("g")
    page.locator("#filters summary").click()
    page.locator("#filter-check").select_option("plans_disagree")
    expect_entries(page, ["2", "3"])
    task = page.locator('.entry[data-episode="3"] .name').inner_text()
    page.locator("#filter-task").select_option(task)
    expect_entries(page, ["3"])
    page.locator("#filter-verdict").select_option("good")
    expect_entries(page, [])
    page.locator("#filter-check").select_option("any")
    expect_entries(page, ["0"])
    page.locator("#clear-filters").click()
    expect_entries(page, ["0", "1", "2", "3"])


def test_after_a_change_the_page_gives_the_command_that_applies_it(page, served):
    address, folder = served
    opened(page, address)
    playwright.expect(page.locator("#next")).to_be_hidden()
    page.locator("#subtasks .label input").first.fill("stretch out")
    page.locator("#subtasks .label input").first.press("Enter")
    saved(page, folder)
    playwright.expect(page.locator("#pending")).to_contain_text("1 corrected episode is not in the")
    command = page.locator("#command").inner_text()
    assert command.startswith("snakemake --")
    assert "--cores" in command
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#copy").click()
    expect_value(lambda: page.evaluate("navigator.clipboard.readText()"), command)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_the_pages_have_no_accessibility_violations(chromium, work, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def check(page: playwright.Page) -> None:
        found = axe.run(page).response["violations"]
        assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in found] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    size = {"width": width, "height": 844}
    options = {"viewport": size, "color_scheme": scheme, "reduced_motion": "reduce"}
    with browser.new_page(chromium, **options) as page:
        opened(page, as_file(work))
        check(page)
        page.locator(".tick").first.evaluate("tick => tick.scrollIntoView()")
        page.keyboard.press("a")
        page.locator("#filters summary").click()
        page.locator("summary", has_text="Rephrasings").click()
        playwright.expect(page.locator("#questions form")).to_be_visible()
        check(page)
        page.keyboard.press("Escape")
        page.keyboard.press("i")
        playwright.expect(page.locator("#talk form")).to_be_visible()
        check(page)
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        playwright.expect(page.get_by_role("dialog")).to_be_visible()
        check(page)
        page.goto((work.path / "results/demo_v3/report.html").as_uri())
        check(page)


def test_the_timeline_is_reachable_and_usable_by_keyboard(page, work):
    opened(page, as_file(work))
    page.locator("#help").focus()
    for _ in range(4):  # zoom in (the others are disabled), and the minimap is for the pointer
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "timeline":
            break
    timeline = page.get_by_role("slider", name="Timeline")
    playwright.expect(timeline).to_be_focused()
    page.keyboard.press("ArrowRight")
    playwright.expect(timeline).to_have_attribute("aria-valuenow", "1")
    page.keyboard.press("End")
    last = len(frame_rows(work, EPISODE)) - 1
    playwright.expect(timeline).to_have_attribute("aria-valuenow", str(last))
    text = timeline.get_attribute("aria-valuetext")
    assert text.split(", ")[1] == f"frame {last}"
    expect_state(page, "subtask", [text.split(", ", 2)[2]])
    page.keyboard.press("p")
    page.keyboard.press("[")  # a boundary that is there already: nothing changes
    playwright.expect(page.locator("#undo")).to_be_disabled()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("[")
    playwright.expect(page.locator("#undo")).to_be_enabled()
    now = page.locator("#now-time").inner_text()
    start = page.locator("tr[data-row] .start input").last
    playwright.expect(start).to_have_value(now.removesuffix(" s"))
    page.locator("#undo").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press(" ")  # presses the button instead of playing
    playwright.expect(page.locator("#undo")).to_be_disabled()
    playwright.expect(page.locator("#play")).to_have_text("Play")


def test_a_narrow_caption_shows_the_part_that_tells_cameras_apart(work, page):
    page.set_viewport_size({"width": 390, "height": 844})
    opened(page, as_file(work))
    captions = page.locator("figcaption .camera")
    names = ["observation.images.front", "observation.images.wrist"]
    playwright.expect(captions).to_have_text(names)
    whole = "all => all.map(short => short.scrollWidth <= short.clientWidth)"
    expect_value(lambda: page.locator("figcaption .short").evaluate_all(whole), [True, True])
