"""Files of the drafted labels of tasks (`plan.vocabulary: auto`).

- `vocabulary/drafts/{episode}.json`: the steps that the model saw in one episode.
- `vocabulary/{task}.json`: the labels of a task, made of the drafts of a few of its episodes. It
  has no times and no record of requests: two runs with the same replies write the same bytes, and
  the plans are made again only if a label changes.
- `vocabulary/requests/{task}.json`: the record of the request that made it.
"""

from typing import ClassVar, Literal

from pydantic import Field, FiniteFloat

from cuesheet.artifacts.stage_files import File, Provenance


class _File(File):
    advice: ClassVar[str] = "Delete it and run again (cached responses are reused)."


class DraftStep(File):
    """A step of an episode; `what_changed` is what the model saw."""

    what_changed: str = ""
    at_s: FiniteFloat
    label: str


class DraftFile(_File):
    """The steps of one episode; none if the model gave no usable reply."""

    format: Literal[1]
    stage: Literal["vocabulary"]
    dataset: str
    episode_index: int
    steps: list[DraftStep]
    warnings: list[str] = Field(default_factory=list)
    provenance: Provenance = Field(default_factory=Provenance)

    @property
    def labels(self) -> list[str]:
        return [step.label for step in self.steps]


class VocabularyFile(_File):
    """The labels of a task; none if they could not be made, and plans then have any labels."""

    format: Literal[1]
    dataset: str
    task: str
    labels: list[str]
    drafts: dict[str, list[str]]  # the labels in the draft of each episode, by its name
    warnings: list[str] = Field(default_factory=list)

    @property
    def drafted_labels(self) -> list[str]:
        """The distinct labels of the drafts."""
        found = {label.casefold(): label for labels in self.drafts.values() for label in labels}
        return list(found.values())


class VocabularyRequests(_File):
    """How the labels of a task were requested."""

    format: Literal[1]
    provenance: Provenance
