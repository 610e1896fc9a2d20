"""One segmentation of several samples: every expected number is computed by hand."""

import asyncio
import itertools
import json
import random
from dataclasses import replace

import pytest
from processes import PATIENCE_S
from stage_setup import CAMERA, asking, kind_of, words_of

from cuesheet.annotate import plan
from cuesheet.annotate.consensus import consensus, episode_agreement, with_agreement
from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.subtasks import Subtask
from cuesheet.config.stages import PlanConfig
from cuesheet.errors import CuesheetError

# 6 s at 10 frames per second.
EPISODE = Episode("made", 0, "", 10.0, [i / 10 for i in range(60)], {})


def segmentation(*parts: tuple[int, str], length: int = 60) -> list[Subtask]:
    """Subtasks that begin at these frames."""
    ends = [start for start, _ in parts[1:]] + [length]
    return [Subtask(start, end, label) for (start, label), end in zip(parts, ends, strict=True)]


def test_boundaries_of_most_samples_stay_at_their_median():
    samples = [
        segmentation((0, "reach for it"), (20, "lift it")),
        segmentation((0, "reach for it"), (24, "lift it")),
        segmentation((0, "reach for it"), (21, "lift it"), (40, "place it")),
    ]
    found = consensus(samples, EPISODE)
    # 2.0, 2.4 and 2.1 s have the median 2.1 s; 4.0 s is of one sample alone.
    assert found == segmentation((0, "reach for it"), (21, "lift it"))


def test_agreement_is_the_mean_of_iou_times_words():
    samples = [
        segmentation((0, "reach"), (20, "lift")),
        segmentation((0, "reach"), (24, "lift")),
        segmentation((0, "reach"), (21, "lift"), (40, "place")),
    ]
    first, second = with_agreement(segmentation((0, "reach"), (21, "lift")), samples)
    assert first.agreement == pytest.approx((20 / 21 + 21 / 24 + 1) / 3, abs=6e-4)
    # What the third has most of in frames 21 to 60 is "place", which shares no word with "lift".
    assert second.agreement == pytest.approx((39 / 40 + 36 / 39 + 0) / 3, abs=6e-4)
    assert (first.agreement, second.agreement) == (0.942, 0.633)
    assert episode_agreement([first, second]) == 0.741  # (21 x 0.942 + 39 x 0.633) / 60


def test_words_shared_in_part_count_in_part():
    samples = [segmentation((0, "grab the red cup")), segmentation((0, "grasp the red cup"))]
    (part,) = with_agreement(consensus(samples, EPISODE), samples)
    assert part.label == "grab the red cup"
    assert part.agreement == 0.833  # (1 + 2/3) / 2: red and cup of three words each


@pytest.mark.parametrize(
    ("starts", "boundary"),
    [
        ((10, 20, 30), 20),  # 20 is within 1.0 s of both others
        ((10, 20, 50), 15),  # two of three
        ((10, 20), 15),  # both of two
        ((10, 21), None),  # 1.1 s apart
        ((10, 30, 50), None),  # of one sample each
        ((10, 10, 40, 40), None),  # half is not a majority
    ],
)
def test_boundaries_at_most_a_second_apart_are_the_same(starts, boundary):
    found = consensus([segmentation((0, "a"), (start, "b")) for start in starts], EPISODE)
    assert [part.start_frame for part in found] == ([0] if boundary is None else [0, boundary])


def test_a_boundary_has_one_vote():
    samples = [
        segmentation((0, "a"), (20, "b"), (28, "c")),
        segmentation((0, "a"), (20, "b"), (29, "c")),
        segmentation((0, "a"), (24, "c")),
    ]
    # 24 is near both, and is nearest to 20, where it makes three; 28 and 29 are two of three.
    assert [part.start_frame for part in consensus(samples, EPISODE)] == [0, 20, 28]


def test_the_label_is_the_one_most_like_all():
    samples = [
        segmentation((0, "hold the puck")),
        segmentation((0, "grab the red cup")),
        segmentation((0, "grasp the red cup")),
    ]
    assert consensus(samples, EPISODE)[0].label == "grab the red cup"


def test_samples_without_a_reply_agree_with_nothing():
    whole = segmentation((0, "reach"))
    assert with_agreement(whole, [whole, []])[0].agreement == 0.5
    assert with_agreement(whole, [whole, whole])[0].agreement == 1.0


