"""The number of images per request, with the settings that limit it."""

import math

import pytest

from cuesheet.config.load import load_config
from cuesheet.workflow.request_images import image_counts

OFF = {"enabled": False}  # no segments that are labeled again
QWEN = {"serve": "external", "base_urls": ["http://h/v1"], "model": "Qwen/Qwen3-VL-8B"}
FRAMES = "plan.frames.max_frames_per_call"


def largest(settings, grid_frames=math.inf):
    first = image_counts(load_config(settings), grid_frames)[0]
    return first.images, first.setting


@pytest.mark.parametrize(
    ("settings", "grid_frames", "expected"),
    [
        ({"signals": OFF}, math.inf, (3, FRAMES)),  # 60 frames on sheets of 20
        ({"signals": OFF}, 21, (2, FRAMES)),
        ({"signals": OFF}, 20, (1, "vqa.frames")),
        ({"plan": {"granularity": "phases"}}, 20, (1, "vqa.frames")),
        ({"plan": {"granularity": "events"}}, 20, (4, "plan.relabel_frames")),
        ({"plan": {"frames": {"mode": "single_frames"}}}, math.inf, (60, FRAMES)),
        ({"plan": {"frames": {"mode": "clip"}}, "signals": OFF}, math.inf, (1, "vqa.frames")),
        ({"plan": {"subtasks_from": "dataset"}}, math.inf, (1, "vqa.frames")),
        ({"vlm": QWEN}, math.inf, (4, "plan.relabel_frames")),  # Qwen: relabel is span
        (
            {"plan": {"frames": {"max_frames_per_call": 20}, "relabel": "neighbors"}},
            math.inf,
            (3, "plan.relabel"),
        ),
        (
            {
                "plan": {"frames": {"max_frames_per_call": 20}},
                "interjections": {"frames": 32},
                "signals": OFF,
            },
            math.inf,
            (2, "interjections.frames"),
        ),
    ],
)
def test_the_largest_request_is_first(settings, grid_frames, expected):
    assert largest(settings, grid_frames) == expected
