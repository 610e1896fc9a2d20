"""Draws the pictures of the README from the finished demo (`make demo`).

    .venv/bin/python docs/make_pictures.py

In: results/demo_v3. Out: docs/images/contact_sheet.png, an episode's contact sheet as the model
gets it, with the subtasks below it on a time axis.
"""

import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cuesheet.annotate import contact_sheet
from cuesheet.artifacts.episode import read_episode
from cuesheet.config.models import Config

RESULTS = Path("results/demo_v3")
EPISODE = "000000"
COLORS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d", "#bab0ac")
BAR_PX = 44
MARGIN_PX = 12


def draw_subtasks(width: int, subtasks: list[dict], end_s: float) -> Image.Image:
    """A bar of `width` px from 0 to `end_s`, one color a subtask, its label inside."""
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


def main() -> None:
    config = Config()
    layout = config.plan.frames
    episode = read_episode(RESULTS / "keyframes" / EPISODE)
    camera = next(iter(episode.keyframes))
    sheet = contact_sheet.compose(
        episode.frames_at(camera, episode.grid),
        columns=layout.columns,
        per_sheet=layout.per_sheet,
        tile_width=layout.tile_width,
    )[0].image
    plan = json.loads((RESULTS / "plan" / f"{EPISODE}.json").read_text(encoding="utf-8"))
    bar = draw_subtasks(sheet.width, plan["subtasks"], episode.end_s)
    picture = Image.new("RGB", (sheet.width, sheet.height + bar.height), "white")
    picture.paste(sheet, (0, 0))
    picture.paste(bar, (0, sheet.height))
    target = Path("docs/images/contact_sheet.png")
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(128).save(target, optimize=True)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
