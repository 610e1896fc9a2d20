import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cuesheet.annotate import contact_sheet
from cuesheet.artifacts.episode import Keyframe

GRAY = (90, 120, 150)


@pytest.fixture
def frames(tmp_path: Path) -> list[Keyframe]:
    made = []
    for number in range(23):
        path = tmp_path / f"{number:06d}.png"
        Image.new("RGB", (320, 240), GRAY).save(path)
        made.append(Keyframe("front", number * 5, number / 2, path, 320, 240))
    return made


def compose(frames, **changes):
    return contact_sheet.compose(
        frames, **{"columns": 5, "per_sheet": 20, "tile_width": 224, **changes}
    )


def test_tiles_keep_the_aspect_ratio_and_are_dealt_out_in_order(frames):
    first, second = compose(frames)
    assert first.image.size == (5 * 224, 4 * 168)
    assert second.image.size == (5 * 224, 168)
    assert first.times_s + second.times_s == tuple(frame.timestamp_s for frame in frames)


def test_few_frames_make_a_narrow_sheet(frames):
    (sheet,) = compose(frames[:3])
    assert sheet.image.size == (3 * 224, 168)
    assert sheet.columns == 3


def test_the_words_name_the_time_of_every_tile(frames):
    words = contact_sheet.describe_layout(compose(frames))
    assert words.splitlines()[:3] == [
        "Images: 2 contact sheets, 5 columns, read row by row.",
        "Sheet 1: " + " ".join(f"{number / 2:.2f}" for number in range(20)),
        "Sheet 2: 10.00 10.50 11.00",
    ]


def test_the_words_explain_what_a_sheet_is(frames):
    words = " ".join(contact_sheet.describe_layout(compose(frames)).split())
    for said in ("grid of frames", "order of time", "burned into its lower left corner", "black"):
        assert said in words


@pytest.mark.parametrize("width", [112, 224, 448])
def test_the_burned_in_time_is_about_an_eighth_of_the_tile_high(frames, width):
    (sheet,) = compose(frames[:1], tile_width=width)
    pixels = np.asarray(sheet.image).astype(int)
    rows = np.nonzero((pixels.min(axis=2) > 200).any(axis=1))[0]
    height = rows.max() - rows.min() + 1
    assert 0.10 <= height / sheet.image.height <= 0.14
    assert rows.min() > sheet.image.height / 2


def test_two_times_look_different(frames):
    tiles = [np.asarray(compose([frame])[0].image) for frame in frames[:2]]
    assert (tiles[0] != tiles[1]).any()


def test_the_image_outside_the_burned_in_time_is_unchanged(frames):
    (sheet,) = compose(frames[:1])
    pixels = np.asarray(sheet.image)
    assert (pixels[:100] == GRAY).all()
    assert (pixels[:, 150:] == GRAY).all()


def test_leftover_tiles_are_black(frames):
    sheet = compose(frames)[1]
    assert not np.asarray(sheet.image)[:, 3 * 224 :].any()


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_encoding_gives_the_named_format(frames, image_format):
    data, mime = contact_sheet.encode(compose(frames)[0].image, image_format, 90)
    with Image.open(io.BytesIO(data)) as decoded:
        assert decoded.format == image_format.upper()
    assert mime == f"image/{image_format}"


def test_the_same_frames_give_the_same_bytes(frames):
    first, second = (contact_sheet.encode(compose(frames)[0].image, "jpeg", 90) for _ in range(2))
    assert first == second


def test_a_png_is_sent_unchanged(frames):
    data, _ = contact_sheet.encode_file(frames[0].path, "png", 90)
    assert data == frames[0].path.read_bytes()
