"""The report says what the files hold, what needs attention first, and needs no network."""

import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from keyframe_files import keyframes_json
from PIL import Image

from cuesheet.config.report import ReportConfig
from cuesheet.report import plots
from cuesheet.report.data import Timeline, chosen_timelines, gather
from cuesheet.report.html import prompt_texts, render, store_prompts

CAMERA = "observation.images.front"


def write(path: Path, data: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def call(prompt: str, **changes) -> dict:
    usual = {"cache_hit": False, "latency_s": 2.0, "attempts": 1, "outcome": "ok"}
    tokens = {"prompt_tokens": 1_000_000, "completion_tokens": 500_000}
    return {"name": prompt, "prompt": prompt, **usual, **tokens, **changes}


def row(style, timestamp, content):
    return {
        **{"role": "assistant", "style": style, "timestamp": timestamp, "content": content},
        **{"camera": None, "tool_calls": None},
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Episode 0 of 4 s with two subtasks and a box; episode 2 failed."""
    folder = tmp_path / "kitchen"
    head = {"format": 1, "dataset": "kitchen", "episode_index": 0}
    write(
        folder / "keyframes/000000/keyframes.json",
        keyframes_json(
            "kitchen", 0, task="Put the <cup> away", fps=10.0, length=40, cameras={CAMERA: [10]}
        ),
    )
    image = folder / f"keyframes/000000/{CAMERA}/000010.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (64, 48), "red").save(image)
    spans = [(0, 10, "reach for the red cup"), (10, 40, "put the cup into a box & close it")]
    write(
        folder / "plan/000000.json",
        {
            **head,
            "stage": "plan",
            "subtasks": [
                {"start_frame": a, "end_frame": b, "start_s": a / 10, "end_s": b / 10, "label": c}
                for a, b, c in spans
            ],
            "persistent": [row("subtask", a / 10, c) for a, _, c in spans],
            "events": [],
            "provenance": {
                "model": "some/model",
                "served_by": "external",
                "prompts": {"system": "0" * 64, "plan_segment": "1" * 64},
                "sampling": {"temperature": 0.2},
                "calls": [
                    call("plan_segment", attempts=3),
                    call("plan_segment", latency_s=4.0, outcome="retried"),
                    call("plan_memory", cache_hit=True),
                    call("plan_memory", outcome="invalid", error="no JSON in <reply>"),
                ],
            },
        },
    )
    box = {"label": "cup", "bbox_format": "xyxy", "bbox": [10.0, 12.0, 30.0, 40.0]}
    pair = {"frame_index": 10, "camera": CAMERA, "type": "bbox", "question": "Where is it?"}
    write(
        folder / "vqa/000000.json",
        {
            **head,
            **{"stage": "vqa", "persistent": [], "events": []},
            "pairs": [{**pair, "answer": {"detections": [box]}}],
        },
    )
    write(
        folder / "validation/000000.json",
        {
            **{"format": 1, "episode_index": 0, "errors": [], "stage_files": {}},
            "warnings": [{"code": "stage_warning", "where": "plan", "message": "no memory"}],
            "counts": {"subtask": 2, "vqa": 2},
        },
    )
    write(
        folder / "failed/annotate_plan/000002.json", {"error": "the server is gone", "log": "x.log"}
    )
    return folder


@pytest.fixture
def page(results, tmp_path) -> str:
    settings = ReportConfig(price_prompt=0.5, price_completion=2.0)
    return render(gather(results, [0, 1, 2]), settings, {})


class Loads(HTMLParser):
    """Everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            fetched = name in ("src", "srcset", "data", "xlink:href")
            if fetched or (name == "href" and tag not in ("a",)):
                self.found.append(value)


def test_the_report_is_one_file_that_fetches_nothing(page):
    parser = Loads()
    parser.feed(page)
    outside = [url for url in parser.found if not url.startswith(("data:", "#"))]
    assert outside == []
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\((?!#)", page)


def test_what_is_missing_comes_before_everything_else(page):
    assert "2 episodes are missing" in page
    assert "episode 1: not annotated yet" in page
    assert "episode 2: annotate_plan: the server is gone" in page
    order = ["2 episodes are missing", "1 call was invalid", "stage warning", 'id="made"']
    places = [page.index(text) for text in order]
    assert places == sorted(places)


def test_texts_from_outside_are_escaped(page):
    assert "no JSON in &lt;reply&gt;" in page
    assert "Put the &lt;cup&gt; away" in page
    assert "<cup>" not in page


def sampled(results: Path, agreement: float, parts: list[float]) -> None:
    """Episode 0 as made of three samples."""
    path = results / "plan/000000.json"
    plan = json.loads(path.read_text())
    for part, value in zip(plan["subtasks"], parts, strict=True):
        part["agreement"] = value
    sample = {"temperature": 0.7, "seed": 0, "subtasks": plan["subtasks"]}
    write(path, {**plan, "agreement": agreement, "samples": [sample] * 3})


def test_episodes_whose_samples_agree_least_come_first(results, tmp_path):
    for index, agreement in ((1, 0.25), (2, 0.5)):
        for stage in ("plan", "vqa", "validation"):
            data = json.loads((results / f"{stage}/000000.json").read_text())
            if stage == "plan":
                data["agreement"] = agreement
            write(results / f"{stage}/{index:06d}.json", {**data, "episode_index": index})
        shutil.copytree(results / "keyframes/000000", results / f"keyframes/{index:06d}")
        frames = json.loads((results / "keyframes/000000/keyframes.json").read_text())
        write(results / f"keyframes/{index:06d}/keyframes.json", {**frames, "episode_index": index})
    shutil.rmtree(results / "failed")
    sampled(results, 0.625, [0.75, 0.35])
    page = render(gather(results, [0, 1, 2]), ReportConfig(), {})
    table = page[page.index("Agreement of samples, lowest first") :].partition("</table>")[0]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("<tr>")[2:]]
    assert [re.sub("<[^>]*>", "", row[0]) for row in rows] == ["1", "2", "0"]
    assert [re.sub("<[^>]*>", "", cell) for cell in rows[2]] == [
        *("0", "Put the &lt;cup&gt; away", "put the cup into a box &amp; close it"),
        *("1.0 to 4.0", "0.35", "0.62", "3"),
    ]
    assert "Over all 3 episodes, the mean is 0.46" in page


def test_without_samples_nothing_is_said_of_agreement(page):
    assert "agree" not in page


def test_boxes_are_drawn_at_their_place(page):
    assert '<rect x="10.0" y="12.0" width="20.0" height="28.0"/>' in page
    assert '<svg viewBox="0 0 64 48">' in page


def test_calls_are_counted_by_prompt(page):
    cells = [re.sub(r"<[^>]+>", " ", row).split() for row in page.split("<tr>")]
    rows = {row[0]: row[1:12] for row in cells if row}
    # calls, cached, retried, invalid, retries, tokens in and out, median, 95 %, seconds
    assert rows["plan_segment"][:8] == ["2", "0", "1", "0", "2", "2,000,000", "1,000,000", "3.00"]
    assert rows["plan_segment"][9] == "6.0"
    assert rows["all"][:7] == ["4", "1", "1", "1", "2", "3,000,000", "1,500,000"]
    # 3 million in at 0.5, 1.5 million out at 2.0
    assert "4.50 USD" in page


def test_plots_follow_the_colors_of_the_page(page):
    assert page.count("<svg") >= 5
    assert "var(--accent)" in page
    assert not re.search(r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]\b", page)


def test_a_prompt_that_changed_since_is_not_shown_as_the_one_that_was_used(results, tmp_path):
    (tmp_path / "plan_segment.md").write_text("SECRET OF TODAY")
    data = gather(results, [0])
    store_prompts(results, data, tmp_path)
    page = render(data, ReportConfig(), prompt_texts(results, data))
    assert "SECRET OF TODAY" not in page
    assert "111111111111" in page


def test_a_prompt_that_was_stored_is_shown_after_its_file_changed(results, tmp_path):
    text = "Find the subtasks <of> this video."
    digest = hashlib.sha256(text.encode()).hexdigest()
    for path in (results / "plan").glob("*.json"):
        path.write_text(path.read_text().replace("1" * 64, digest))
    (tmp_path / "plan_segment.md").write_text(text)
    data = gather(results, [0])
    store_prompts(results, data, tmp_path)
    (tmp_path / "plan_segment.md").write_text("SECRET OF TODAY")
    store_prompts(results, data, tmp_path)
    assert prompt_texts(results, data)["plan_segment"] == {digest: text}
    page = render(data, ReportConfig(), prompt_texts(results, data))
    assert "Find the subtasks &lt;of&gt; this video." in page
    assert "SECRET OF TODAY" not in page


def test_bars_show_their_values_on_hover_whatever_the_labels():
    svg = plots.bars("verbs", [('let go of "<x>"', 1234), ("lift", 1)], "subtasks")
    titles = re.findall(r"<title>(.*?)</title>", svg)
    assert titles == ["let go of &quot;&lt;x&gt;&quot;: 1,234", "lift: 1"]
    lengths = plots.histogram("n", [1, 1, 3], "subtasks in an episode", whole=True)
    assert re.findall(r"<title>(.*?)</title>", lengths) == [
        *("subtasks in an episode: 1; 2", "subtasks in an episode: 2; 0"),
        "subtasks in an episode: 3; 1",
    ]
    boxes = plots.boxes("latencies", {"plan_segment": [1.0, 2.0, 3.0]}, "s")
    assert "plan_segment: median 2.00, quartiles 1.00 and 3.00" in boxes


def test_images_link_to_their_moment_on_the_review_page(page):
    links = re.findall(r'<a class="image" href="([^"]*)"', page)
    assert links
    assert all(
        re.fullmatch(r"review/index\.html#episode=\d+&(amp;)?t=\d+\.\d{3}", link) for link in links
    )


def test_episodes_with_warnings_are_among_the_chosen_timelines():
    lines = [Timeline(i, "", 1.0, [], [], ["odd"] if i == 7 else []) for i in range(10)]
    assert [line.episode_index for line in chosen_timelines(lines, 4)] == [7, 0, 3, 6]
    assert len(chosen_timelines(lines, 50)) == 10


def test_a_run_without_any_episode_has_a_report(tmp_path):
    (tmp_path / "empty").mkdir()
    page = render(gather(tmp_path / "empty", [0, 1]), ReportConfig(), {})
    assert "2 episodes are missing" in page


def test_question_types_have_one_order_in_the_table_and_below_it(results):
    path = results / "vqa/000000.json"
    content = json.loads(path.read_text())
    (pair,) = content["pairs"]
    point = {"label": "cup", "point": [20.0, 20.0], "point_format": "xy"}
    count = {"label": "cup", "count": 1}
    content["pairs"] = [
        {**pair, "type": "keypoint", "answer": point},
        {**pair, "type": "count", "answer": count},
        pair,
    ]
    write(path, content)
    page = render(gather(results, [0]), ReportConfig(), {})
    table, _, sections = page.partition('id="questions"')[2].partition("</table>")
    types = re.findall(r"<tr><td>(\w+)</td>", table)
    assert types == ["bbox", "count", "keypoint"]
    assert re.findall(r"<h3[^>]*>(\w+)</h3>", sections.partition('id="calls"')[0]) == types


def test_lists_in_cards_are_indented_like_those_in_notices(page):
    paddings = {
        name: re.search(rf"^\.{name} ul {{.*?padding-left: (\d+px)", page, re.MULTILINE)[1]
        for name in ("card", "notice")
    }
    assert paddings["card"] == paddings["notice"]