def drawn(generator: random.Random) -> list[Subtask]:
    """Any segmentation of the episode."""
    starts = sorted(generator.sample(range(1, 60), generator.randrange(7)))
    return segmentation(*((at, f"step {generator.randrange(3)}") for at in [0, *starts]))


@pytest.mark.parametrize("seed", range(100))
def test_any_samples_give_a_segmentation_that_agrees_by_0_to_1(seed):
    generator = random.Random(seed)
    samples = [drawn(generator) for _ in range(generator.randrange(2, 6))]
    found = with_agreement(consensus(samples, EPISODE), samples)
    assert found[0].start_frame == 0
    assert found[-1].end_frame == 60
    for before, after in itertools.pairwise(found):
        assert before.start_frame < before.end_frame == after.start_frame
    assert all(0 <= part.agreement <= 1 for part in found)
    assert 0 <= episode_agreement(found) <= 1


def test_samples_that_are_the_same_agree_fully_and_stay_as_they_are():
    one = segmentation((0, "reach"), (15, "lift"), (40, "place"))
    found = with_agreement(consensus([one] * 3, EPISODE), [one] * 3)
    assert [replace(part, agreement=None) for part in found] == one
    assert [part.agreement for part in found] == [1.0, 1.0, 1.0]


# ---- the stage ----


def settings(**changes) -> PlanConfig:
    return PlanConfig(
        **{
            "rephrasings": {"mode": "off"},
            "memory": False,
            "samples": 3,
            "sample_temperature": 0.9,
            "frames": {"mode": "single_frames", "max_frames_per_call": 100},
            **changes,
        }
    )


def divided(*edges: float, labels: str = "reach,lift,place") -> dict:
    """A segmentation at these times (s)."""
    return {
        "subtasks": [
            {"start_s": start, "end_s": end, "label": label}
            for start, end, label in zip(edges, edges[1:], labels.split(","), strict=False)
        ]
    }


def replies(segmentations):
    """An answer to each question in turn; a description to all others."""
    left = iter(segmentations)

    def answer(kind, question):
        if kind == "Description":
            return {"scene": "a table", "events": []}
        return next(left)

    return answer


async def annotate(stage, config):
    return await plan.annotate(stage, config, camera=CAMERA, cut_clip=None)


async def test_samples_are_requested_at_the_same_time_with_different_seeds(tmp_path, monkeypatch):
    together = asyncio.Event()
    asked = 0

    async def answer(kind, question):
        nonlocal asked
        if kind == "Description":
            return {"scene": "a table", "events": []}
        asked += 1
        if asked == 3:
            together.set()
        await asyncio.wait_for(together.wait(), PATIENCE_S)  # none is answered before all are asked
        return divided(0, 3, 6)

    sampling = {"temperature": 0.2, "seed": 5, "max_tokens": 300}
    async with asking(tmp_path, monkeypatch, answer, sampling=sampling, seconds=6) as (
        stage,
        server,
    ):
        result = await annotate(stage, settings())
        calls = stage.vlm.calls
    bodies = [body for body in server.bodies if kind_of(body) == "Segmentation"]
    assert len({words_of(body) for body in bodies}) == 1
    assert sorted(body["seed"] for body in bodies) == [5, 6, 7]
    assert {(body["temperature"], body["max_tokens"]) for body in bodies} == {(0.9, 300)}
    described = [body for body in server.bodies if kind_of(body) == "Description"]
    assert [(body["temperature"], body["seed"]) for body in described] == [(0.2, 5)]
    assert result["agreement"] == 1.0
    assert [sample["seed"] for sample in result["samples"]] == [5, 6, 7]
    of_samples = [call for call in calls if "sampling" in call]
    assert [call["sampling"]["seed"] for call in of_samples] == [5, 6, 7]
    assert len({call["key"] for call in of_samples}) == 3


