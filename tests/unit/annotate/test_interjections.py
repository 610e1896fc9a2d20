"""Requests for interjections and memory, and the rows that follow from replies."""

from stage_setup import CAMERA, asking, words_of

from cuesheet.annotate import interjections, plan
from cuesheet.annotate.interjections import KINDS, MANNERS
from cuesheet.config.stages import FramesConfig, InterjectionsConfig, PlanConfig
from cuesheet.vlm.replies import first_sentences

LABELS = ["pick up the block", "place the block", "let go of the block", "open the box"]
LABELS += ["pick up the lid", "close the box", "push the box"]


def line(question, name):
    return next(
        text.partition(": ")[2] for text in question.splitlines() if text.startswith(f"{name}: ")
    )


async def test_each_interjection_has_another_kind_with_its_own_example(tmp_path, monkeypatch):
    def answer(kind, question):
        said = {"interjection": "Do it.", "speech": "Fine."}
        return said if kind == "Interjection" else {"speech": "Fine."}

    async with asking(tmp_path, monkeypatch, answer, name="interjections", seconds=14) as (
        stage,
        server,
    ):
        parts = [
            {"start_s": 2.0 * n, "start_frame": 20 * n, "label": label}
            for n, label in enumerate(LABELS)
        ]
        content = {"task": {"text": "tidy up"}, "subtasks": parts, "persistent": []}
        await interjections.annotate(
            stage,
            InterjectionsConfig(max_per_episode=5, not_before_s=1),
            plan=content,
            camera=CAMERA,
            layout=FramesConfig(),
            seed=0,
        )
    questions = [words_of(body) for body in server.bodies]
    acknowledged = [text for text in questions if "Kind: " not in text]
    interjected = [text for text in questions if "Kind: " in text]
    assert len(acknowledged) == 1
    assert {line(text, "Kind") for text in interjected} == set(KINDS)
    assert {line(text, "Manner") for text in questions} == set(MANNERS)
    examples = {text.rpartition('"interjection": ')[2] for text in interjected}
    assert len(examples) == len(KINDS)
    for text in interjected:
        assert f"It is a {line(text, 'Kind')}" in text
        assert line(text, "Coming subtask") != "let go of the block"


async def test_memory_sees_what_remains_and_keeps_two_sentences(tmp_path, monkeypatch):
    spans = [
        {"what_changed": "", "start_s": 3.0 * n, "end_s": 3.0 * n + 3, "label": label}
        for n, label in enumerate(LABELS[:4])
    ]

    def answer(kind, question):
        return {
            "Segmentation": {"subtasks": spans},
            "Memory": {"memory": "I took it. It is red. The box is shut."},
        }[kind]

    settings = PlanConfig(describe_first=False, rephrasings={"mode": "off"})
    async with asking(tmp_path, monkeypatch, answer, seconds=12) as (stage, server):
        await plan.annotate(stage, settings, camera=CAMERA, cut_clip=None)
    asked = [body for body in server.bodies if "Still to come: " in words_of(body)]
    asked = [body for body in asked if len(body["messages"]) == 2]
    remaining = [line(words_of(body), "Still to come") for body in asked]
    assert remaining == [f"{LABELS[2]}; {LABELS[3]}", LABELS[3], "nothing"]
    kept = [row["content"] for row in stage.persistent if row["style"] == "memory"]
    assert kept == ["I took it. It is red."] * 3
    calls = [call for call in stage.vlm.calls if call["prompt"] == "plan_memory"]
    assert [call["outcome"] for call in calls] == ["retried"] * 3
    assert "memory has at most 2 sentences, but this has 3" in calls[0]["error"]


def test_sentences_are_counted_as_people_do():
    assert first_sentences("It holds 1.5 l. Done! Really? Yes", 2) == "It holds 1.5 l. Done!"
    assert first_sentences("One sentence", 2) == "One sentence"
    assert first_sentences("\u6211\u62ff\u4e86\u3002\u653e\u4e0b\u3002\u8d70\u3002", 2) == (
        "\u6211\u62ff\u4e86\u3002\u653e\u4e0b\u3002"
    )
