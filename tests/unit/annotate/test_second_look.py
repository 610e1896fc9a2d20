"""The second look into coarse segments, and labels that are requested again."""

import contextlib

import pytest
from stage_setup import CAMERA, asking, kind_of, media_of, words_of

from cuesheet.annotate import plan
from cuesheet.config.load import load_config
from cuesheet.config.stages import PlanConfig
from cuesheet.errors import CuesheetError
from cuesheet.vlm.coordinates import default_relabeling

COARSE = [
    {"what_changed": "", "start_s": 0.0, "end_s": 6.0, "label": "move the cup"},
    {"what_changed": "", "start_s": 6.0, "end_s": 7.5, "label": "wave"},
    {"what_changed": "", "start_s": 7.5, "end_s": 12.0, "label": "open the box"},
]
EVENTS = {
    "move the cup": [
        {"what_changed": "", "at_s": 5.0, "label": "place the cup"},
        {"what_changed": "", "at_s": 2.0, "label": "pick up the cup"},
        {"what_changed": "", "at_s": 11.0, "label": "outside"},
    ],
    "open the box": [{"what_changed": "", "at_s": 9.0, "label": "lift the lid"}],
}


def line(question, name):
    return next(
        text.partition(": ")[2] for text in question.splitlines() if text.startswith(f"{name}: ")
    )


def answer(kind, question):
    if kind == "Segmentation":
        return {"subtasks": COARSE}
    label = line(question, "First label") if "First label: " in question else ""
    return {
        "CompletedEvents": lambda: {"events": EVENTS[label]},
        "Relabel": lambda: {"what_changed": "", "label": f"{label} again"},
        "LabelCandidates": lambda: {
            "what_changed": "",
            "labels": [f"{label} a", f"{label} a", f"{label} b"],
        },
        "LabelChoice": lambda: {"why": "", "number": 2},
    }[kind]()


async def annotated(tmp_path, monkeypatch, reply=answer, **settings):
    settings = PlanConfig(
        describe_first=False, memory=False, rephrasings={"mode": "off"}, **settings
    )
    async with asking(tmp_path, monkeypatch, reply, seconds=12, fine_per_second=5) as (
        stage,
        server,
    ):
        found = await plan.annotate(stage, settings, camera=CAMERA, cut_clip=None)
    return [(s["start_s"], s["end_s"], s["label"]) for s in found["subtasks"]], server.bodies, stage


async def test_long_segments_are_divided_at_completed_events(tmp_path, monkeypatch):
    subtasks, bodies, _ = await annotated(tmp_path, monkeypatch, second_look=True)
    assert subtasks == [
        (0.0, 2.0, "pick up the cup"),
        (2.0, 6.0, "place the cup"),
        (6.0, 7.5, "wave"),
        (7.5, 12.0, "open the box"),
    ]
    looks = [body for body in bodies if kind_of(body) == "CompletedEvents"]
    assert sorted(line(words_of(body), "Span") for body in looks) == [
        "0.00 to 6.00 s",
        "7.50 to 12.00 s",
    ]
    first = next(body for body in looks if line(words_of(body), "Span").startswith("0.00"))
    shown = line(words_of(first), "Sheet 1").split()
    assert shown[:3] == ["0.00", "0.20", "0.40"]


async def test_without_a_second_look_nothing_more_is_requested(tmp_path, monkeypatch):
    subtasks, bodies, _ = await annotated(tmp_path, monkeypatch, second_look=False)
    assert len(subtasks) == 3
    assert [kind_of(body) for body in bodies] == ["Segmentation"]


async def test_an_unusable_second_look_keeps_the_segment_with_a_warning(tmp_path, monkeypatch):
    def broken(kind, question):
        return {"no": "events"} if kind == "CompletedEvents" else answer(kind, question)

    subtasks, _, stage = await annotated(tmp_path, monkeypatch, broken, second_look=True)
    assert [label for _, _, label in subtasks] == ["move the cup", "wave", "open the box"]
    assert len(stage.warnings) == 2


