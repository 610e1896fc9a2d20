"""The answer is found wherever a server or a model puts it; a draft is never taken for it."""

import pytest
from pydantic import BaseModel

from cuesheet.vlm.parsing import UnusableReplyError, choice_text, message_text, parse_reply


class Label(BaseModel):
    label: str


DRAFT, FINAL = '{"label": "DRAFT"}', '{"label": "red cube"}'
THINKING = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel>thought\n", "<channel|>"),
]


@pytest.mark.parametrize(("opening", "closing"), THINKING)
def test_a_draft_inside_thinking_is_never_the_answer(opening, closing):
    text = f"{opening}maybe {DRAFT}{closing}\n{FINAL}"
    assert parse_reply(text, Label).label == "red cube"
    with pytest.raises(UnusableReplyError):
        parse_reply(f"{opening}maybe {DRAFT}{closing}\n", Label)
    with pytest.raises(UnusableReplyError):
        parse_reply(f"{opening}maybe {DRAFT}", Label)


@pytest.mark.parametrize("closing", ["</think>", "[/THINK]", "◁/think▷"])
def test_text_before_a_closing_mark_without_an_opening_one_is_thinking(closing):
    assert parse_reply(f"so {DRAFT} {closing}{FINAL}", Label).label == "red cube"


def test_the_end_marker_of_a_final_channel_does_not_hide_the_answer():
    text = f"<|channel|>final<|message|>{FINAL}<|end|>"
    assert parse_reply(text, Label).label == "red cube"


def test_the_last_matching_object_counts():
    text = f'First {DRAFT}, then {FINAL}. Note: {{"other": 1}}'
    assert parse_reply(text, Label).label == "red cube"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"content": FINAL}, "content"),
        ({"content": [{"type": "text", "text": FINAL}]}, "content parts"),
        ({"content": None, "reasoning_content": FINAL}, "reasoning_content"),
        ({"content": "", "reasoning": FINAL}, "reasoning"),
        (
            {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": FINAL}}]},
            "tool_calls",
        ),
        (
            {"tool_calls": [{"function": {"arguments": {"label": "red cube"}}}]},
            "tool_calls",
        ),
        (
            {"content": "I answer.", "tool_calls": [{"function": {"arguments": FINAL}}]},
            "tool_calls",
        ),
        ({"content": [{"type": "text", "text": {"value": FINAL}}]}, "content parts"),
        ({"content": None, "parsed": {"label": "red cube"}}, "parsed"),
        (
            {
                "content": [
                    {"type": "text", "text": FINAL},
                    {"type": "reasoning", "text": DRAFT},
                ]
            },
            "content parts",
        ),
    ],
)
def test_the_answer_is_found_in_every_field_that_servers_use(message, field):
    text, found = message_text({"role": "assistant", **message})
    assert found == field
    assert parse_reply(text, Label).label == "red cube"


def test_a_message_without_text_gives_nothing():
    assert message_text({"role": "assistant", "content": None, "refusal": None}) == ("", "")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_draft_in_reasoning_that_was_cut_off_is_never_the_answer(field):
    message = {"content": None, field: f"Perhaps {DRAFT}, but"}
    assert choice_text({"message": message, "finish_reason": "length"}) == ("", "")
    assert choice_text({"message": message, "finish_reason": "stop"})[1] == field
    both = {"message": {**message, "content": FINAL}, "finish_reason": "length"}
    assert choice_text(both) == (FINAL, "content")


class Step(BaseModel):
    label: str
    end_s: float


class Steps(BaseModel):
    steps: list[Step]
    note: str


STEPS = '{"steps": [{"label": "reach", "end_s": 1.5}], "note": "done"}'


@pytest.mark.parametrize(
    "prefix", ["", "```json\n", f"a draft: {STEPS.replace('reach', 'DRAFT')}\n"]
)
def test_a_brace_that_is_missing_at_the_end_is_added_if_the_model_ended_the_reply(prefix):
    text = prefix + STEPS[:-1] + ("\n```" if prefix.startswith("`") else "")
    assert parse_reply(text, Steps, is_complete=True).steps[0].label == "reach"


@pytest.mark.parametrize("length", range(1, len(STEPS) - 1))
def test_a_reply_that_lacks_more_than_braces_is_never_completed(length):
    with pytest.raises(UnusableReplyError):
        parse_reply(STEPS[:length], Steps, is_complete=True)


def test_a_reply_that_was_cut_off_is_never_completed():
    with pytest.raises(UnusableReplyError, match="no complete JSON object"):
        parse_reply(STEPS[:-1], Steps)


def test_a_number_at_the_end_may_be_cut_and_is_not_completed():
    with pytest.raises(UnusableReplyError):
        parse_reply('{"label": "reach", "end_s": 1', Step, is_complete=True)
