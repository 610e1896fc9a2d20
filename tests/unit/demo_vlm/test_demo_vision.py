"""Answers of the demo model about drawn images are true."""

from itertools import pairwise

import numpy as np
import pytest

from cuesheet.vlm import replies
from demo_vlm import answers, phrases
from demo_vlm.frames import timed_frames
from demo_vlm.media import Media
from demo_vlm.question import Question
from demo_vlm.vision import STILL, speeds

RED, GREEN, BLUE, YELLOW = (210, 20, 20), (20, 180, 30), (20, 40, 210), (230, 210, 20)
TABLE = (150, 140, 130)


def table(height: int = 200, width: int = 240) -> np.ndarray:
    # A grain like wood: a background need not be of one color.
    noise = np.random.default_rng(3).integers(-6, 7, (height, width, 1))
    return np.clip(np.array(TABLE) + noise, 0, 255).astype(np.uint8)


def draw(image: np.ndarray, box: tuple[int, int, int, int], color) -> np.ndarray:
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1] = color
    return image


def answer(reply: type[replies.Reply], text: str, *images: np.ndarray):
    text = answers.reply_text(text, reply.model_json_schema(), Media(list(images)))
    return reply.model_validate_json(text)


def test_box_and_point_lie_on_the_thing_that_was_drawn():
    image = draw(table(), (60, 80, 96, 110), GREEN)
    detection = answer(replies.BboxQA, "Task: x", image).answer.detections[0]
    assert detection.label == "green object"
    assert np.allclose(detection.bbox, (60, 80, 96, 110), atol=1.5)
    point = answer(replies.KeypointQA, "Task: x", image).answer.point
    assert np.allclose(point, (78, 95), atol=1.5)


def test_the_point_of_a_ring_is_on_the_ring():
    image = table()
    rows, columns = np.mgrid[:200, :240]
    radius = np.hypot(rows - 100, columns - 120)
    image[(radius > 25) & (radius < 40)] = BLUE
    x, y = answer(replies.KeypointQA, "Task: x", image).answer.point
    assert tuple(image[int(y), int(x)]) == BLUE


def test_coordinates_are_those_that_the_line_asks_for():
    image = draw(table(200, 400), (100, 50, 200, 100), RED)
    line = "Coordinates: 0 to 1000 of width and height"
    box = answer(replies.BboxQA, line, image).answer.detections[0].bbox
    assert np.allclose(box, (250, 250, 500, 500), atol=8)
    line = "Coordinates: pixels of the image, origin top left, 800 x 400"
    box = answer(replies.BboxQA, line, image).answer.detections[0].bbox
    assert np.allclose(box, (200, 100, 400, 200), atol=6)


def test_a_thing_whose_color_the_task_names_comes_first():
    image = draw(draw(table(), (20, 20, 80, 80), RED), (150, 120, 180, 150), BLUE)
    for color in ("red", "blue"):
        found = answer(replies.BboxQA, f"Task: Push the {color} block", image)
        assert found.answer.detections[0].label.startswith(color)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_count_is_how_many_were_drawn(count):
    image = table()
    for index in range(count):
        draw(image, (10 + 55 * index, 60, 40 + 55 * index, 90), BLUE)
    found = answer(replies.CountQA, "Task: x", image).answer
    assert "blue" in found.label
    assert found.count == count


def test_the_color_is_the_color_of_the_pixels():
    for color, name in ((RED, "red"), (GREEN, "green"), (BLUE, "blue"), (YELLOW, "yellow")):
        image = draw(table(), (90, 70, 130, 110), color)
        found = answer(replies.AttributeQA, "Task: x", image).answer
        assert (found.attribute, found.value) == ("color", name)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        *(((0, 0, 0), "black"), ((128, 128, 128), "gray"), ((255, 255, 255), "white")),
        *(((255, 0, 0), "red"), ((255, 140, 0), "orange"), ((110, 70, 35), "brown")),
        *(((255, 255, 0), "yellow"), ((0, 128, 0), "green"), ((0, 255, 255), "cyan")),
        *(((0, 0, 255), "blue"), ((128, 0, 160), "purple"), ((255, 150, 190), "pink")),
        *(((90, 90, 92), "gray"), ((120, 20, 15), "red"), ((20, 60, 25), "green")),
    ],
)
def test_plain_colors_have_their_plain_names(rgb, name):
    image = np.full((64, 64, 3), rgb, np.uint8)
    assert answer(replies.AttributeQA, "Task: x", image).answer.value == name


