"""Validates `motion` rows against the spans that they were written from.

A row only has a start. The plan file also has the spans, so that "one motion per arm at a time" can
be checked.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby

from cuesheet.artifacts.stage_files import MotionSpan

# A code, a place and a message.
Problem = tuple[str, str, str]


def check_motion(
    starts: Collection[tuple[int, str | None]], spans: Sequence[MotionSpan], length: int
) -> Iterator[Problem]:
    """Yield the problems of the motion rows of an episode.

    Args:
        starts: frame and text of each row.
        spans: the spans of all arms.
        length: number of frames of the episode.
    """
    ordered = sorted(spans, key=lambda span: (span.arm, span.start_frame, span.end_frame))
    for arm, group in groupby(ordered, key=lambda span: span.arm):
        before = 0
        for span in group:
            frames = f"frames {span.start_frame} to {span.end_frame}"
            if not 0 <= span.start_frame < span.end_frame <= length:
                yield (
                    "motion_span_invalid",
                    f"motion of {arm}",
                    f"{span.text!r} covers {frames}; the episode has {length} frames.",
                )
            elif span.start_frame < before:
                yield (
                    "motion_overlaps",
                    f"motion of {arm}",
                    f"{span.text!r} covers {frames}, but the motion before it ends at frame "
                    f"{before}; an arm has one motion at a time.",
                )
            before = max(before, span.end_frame)
    expected = {(span.start_frame, span.text) for span in spans}
    for frame, text in sorted(expected ^ set(starts), key=str):
        yield (
            "motion_rows_disagree",
            "motion",
            f"frame {frame}: {text!r} is "
            + ("a span without a row." if (frame, text) in expected else "a row without a span."),
        )
