"""Replies whose labels are taken from a list, and replies from which such a list is made.

Servers enforce the list while decoding. A list that the model drafted from a few episodes may lack
a step, so its replies may also have the label `other`; the model then writes the label in its own
words, before it chooses.
"""

from functools import cache
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, create_model

from cuesheet.vlm.replies import (
    CompletedEvent,
    CompletedEvents,
    Evidence,
    LabelCandidates,
    Relabel,
    Reply,
    Seconds,
    Segmentation,
    Span,
    StepLabel,
    candidates,
    long_labels,
)

AnyReply = TypeVar("AnyReply", bound=BaseModel)

# The label of a step that a drafted list does not have.
OTHER = "other"


class DraftedStep(Reply):
    """A step that is seen in an episode, at the time at which it is complete."""

    what_changed: Evidence = ""
    at_s: Seconds
    label: StepLabel


class DraftedSteps(Reply):
    """All steps of an episode, from which a list of labels is drafted."""

    steps: list[DraftedStep] = Field(min_length=1, max_length=40)

    def complaint(self) -> str:
        return long_labels([step.label for step in self.steps])


class MergedStep(Reply):
    """One label of the list; `numbers` are those of the drafted labels that mean the same."""

    numbers: list[int] = Field(default_factory=list, max_length=60)
    label: StepLabel


class MergedSteps(Reply):
    """The list of labels of a task."""

    steps: list[MergedStep] = Field(min_length=1, max_length=40)

    def complaint(self) -> str:
        labels = [step.label for step in self.steps]
        folded = [label.casefold() for label in labels]
        twice = [label for n, label in enumerate(labels) if folded[n] in folded[:n]]
        if twice:
            return f"every label is written once, but these are repeated: {'; '.join(twice)}"
        return long_labels(labels)


# Position of the model's own words in a reply: after the evidence, before the label from the list.
class _OwnLabel(Reply):
    what_changed: Evidence = ""
    own_words: StepLabel


class _OwnSpan(Reply):
    what_changed: Evidence = ""
    start_s: Seconds
    end_s: Seconds
    own_words: StepLabel


class _OwnEvent(Reply):
    what_changed: Evidence = ""
    at_s: Seconds
    own_words: StepLabel


@cache
def with_vocabulary(
    reply: type[AnyReply], labels: tuple[str, ...], own_words: bool = False
) -> type[AnyReply]:
    """Return a model like `reply` whose labels are one of `labels`.

    Without labels, and for replies that have none, it is `reply` itself. The name, which servers
    see, stays the same.

    Args:
        reply: a model of replies.
        labels: the labels that the reply may have.
        own_words: also allow the label `other`, with the label in the model's own words.
    """
    if not labels:
        return reply
    # The models are made at run time, so their types are not known before.
    make: Any = create_model
    literal: Any = Literal
    list_of: Any = list
    one: Any = literal[(*labels, OTHER) if own_words else labels]
    label = (one, ...)

    def like(model: type[Reply], first: type[Reply], **fields: Any) -> Any:
        # Fields keep the place that they have in the last base.
        bases = (model, first) if own_words else model
        return make(model.__name__, __base__=bases, **fields)

    if reply is Relabel:
        return like(Relabel, _OwnLabel, label=label)
    if reply is LabelCandidates:
        several = (list_of[one], candidates())
        return like(LabelCandidates, _OwnLabel, labels=several)
    if reply is Segmentation:
        span: Any = like(Span, _OwnSpan, label=label)
        spans = (list_of[span], Field(min_length=1, max_length=64))
        return make("Segmentation", __base__=Segmentation, subtasks=spans)
    if reply is CompletedEvents:
        event: Any = like(CompletedEvent, _OwnEvent, label=label)
        events = (list_of[event], Field(max_length=32))
        return make("CompletedEvents", __base__=CompletedEvents, events=events)
    return reply


def use_own_words(reply: BaseModel | None) -> None:
    """Replace the label `other` by the model's own words in a reply of `with_vocabulary`."""
    labeled_items: list[Any] = [reply]
    if isinstance(reply, Segmentation):
        labeled_items = list(reply.subtasks)
    elif isinstance(reply, CompletedEvents):
        labeled_items = list(reply.events)
    for labeled in labeled_items:
        own = getattr(labeled, "own_words", None)
        if own is None:
            continue
        if isinstance(labeled, LabelCandidates):
            labeled.labels = [own if label == OTHER else label for label in labeled.labels]
        elif labeled.label == OTHER:
            labeled.label = own