@pytest.mark.parametrize(
    ("first", "second", "relation"),
    [
        ((20, 80, 50, 110), (150, 80, 180, 110), "left_of"),
        ((150, 80, 180, 110), (20, 80, 50, 110), "right_of"),
        ((100, 10, 130, 40), (100, 140, 130, 170), "near"),
        ((100, 140, 130, 170), (100, 10, 130, 40), "near"),
    ],
)
def test_the_relation_is_how_they_were_drawn(first, second, relation):
    image = draw(draw(table(), first, RED), second, BLUE)
    found = answer(replies.SpatialQA, "Task: push the red block", image).answer
    assert (found.subject, found.relation, found.object) == ("red object", relation, "blue object")


@pytest.mark.parametrize("reply", replies.VQA_REPLIES.values())
@pytest.mark.parametrize("size", [(1, 1), (9, 300), (64, 64)])
def test_an_image_without_a_salient_region_still_gets_a_true_answer(reply, size):
    found = answer(reply, "Task: x", np.full((*size, 3), 90, np.uint8)).answer
    if reply is replies.CountQA:
        assert found.count == 0
    if reply is replies.BboxQA:
        assert found.detections[0].bbox == [0, 0, size[1], size[0]]
    if reply is replies.AttributeQA:
        assert found.value == "gray"


def sheet(frames: list[np.ndarray], columns: int, plate: int = 0) -> np.ndarray:
    """Frames in rows of `columns`; `plate` paints a changing plate in the lower left."""
    tiles = []
    for index, frame in enumerate(frames):
        tile = frame.copy()
        if plate:
            tile[-plate:, : 3 * plate] = 0
            tile[-plate + 3 : -3, 3 : 3 + 2 * (index % plate)] = 255
        tiles.append(tile)
    while len(tiles) % columns:
        tiles.append(np.zeros_like(frames[0]))
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def carried(times: np.ndarray, grasp_s: float, place_s: float) -> list[np.ndarray]:
    """A dark arm reaches a red block, carries it to the right, and goes back without it."""
    frames = []
    for time in times:
        image = table(112, 160)
        if time < grasp_s:
            hand = np.interp(time, (0, grasp_s), (150, 30))
        elif time < place_s:
            hand = np.interp(time, (grasp_s, place_s), (30, 110))
        else:
            hand = np.interp(time, (place_s, place_s + 3), (110, 150))
        block = 30 if time < grasp_s else min(hand, 110) if time < place_s else 110
        draw(image, (int(block) - 8, 60, int(block) + 8, 76), RED)
        draw(image, (int(hand) - 5, 0, int(hand) + 5, 60), (40, 40, 60))
        frames.append(image)
    return frames


def ask_segments(times: np.ndarray, frames: list[np.ndarray], limits: str, per_sheet: int = 20):
    sheets = [frames[i : i + per_sheet] for i in range(0, len(frames), per_sheet)]
    lines = [f"Images: {len(sheets)} contact sheets, 5 columns, read row by row."]
    for index in range(len(sheets)):
        part = times[index * per_sheet : (index + 1) * per_sheet]
        lines.append(f"Sheet {index + 1}: " + " ".join(f"{time:.2f}" for time in part))
    end = times[-1] + 0.5
    lines += ["Task: Put the block on the mat", f"Window: 0.00 to {end:.2f} s", limits]
    text = "\n".join(lines)
    images = [sheet(part, 5, plate=18) for part in sheets]
    return end, answer(replies.Segmentation, text, *images).subtasks


def test_a_boundary_is_at_the_rest_between_two_motions():
    times = np.arange(0, 9, 0.5)
    frames = []
    for time in times:
        hand = np.interp(time, (0, 3, 5, 8), (20, 70, 70, 140))
        frames.append(draw(table(112, 160), (int(hand) - 8, 0, int(hand) + 8, 60), (40, 40, 60)))
    _, spans = ask_segments(times, frames, "Limits: at most 8 subtasks, each at least 1.50 s.")
    assert len(spans) == 2
    assert 3 <= spans[1].start_s <= 5


