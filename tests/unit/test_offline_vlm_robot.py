"""What seems to be part of the robot comes after what does not, and is still spoken of alone."""

import numpy as np
import pytest

from demo_vlm.question import Question
from demo_vlm.regions import find
from demo_vlm.visual_questions import answer

RED, CYAN, ORANGE = (220, 15, 15), (0, 190, 195), (235, 120, 20)
GREEN, DARK_GREEN = (20, 180, 30), (25, 90, 35)


def table() -> np.ndarray:
    noise = np.random.default_rng(5).integers(-6, 7, (240, 240, 1))
    return np.clip(np.array((150, 140, 130)) + noise, 0, 255).astype(np.uint8)


def finger(picture: np.ndarray, color=CYAN, tip=RED) -> np.ndarray:
    """A bar from the left border, with a marker of another color at its end."""
    picture[100:130, 0:90] = color
    picture[105:125, 90:104] = tip
    return picture


def turned(picture: np.ndarray, quarters: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(picture, quarters))


def pointed_at(picture: np.ndarray) -> tuple[tuple[int, ...], str]:
    """Color of the pixel that the answer points at, and the answer's label."""
    found = answer("keypoint", Question(), picture)["answer"]
    x, y = found["point"]
    return tuple(picture[int(y), int(x)].tolist()), found["label"]


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize(("color", "tip"), [(CYAN, RED), (ORANGE, RED), ((60, 60, 60), CYAN)])
def test_a_small_thing_comes_before_a_finger_and_its_marker(quarters, color, tip):
    picture = finger(table(), color, tip)
    picture[60:78, 170:188] = DARK_GREEN
    picture = turned(picture, quarters)
    assert pointed_at(picture)[0] == DARK_GREEN
    x0, y0, x1, y1 = answer("bbox", Question(), picture)["answer"]["detections"][0]["bbox"]
    assert (picture[int(y0) : int(y1), int(x0) : int(x1)] == DARK_GREEN).all(axis=-1).mean() > 0.8


@pytest.mark.parametrize("quarters", range(4))
def test_the_links_of_an_arm_come_after_a_small_thing(quarters):
    picture = table()
    picture[40:80, 0:100] = RED
    picture[40:80, 104:190] = RED  # behind a narrow seam
    picture[180:196, 60:76] = GREEN
    assert pointed_at(turned(picture, quarters))[0] == GREEN


def test_with_nothing_but_a_finger_the_answer_is_a_part_of_it():
    color, label = pointed_at(finger(table()))
    assert (color, label.split()[0]) in {(CYAN, "cyan"), (RED, "red")}


def test_a_marker_that_lies_on_top_of_a_thing_is_not_mounted_on_it():
    picture = table()
    picture[60:180, 120:240] = (30, 60, 200)
    picture[105:135, 165:195] = RED
    red = next(region for region in find(picture) if region.color == "red")
    assert red.rank == red.saliency


def test_what_is_set_back_is_still_found():
    picture = finger(table())
    picture[60:78, 170:188] = DARK_GREEN
    found = find(picture)
    assert {region.color for region in found} >= {"green", "red", "cyan"}
    assert [region.rank for region in found] == sorted((r.rank for r in found), reverse=True)