@pytest.mark.parametrize("mode", ["span", "neighbors"])
async def test_relabeling_shows_the_span_alone_or_with_named_neighbors(tmp_path, monkeypatch, mode):
    subtasks, bodies, _ = await annotated(tmp_path, monkeypatch, relabel=mode)
    assert [label for _, _, label in subtasks] == [
        "move the cup again", "wave again", "open the box again"
    ]  # fmt: skip
    asked = [body for body in bodies if kind_of(body) == "Relabel"]
    middle = next(body for body in asked if "First label: wave" in words_of(body))
    text = words_of(middle)
    if mode == "span":
        times = [float(line(text, f"Image {n}").split()[0]) for n in range(1, 4)]
        assert len(media_of(middle)) == 3
        assert all(6.0 <= time_s < 7.5 for time_s in times)
        assert "Label of the span before" not in text
    else:
        assert len(media_of(middle)) == 3
        assert line(text, "Label of the span before") == "move the cup"
        assert line(text, "Label of the span after") == "open the box"
        assert line(text, "Image 2, the segment").startswith("frames at 6.00 ")
    first = next(body for body in asked if "First label: move" in words_of(body))
    assert len(media_of(first)) == (4 if mode == "span" else 2)


async def test_one_request_selects_among_candidates(tmp_path, monkeypatch):
    subtasks, bodies, _ = await annotated(tmp_path, monkeypatch, relabel="span", label_candidates=3)
    assert [label for _, _, label in subtasks] == [
        "move the cup b", "wave b", "open the box b"
    ]  # fmt: skip
    kinds = [kind_of(body) for body in bodies]
    assert kinds.count("LabelCandidates") == kinds.count("LabelChoice") == 3
    choice = next(words_of(body) for body in bodies if kind_of(body) == "LabelChoice")
    assert line(choice, "Label 1").endswith(" a")
    assert line(choice, "Label 2").endswith(" b")
    assert "Label 3: " not in choice


async def test_candidates_that_do_not_differ_are_requested_once_more(tmp_path, monkeypatch):
    def equal(kind, question):
        if kind == "LabelCandidates":
            return {"what_changed": "", "labels": ["wave", "Wave"]}
        return answer(kind, question)

    subtasks, bodies, _ = await annotated(
        tmp_path, monkeypatch, equal, relabel="span", label_candidates=2
    )
    kinds = [kind_of(body) for body in bodies]
    assert kinds.count("LabelCandidates") == 2 * len(subtasks)


async def test_a_vocabulary_of_one_label_has_no_candidates(tmp_path, monkeypatch):
    async with asking(tmp_path, monkeypatch, answer, seconds=12) as (stage, server):
        stage.vocabulary = ("wave",)
        settings = PlanConfig(
            describe_first=False,
            memory=False,
            rephrasings={"mode": "off"},
            relabel="span",
            label_candidates=3,
        )
        with contextlib.suppress(CuesheetError):
            await plan.annotate(stage, settings, camera=CAMERA, cut_clip=None)
    assert "LabelCandidates" not in {kind_of(body) for body in server.bodies}


@pytest.mark.parametrize(
    ("model", "mode"),
    [
        ("Qwen/Qwen3-VL-8B-Instruct", "span"),
        ("qwen2.5vl:7b", "span"),
        ("google/gemini-2.5-pro", "neighbors"),
        ("OpenGVLab/InternVL3-8B", "off"),
    ],
)
def test_the_default_follows_the_model_family(model, mode):
    assert default_relabeling(model) == mode


@pytest.mark.parametrize(
    ("plan_settings", "line"),
    [
        (
            {"relabel": True},
            "plan.relabel: found true, expected one of auto, off, span, neighbors",
        ),
        (
            {"relabel": "off", "label_candidates": 3},
            "plan: label_candidates is 3 but relabel is off; set plan.relabel to span or "
            "neighbors, or plan.label_candidates to 1",
        ),
        (
            {"second_look": "maybe"},
            "plan.second_look: found 'maybe', expected true or false or null",
        ),
    ],
)
def test_invalid_settings_are_one_line(plan_settings, line):
    with pytest.raises(CuesheetError) as raised:
        load_config({"dataset": "d", "plan": plan_settings})
    assert str(raised.value).splitlines() == [f"config: {line}"]
