"""Draws the pictures of the README from the finished demo (`make demo`).

    .venv/bin/python docs/make_pictures.py [--results results/demo_v3] [--out docs/images]

contact_sheet.png is an episode's contact sheet as the model gets it, with the subtasks below it on
a time axis. review.png is the review page in chromium, which must be installed.
"""

import argparse
import io
import json
import shutil
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cuesheet.annotate import contact_sheet
from cuesheet.artifacts.episode import read_episode
from cuesheet.config.models import Config

EPISODE = "000000"
REVIEWED_EPISODE = 3
REVIEWED_SHARE = 0.7  # of the episode's duration: a frame with a visual question
PAGE_PX = {"width": 1440, "height": 900}
COLORS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d", "#bab0ac")
BAR_PX = 44
MARGIN_PX = 12


def draw_subtasks(width: int, subtasks: list[dict], end_s: float) -> Image.Image:
    """Return a bar of `width` px from 0 to `end_s`, with one color and label per subtask."""
    picture = Image.new("RGB", (width, BAR_PX + 2 * MARGIN_PX + 18), "white")
    draw = ImageDraw.Draw(picture)
    label_font, time_font = ImageFont.load_default(size=16), ImageFont.load_default(size=13)
    scale = (width - 2 * MARGIN_PX) / end_s
    for number, part in enumerate(subtasks):
        left = MARGIN_PX + part["start_s"] * scale
        right = MARGIN_PX + part["end_s"] * scale
        draw.rectangle(
            (left, MARGIN_PX, right - 2, MARGIN_PX + BAR_PX), fill=COLORS[number % len(COLORS)]
        )
        draw.text((left + 8, MARGIN_PX + 12), part["label"], fill="white", font=label_font)
        draw.text(
            (left, MARGIN_PX + BAR_PX + 4), f"{part['start_s']:.1f} s", fill="black", font=time_font
        )
    return picture


def draw_contact_sheet(results: Path, target: Path) -> None:
    """Draw the first contact sheet of an episode above its subtasks."""
    layout = Config().plan.frames
    episode = read_episode(results / "keyframes" / EPISODE)
    camera = next(iter(episode.keyframes))
    sheet = contact_sheet.compose(
        episode.frames_at(camera, episode.grid),
        columns=layout.columns,
        per_sheet=layout.per_sheet,
        tile_width=layout.tile_width,
    )[0].image
    plan = json.loads((results / "plan" / f"{EPISODE}.json").read_text(encoding="utf-8"))
    bar = draw_subtasks(sheet.width, plan["subtasks"], episode.end_s)
    picture = Image.new("RGB", (sheet.width, sheet.height + bar.height), "white")
    picture.paste(sheet, (0, 0))
    picture.paste(bar, (0, sheet.height))
    picture.quantize(128).save(target, optimize=True)


def draw_review_page(results: Path, target: Path) -> None:
    """Take a picture of the review page at a moment of an episode."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("There is no chromium. Install it (Debian, Ubuntu: apt-get install chromium).")
    from playwright.sync_api import expect, sync_playwright

    page_file = results.resolve() / "review" / "index.html"
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_context(viewport=PAGE_PX).new_page()
        page.goto(f"{page_file.as_uri()}#episode={REVIEWED_EPISODE}")
        expect(page.locator("#episode-name")).to_have_text(f"Episode {REVIEWED_EPISODE}")
        ruler = page.locator(".ruler").bounding_box()
        assert ruler is not None
        x = ruler["x"] + REVIEWED_SHARE * ruler["width"]
        page.mouse.click(x, ruler["y"] + ruler["height"] / 2)
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        page.wait_for_function(
            "[...document.querySelectorAll('video')].every(v => v.readyState > 1 && !v.seeking)"
        )
        picture = Image.open(io.BytesIO(page.screenshot()))
        chromium.close()
    picture.convert("RGB").quantize(256).save(target, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("results/demo_v3"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, draw in (("contact_sheet", draw_contact_sheet), ("review", draw_review_page)):
        draw(options.results, options.out / f"{name}.png")
        print(f"wrote {options.out / name}.png")


if __name__ == "__main__":
    main()
