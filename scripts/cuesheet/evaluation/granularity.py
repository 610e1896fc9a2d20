"""Changes the granularity of reference segments, so that they fit what is scored against them.

A reference of phases (approach, grasp, carry, ...) becomes one of events (pick, place) in two
steps: labels such as `idle` are folded into a neighbor, and the others get new names. Consecutive
segments with the same new name become one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from cuesheet.evaluation.segments import Segment
from cuesheet.text import normalized

Side = Literal["previous", "next"]


@dataclass(frozen=True)
class Granularity:
    """How to change reference segments. Labels are compared without case and articles.

    Attributes:
        fold: labels whose segments become part of the `previous` or `next` segment. If there is
            no segment on that side, the other one gets the time.
        mapping: new names by label. Consecutive segments with the same new name are merged; labels
            without an entry stay as they are.
    """

    fold: Mapping[str, Side] = field(default_factory=dict)
    mapping: Mapping[str, str] = field(default_factory=dict)

    def apply(self, segments: Sequence[Segment]) -> list[Segment]:
        """Return the changed segments in order of time.

        Segments of an episode in which every label is folded stay as they are.
        """
        ordered = sorted(segments, key=lambda segment: (segment.start_s, segment.end_s))
        return self._rename(self._fold(ordered))

    def combined(self, other: "Granularity") -> "Granularity":
        """Return the rules of both; those of `other` win."""
        return Granularity({**self.fold, **other.fold}, {**self.mapping, **other.mapping})

    def _fold(self, segments: list[Segment]) -> list[Segment]:
        sides = {normalized(label): side for label, side in self.fold.items()}
        folded: list[Segment] = []
        pending_s: float | None = None  # start of folded segments that wait for the next one
        for segment in segments:
            side = sides.get(normalized(segment.text))
            start_s = segment.start_s if pending_s is None else pending_s
            if side is None:
                folded.append(replace(segment, start_s=start_s))
                pending_s = None
            elif side == "previous" and folded and pending_s is None:
                folded[-1] = replace(folded[-1], end_s=max(folded[-1].end_s, segment.end_s))
            else:
                pending_s = start_s
        if not folded:
            return segments
        if pending_s is not None:
            folded[-1] = replace(folded[-1], end_s=max(segment.end_s for segment in segments))
        return folded

    def _rename(self, segments: list[Segment]) -> list[Segment]:
        names = {normalized(label): name for label, name in self.mapping.items()}
        renamed: list[Segment] = []
        mergeable = False  # whether the last segment got a new name
        for segment in segments:
            name = names.get(normalized(segment.text))
            if name is not None and mergeable and renamed[-1].text == name:
                renamed[-1] = replace(renamed[-1], end_s=segment.end_s)
            else:
                renamed.append(segment if name is None else replace(segment, text=name))
            mergeable = name is not None
        return renamed
