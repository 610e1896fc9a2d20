"""Applies corrections to the frames of an episode, and checks what needs those frames."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cuesheet.artifacts.corrections import Correction, check_correction
from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.subtasks import Subtask
from cuesheet.errors import CuesheetError
from cuesheet.vlm.vqa_answers import check_answer


@dataclass(frozen=True)
class ExternalSubtasks:
    """Subtasks that come from a person or the dataset instead of the model.

    `memories` are those that a person wrote, by the position of the subtask; "" writes none.
    """

    source: Literal["correction", "dataset", "propagation"]
    subtasks: list[Subtask]
    memories: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of_spans(cls, spans: Sequence[Mapping[str, Any]], episode: Episode) -> "ExternalSubtasks":
        """Return what a person wrote. Raises CuesheetError as `subtasks_from_spans`."""
        memories = {
            position: span["memory"]
            for position, span in enumerate(spans)
            if position > 0 and span.get("memory") is not None
        }
        return cls("correction", subtasks_from_spans(spans, episode), memories)


def check_applied(correction: Correction, episode: Episode) -> None:
    """Raise CuesheetError if a step of the next run would reject the correction."""
    check_correction(correction, episode.length, episode.fps, episode.keyframes)
    if correction.subtasks:
        subtasks_from_spans([span.model_dump() for span in correction.subtasks], episode)
    interjections_by_frame([one.model_dump() for one in correction.interjections or ()], episode)
    check_decoded([entry.model_dump() for entry in correction.vqa or ()], episode)
    for number, entry in enumerate(correction.vqa or ()):
        if entry.answer is not None:
            frame = episode.keyframes[entry.camera][0]
            problems = check_answer(entry.type, entry.answer, (frame.width, frame.height))
            if problems:
                raise CuesheetError(f"vqa.{number}: {problems[0].message}")


def subtasks_from_spans(spans: Sequence[Mapping[str, Any]], episode: Episode) -> list[Subtask]:
    """Return the corrected subtasks (`start_s`, `end_s`, `label`) of an episode in frames.

    Raises CuesheetError if two begin on one frame, or the last one does not end with the episode.
    """
    starts = [episode.nearest_frame(span["start_s"]) for span in spans]
    for number, (before, after) in enumerate(itertools.pairwise(starts)):
        if after <= before:
            raise CuesheetError(
                f"episode {episode.name}: the corrected subtasks {number} and {number + 1} both "
                f"begin on frame {after}; move or remove one of them"
            )
    last = spans[-1]["end_s"]
    if last is not None and abs(last - episode.end_s) > 0.5 / episode.fps + 1e-3:
        raise CuesheetError(
            f"episode {episode.name}: the last corrected subtask ends at {last:g} s; the episode "
            f"ends at {episode.end_s:g} s"
        )
    ends = [*starts[1:], episode.length]
    return [
        Subtask(start, end, span["label"])
        for start, end, span in zip([0, *starts[1:]], ends, spans, strict=True)
    ]


def interjections_by_frame(
    entries: Sequence[Mapping[str, Any]], episode: Episode
) -> dict[int, Mapping[str, Any]]:
    """Return corrected interjections (`time_s`, `interjection`, `speech`) by their nearest frame.

    Raises CuesheetError if two are on one frame, or speech alone is not on the first frame.
    """
    found: dict[int, Mapping[str, Any]] = {}
    for number, entry in enumerate(entries):
        frame = episode.nearest_frame(entry["time_s"])
        if frame in found:
            raise CuesheetError(
                f"episode {episode.name}: interjections.{number} is on frame {frame}, which "
                "already has an interjection; move or remove one of them"
            )
        if entry["interjection"] is None and frame > 0:
            raise CuesheetError(
                f"episode {episode.name}: interjections.{number} on frame {frame} has no "
                "interjection; only the first frame may have speech alone"
            )
        found[frame] = entry
    return dict(sorted(found.items()))


def check_decoded(entries: Sequence[Mapping[str, Any]], episode: Episode) -> None:
    """Raise CuesheetError if a correction is about a frame that was not decoded."""
    for entry in entries:
        decoded = {frame.frame_index for frame in episode.keyframes.get(entry["camera"], ())}
        if not entry["delete"] and entry["frame_index"] not in decoded:
            near = min(decoded, key=lambda index: abs(index - entry["frame_index"]), default="none")
            raise CuesheetError(
                f"episode {episode.name}: a correction has a question about frame "
                f"{entry['frame_index']} of {entry['camera']}, which is not among the decoded "
                f"keyframes; the nearest one is {near}"
            )


def apply_vqa(
    pairs: Sequence[dict[str, Any]], entries: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the corrected pairs, and frame_index, camera and action of each applied entry."""
    by_place = {(pair["frame_index"], pair["camera"]): pair for pair in pairs}
    done: list[dict[str, Any]] = []
    for entry in entries:
        place = (entry["frame_index"], entry["camera"])
        old = by_place.get(place)
        if entry["delete"]:
            if old is None or old["type"] != entry["type"]:
                continue
            del by_place[place]
            action = "deleted"
        else:
            names = ("frame_index", "camera", "type", "question", "answer")
            by_place[place] = {name: entry[name] for name in names}
            action = "added" if old is None else "replaced"
        done.append({"frame_index": place[0], "camera": place[1], "action": action})
    return list(by_place.values()), done