def test_limits_are_respected_and_the_window_is_covered():
    times = np.arange(0, 14, 0.5)
    frames = carried(times, 3, 7)
    for limits in (
        "Limits: at most 1 subtasks, each at least 1.50 s long.",
        "Limits: at most 2 subtasks, each at least 0.50 s long.",
        "Limits: at most 8 subtasks, each at least 5.00 s long.",
        "",
    ):
        end, spans = ask_segments(times, frames, limits)
        most = Question(limits).number("Limits", "at most") or answers.DEFAULT_MOST
        least = Question(limits).number("Limits", "at least") or answers.DEFAULT_MIN_S
        assert 1 <= len(spans) <= most
        assert spans[0].start_s == 0
        assert spans[-1].end_s == pytest.approx(end)
        for before, after in pairwise(spans):
            assert before.end_s == after.start_s
        assert all(span.end_s - span.start_s >= least - 1e-6 for span in spans)


def test_a_scene_that_stands_still_is_one_subtask_that_is_not_idle():
    times = np.arange(0, 8, 0.5)
    _, spans = ask_segments(times, [table(112, 160)] * len(times), "")
    assert len(spans) == 1
    assert spans[0].label == "put the block on the mat"


def test_the_burned_in_time_is_not_taken_for_motion():
    times = np.arange(0, 10, 0.5)
    image = sheet([table(112, 160)] * len(times), 5, plate=18)
    row = " ".join(f"{time:.2f}" for time in times)
    asked = Question(f"Images: 1 contact sheet, 5 columns\nSheet 1: {row}")
    assert speeds(timed_frames(asked, Media([image]))).max() <= STILL


def test_one_image_and_many_identical_ones_are_accepted():
    for count in (1, 2, 3):
        frames = [table(50, 60)] * count
        times = "\n".join(f"Image {i + 1}: {0.5 * i:.2f} s" for i in range(count))
        spans = answer(replies.Segmentation, f"{times}\nTask: x", *frames).subtasks
        assert len(spans) == 1
        assert answer(replies.Description, times, *frames).events == []


def test_a_description_names_the_color_and_when_the_image_changes():
    times = np.arange(0, 10, 0.5)
    frames = carried(times, 3, 6)
    lines = "\n".join(f"Image {i + 1}: {time:.2f} s" for i, time in enumerate(times))
    told = answer(replies.Description, f"{lines}\nWindow: 0.00 to 10.00 s", *frames)
    assert "red" in told.scene
    assert told.events
    assert all(0 <= event.at_s <= 10 for event in told.events)
    assert answer(replies.TaskFromVideo, lines, *frames).task == "Move the red object."


@pytest.mark.parametrize(
    ("step", "verb", "thing"),
    [
        ("reach for the puck", "reach for", "the puck"),
        ("let go of a window", "let go of", "a window"),
        ("move toward the red cup", "move toward", "the red cup"),
        ("open a drawer", "open", "a drawer"),
    ],
)
def test_the_object_of_a_step_has_no_part_of_its_verb(step, verb, thing):
    assert phrases.verb_and_object(step) == (verb, thing)


def test_labels_name_the_object_of_the_task():
    assert phrases.labels("Pick and place a puck to a goal", 2) == [
        "reach for a puck",
        "pick and place a puck",
    ]
    assert phrases.labels("Pick up the red cup and wash it", 2)[0] == "reach for the red cup"


@pytest.mark.parametrize("count", range(1, 9))
def test_neighboring_labels_differ(count):
    labels = phrases.labels("Put the block on the mat", count)
    assert len(labels) == count
    assert all(before != after for before, after in pairwise(labels))
    assert all("block" in label for label in labels)


@pytest.mark.parametrize(
    ("span", "label"),
    [("0.00 to 2.00", "reach for a puck"), ("2.00 to 4.20", "move a puck")],
)
def test_only_the_first_span_of_an_episode_is_named_a_reach(span, label):
    text = f"Task: Pick a puck\nSpan: {span} s\nFirst label: Reach for a puck"
    assert answer(replies.Relabel, text).label == label
