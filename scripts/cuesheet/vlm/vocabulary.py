"""Replies whose labels are taken from a list, and replies from which such a list is made.

Servers enforce the list while decoding. A list that the model drafted from a few episodes may lack
a step, so its replies may also have the label `other`; the model then writes the label in its own
words, before it chooses.
"""

from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, create_model

from cuesheet.vlm.replies import (
    CompletedEvents,
    Evidence,
    LabelCandidates,
    Relabel,
    Reply,
    Seconds,
    Segmentation,
    StepLabel,
    candidates,
    long_labels,
)

AnyReply = TypeVar("AnyReply", bound=BaseModel)

# The models are made at run time, so mypy does not know their types.
_make: Any = create_model
_literal: Any = Literal
_list: Any = list
_annotated: Any = Annotated
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


@cache
def with_vocabulary(
    reply: type[AnyReply], labels: tuple[str, ...], own_words: bool = False
) -> type[AnyReply]:
    """Return a model like `reply` whose labels are one of `labels`.

    Without labels, and for replies that have none, it is `reply` itself. The name, which servers
    see, stays the same. `own_words`: also allow the label `other`, with the label in the model's
    own words.
    """
    if not labels or not issubclass(
        reply, Relabel | LabelCandidates | Segmentation | CompletedEvents
    ):
        return reply
    if issubclass(reply, Relabel | LabelCandidates):
        return _limited(reply, labels, own_words)
    ((name, items),) = reply.model_fields.items()
    item = _limited(get_args(items.annotation)[0], labels, own_words)
    list_of_items = _annotated[_list[item], *items.metadata]
    return _make(reply.__name__, __base__=reply, **{name: (list_of_items, ...)})


def _limited(model: Any, labels: tuple[str, ...], own_words: bool) -> Any:
    """Return a model like `model`, whose last field is a label or a list of labels."""
    one = _literal[(*labels, OTHER) if own_words else labels]
    *before, name = model.model_fields
    bases = model
    if own_words:
        # Fields keep the place that they have in the last base.
        order = dict.fromkeys(before, (Any, ...)) | {"own_words": (StepLabel, ...)}
        bases = (model, _make("Order", __base__=Reply, **order))
    label = (_list[one], candidates()) if name == "labels" else (one, ...)
    return _make(model.__name__, __base__=bases, **{name: label})


def labeled_items(reply: BaseModel | None) -> list[Any]:
    """Return the parts of a reply that have the labels of steps."""
    if isinstance(reply, Segmentation):
        return list(reply.subtasks)
    if isinstance(reply, CompletedEvents):
        return list(reply.events)
    if isinstance(reply, DraftedSteps):
        return list(reply.steps)
    return [reply] if isinstance(reply, Relabel | LabelCandidates) else []


def use_own_words(reply: BaseModel | None) -> None:
    """Replace the label `other` by the model's own words in a reply of `with_vocabulary`."""
    for item in labeled_items(reply):
        own = getattr(item, "own_words", None)
        if own is None:
            continue
        if isinstance(item, LabelCandidates):
            item.labels = [own if label == OTHER else label for label in item.labels]
        elif item.label == OTHER:
            item.label = own
