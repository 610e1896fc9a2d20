"""Replies whose labels are taken from a given list, which servers enforce while decoding."""

from functools import cache
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, create_model

from cuesheet.vlm.replies import (
    CompletedEvent,
    CompletedEvents,
    LabelCandidates,
    Relabel,
    Segmentation,
    Span,
)

Reply = TypeVar("Reply", bound=BaseModel)


@cache
def with_vocabulary(reply: type[Reply], labels: tuple[str, ...]) -> type[Reply]:
    """Return a model like `reply` whose labels are one of `labels`.

    Without labels, and for replies that have none, it is `reply` itself. The name, which servers
    see, stays the same.
    """
    if not labels:
        return reply
    label: Any = (Literal[labels], ...)
    if reply is Relabel:
        return create_model("Relabel", __base__=Relabel, label=label)
    if reply is LabelCandidates:
        several: Any = (list[Literal[labels]], Field(min_length=1, max_length=8))
        return create_model("LabelCandidates", __base__=LabelCandidates, labels=several)
    if reply is Segmentation:
        span = create_model("Span", __base__=Span, label=label)
        spans: Any = (list[span], Field(min_length=1, max_length=64))
        return create_model("Segmentation", __base__=Segmentation, subtasks=spans)
    if reply is CompletedEvents:
        event = create_model("CompletedEvent", __base__=CompletedEvent, label=label)
        events: Any = (list[event], Field(max_length=32))
        return create_model("CompletedEvents", __base__=CompletedEvents, events=events)
    return reply