async def test_the_plan_file_tells_subtasks_samples_and_agreement(tmp_path, monkeypatch):
    answer = replies([divided(0, 2, 6), divided(0, 2.4, 6), divided(0, 2.1, 4, 6)])
    async with asking(tmp_path, monkeypatch, answer, seconds=6, concurrency=1) as (stage, _):
        result = json.loads(json.dumps(await annotate(stage, settings())))
    assert [(p["start_frame"], p["label"], p["agreement"]) for p in result["subtasks"]] == [
        (0, "reach", 0.942),
        (21, "lift", 0.633),
    ]
    assert result["agreement"] == 0.741
    # Which of the calls the server answers first is not said.
    by_length = sorted((sample["subtasks"] for sample in result["samples"]), key=len)
    assert [len(subtasks) for subtasks in by_length] == [2, 2, 3]
    assert by_length[2][2] == {
        **{"start_frame": 40, "end_frame": 60, "start_s": 4.0, "end_s": 6.0, "label": "place"}
    }


async def test_a_sample_that_is_not_usable_lowers_the_agreement(tmp_path, monkeypatch):
    answer = replies([divided(0, 6), divided(900, 901), divided(0, 6)])
    async with asking(tmp_path, monkeypatch, answer, seconds=6, concurrency=1) as (stage, _):
        result = await annotate(stage, settings())
    assert result["agreement"] == 0.667
    assert sorted(len(sample["subtasks"]) for sample in result["samples"]) == [0, 1, 1]
    assert stage.warnings == [
        "1 of 3 samples of 0.00 to 6.00 s were not usable; they count as empty"
    ]


async def test_no_usable_sample_ends_the_episode_by_name(tmp_path, monkeypatch):
    answer = replies([divided(900, 901)] * 3)
    async with asking(tmp_path, monkeypatch, answer, seconds=6) as (stage, _):
        with pytest.raises(CuesheetError, match=r"made/000000.*none of its 1"):
            await annotate(stage, settings())


async def test_a_new_label_leaves_the_agreement_as_it_was(tmp_path, monkeypatch):
    left = iter([divided(0, 3, 6), divided(0, 3, 6, labels="reach,drop")])

    def answer(kind, question):
        if kind == "Relabel":
            return {"label": "do it"}
        return {"scene": "a table", "events": []} if kind == "Description" else next(left)

    async with asking(tmp_path, monkeypatch, answer, seconds=6, concurrency=1) as (stage, _):
        result = await annotate(stage, settings(samples=2, relabel="span"))
    assert [(p["label"], p["agreement"]) for p in result["subtasks"]] == [
        ("do it", 1.0),
        ("do it", 0.5),
    ]


async def test_windows_are_sampled_one_by_one_and_samples_are_of_the_whole_episode(
    tmp_path, monkeypatch
):
    def answer(kind, question):
        if kind == "Description":
            return {"scene": "a table", "events": []}
        start = float(question.partition("Window: ")[2].split()[0])
        if not start:
            return divided(0, 3, 20)
        assert "Step under way when the window begins: lift\n" in question
        return divided(start, start + 3, 20, labels="lift,place")

    frames = {"mode": "single_frames", "max_frames_per_call": 13}
    async with asking(tmp_path, monkeypatch, answer, seconds=12) as (stage, server):
        result = await annotate(stage, settings(samples=2, frames=frames))
    assert len([body for body in server.bodies if kind_of(body) == "Segmentation"]) == 4
    # The step that goes on over the seam is one, of the samples too.
    assert [p["label"] for p in result["subtasks"]] == ["reach", "lift", "place"]
    assert [p["agreement"] for p in result["subtasks"]] == [1.0, 1.0, 1.0]
    assert [[p["label"] for p in s["subtasks"]] for s in result["samples"]] == [
        ["reach", "lift", "place"]
    ] * 2


async def test_one_sample_adds_nothing_to_requests_and_files(tmp_path, monkeypatch):
    answer = replies([divided(0, 3, 6)])
    sampling = {"temperature": 0.2, "seed": 5}
    async with asking(tmp_path, monkeypatch, answer, sampling=sampling, seconds=6) as (
        stage,
        server,
    ):
        result = await annotate(stage, settings(samples=1))
        names = [call["name"] for call in stage.vlm.calls]
        assert not any("sampling" in call for call in stage.vlm.calls)
    assert names == ["describe 0.00", "segment 0.00"]
    assert {(body["temperature"], body["seed"]) for body in server.bodies} == {(0.2, 5)}
    assert set(result) == {"task", "subtasks", "subtasks_from", "corrected"}
    assert set(result["subtasks"][0]) == {"start_frame", "end_frame", "start_s", "end_s", "label"}
