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
    # The models are made at run time, so their types are not known before.
    make: Any = create_model
    literal: Any = Literal
    list_of: Any = list
    one: Any = literal[labels]
    label = (one, ...)
    if reply is Relabel:
        return make("Relabel", __base__=Relabel, label=label)
    if reply is LabelCandidates:
        several = (list_of[one], Field(min_length=1, max_length=8))
        return make("LabelCandidates", __base__=LabelCandidates, labels=several)
    if reply is Segmentation:
        span: Any = make("Span", __base__=Span, label=label)
        spans = (list_of[span], Field(min_length=1, max_length=64))
        return make("Segmentation", __base__=Segmentation, subtasks=spans)
    if reply is CompletedEvents:
        event: Any = make("CompletedEvent", __base__=CompletedEvent, label=label)
        events = (list_of[event], Field(max_length=32))
        return make("CompletedEvents", __base__=CompletedEvents, events=events)
    return reply
